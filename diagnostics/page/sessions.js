// The table of sessions, with the lanes of those that are open.
import { bytes, duration, element, kind, rate, reconcile, setText, short, since, spark, sparkline, whyText } from "./text.js";

const shown = 60; // rates that a line shows
const past = new Map(); // by row: bytes, when, and the last rates. Rows that are not shown are forgotten.
const opened = new Set(); // rows whose details are shown

// keyOf names a row: both sides of a session may be in this process.
const keyOf = (s) => s.id + (s.server ? "s" : "c");

// drawSessions draws the sessions of a view into tbody. explain is called with a peer and a tag.
export function drawSessions(tbody, view, explain) {
  const rows = view.sessions ?? [];
  const keys = new Set(rows.map(keyOf));
  for (const key of past.keys()) if (!keys.has(key)) past.delete(key);
  for (const key of opened) if (!keys.has(key)) opened.delete(key);
  const taken = view.summary.taken;
  const items = rows.flatMap((s) => (opened.has(keyOf(s)) ? [{ s }, { s, details: true }] : [{ s }]));
  reconcile(tbody, items, (i) => keyOf(i.s) + (i.details ? "+" : ""), create,
    (tr, i) => (i.details ? updateDetails(tr, i.s, taken, explain) : updateRow(tr, i.s, taken)));
}

function create(item) {
  if (item.details) return element("tr", { class: "more" }, element("td", { colspan: 8 }, element("div", { class: "details" })));
  const button = element("button", { type: "button", class: "open", "aria-expanded": "false", onclick: () => {
    const key = keyOf(item.s);
    opened.has(key) ? opened.delete(key) : opened.add(key);
    document.dispatchEvent(new Event("redraw"));
  } });
  const cells = ["State", "Peer", "Tag", "Path", "Round trip", "In, out", "Calls", "Age"].map((label) => element("td", { "data-label": label }));
  cells[0].append(element("span"));
  cells[1].append(button);
  cells[5].append(element("span"), " ", spark());
  return element("tr", {}, ...cells);
}

function updateRow(tr, s, taken) {
  const cells = tr.children;
  const rates = measure(s, taken);
  const state = cells[0].firstElementChild;
  state.className = `dot ${s.state === "detached" ? "detached" : kind(s.path)}`;
  setText(state, s.draining ? `${s.state}, draining` : s.state);
  const button = cells[1].firstElementChild;
  setText(button, short(s.peer));
  button.title = s.peer;
  button.setAttribute("aria-expanded", String(opened.has(keyOf(s))));
  setText(cells[2], s.tag);
  setText(cells[3], s.path ? s.path.text : `none for ${since(s.state_since, taken)}`);
  setText(cells[4], s.rtt_ms ? duration(s.rtt_ms) : "-");
  setText(cells[5].firstElementChild, `${rate(rates.in)}, ${rate(rates.out)}`);
  sparkline(cells[5].lastElementChild, rates.all);
  setText(cells[6], `${s.requests_in + s.requests_out}${s.in_flight_in + s.in_flight_out ? `, ${s.in_flight_in + s.in_flight_out} running` : ""}`);
  setText(cells[7], since(s.started, taken));
}

// measure returns the rates of a session since the view before.
function measure(s, taken) {
  const now = Date.parse(taken);
  const was = past.get(keyOf(s));
  if (!was) {
    past.set(keyOf(s), { at: now, in: s.bytes_in, out: s.bytes_out, rates: { in: 0, out: 0, all: [] } });
    return past.get(keyOf(s)).rates;
  }
  if (now > was.at) {
    const per = 1000 / (now - was.at);
    was.rates.in = Math.max(0, s.bytes_in - was.in) * per;
    was.rates.out = Math.max(0, s.bytes_out - was.out) * per;
    was.rates.all = [...was.rates.all.slice(1 - shown), was.rates.in + was.rates.out];
    Object.assign(was, { at: now, in: s.bytes_in, out: s.bytes_out });
  }
  return was.rates;
}

function updateDetails(tr, s, taken, explain) {
  const box = tr.firstElementChild.firstElementChild;
  if (!box.firstChild) {
    box.append(element("p", { class: "facts" }), element("button", { type: "button", class: "explain", onclick: () => explain(s.peer, s.tag) }, "Explain"),
      ...["carriers", "streams", "records", "bulk", "transfers"].map((name) => element("div", { class: name })));
  }
  const facts = [`session ${s.id}`, `peer ${s.peer}`, s.agent && `speaks ${s.agent}`, s.server ? "served here" : "of a client here",
    s.sealed ? "with a pre-shared key" : "without a pre-shared key",
    s.resumable ? `${s.resumes} resumed, ${s.migrations} moved, ${bytes(s.resent)} sent again, ${bytes(s.replay_used)} of ${bytes(s.replay_window)} kept for another connection` : "ends with its connection",
    s.path?.relayed && s.path.relay_data && `the relay has ${bytes(s.path.relay_left ?? 0)} of ${bytes(s.path.relay_data)} left`,
    `${bytes(s.peer_memory)} held for the peer`, `${bytes(s.bytes_in)} in, ${bytes(s.bytes_out)} out`, `${s.messages_in} messages in, ${s.messages_out} out`];
  setText(box.querySelector(".facts"), facts.filter(Boolean).join("; "));
  list(box.querySelector(".carriers"), "Connections", s.carriers, (c) =>
    `${c.path}, ${c.until ? `${since(c.since, c.until)}, ${c.moved ? "left for a better one" : whyText(c.why)}` : `for ${since(c.since, taken)}`}`);
  list(box.querySelector(".streams"), "Streams", s.streams, (t) =>
    `${t.name || "(no name)"}, ${t.kind}, ${t.state}, ${bytes(t.bytes_in)} in, ${bytes(t.bytes_out)} out${t.unread ? `, ${bytes(t.unread)} unread` : ""}`, s.more?.streams);
  list(box.querySelector(".records"), "Record streams", s.records, (r) =>
    `${r.name || "(no name)"}: ${r.written} written, ${r.acked} applied by the peer, ${r.outstanding} outstanding; ${r.received} received, ${r.applied} applied here`, s.more?.records);
  list(box.querySelector(".bulk"), "Bulk lanes", s.bulk, (b) =>
    `${b.name || "(no name)"}, ${b.mode}, ${b.strands} strands, ${bytes(b.bytes_in)} in, ${bytes(b.bytes_out)} out${b.compressed ? ", compressed" : ""}`, s.more?.bulk);
  list(box.querySelector(".transfers"), "Transfers", s.transfers, (t) => `${t.name}, ${t.phase}`, s.more?.transfers);
}

// list makes parent a list with a title, or empty. more is how many items were left out.
function list(parent, title, items, text, more = 0) {
  if (!items?.length) {
    parent.replaceChildren();
    return;
  }
  if (!parent.firstChild) parent.append(element("strong"), element("ul"));
  setText(parent.firstElementChild, more ? `${title} (the last ${items.length} of ${items.length + more})` : `${title} (${items.length})`);
  reconcile(parent.lastElementChild, items.map((item, i) => ({ item, i })), (x) => x.i, () => element("li"), (li, x) => setText(li, text(x.item)));
}
