// The lists below the sessions.
import { bytes, duration, element, rate, reconcile, safe, setText, short, since, whyText } from "./text.js";

// drawLists draws all lists of a view. explain is called with a peer and a tag.
export function drawLists(view, explain) {
  const taken = view.summary.taken;
  draw("transfers", view.transfers, (t) => t.number, transfer, updateTransfer);
  draw("keepers", view.keepers, (k) => k.peer + k.tag, (k) => lined(() => explain(k.peer, k.tag)), (li, k) => setLine(li,
    `${short(k.peer)} ${k.tag}: ${k.open} of ${k.want} open${k.opening ? `, ${k.opening} opening` : ""}`, whyText(k.why)));
  draw("calls", view.calls, (c) => c.peer + c.tag + c.began, () => lined(), (li, c) => setLine(li,
    `${short(c.peer)} ${c.tag}`, `${c.path}, ${bytes(c.bytes_in)} in, ${bytes(c.bytes_out)} out, for ${since(c.began, taken)}`));
  draw("limits", view.limits, (l) => `${l.name} ${l.peer ?? ""} ${l.tag ?? ""}`, limit, updateLimit);
  const event = (li, e) => setLine(li, `${short(e.peer)} ${e.tag}, ${since(e.at, taken)} ago${e.path ? `, ${e.path}` : ""}`, whyText(e.why));
  draw("ended", view.ended, (e) => e.session + e.at, (e) => lined(() => explain(e.peer, e.tag)), event);
  draw("refused", view.refused, (e) => e.at + e.peer + e.tag, (e) => lined(() => explain(e.peer, e.tag)), event);
}

function draw(id, items, keyOf, create, update) {
  const section = document.getElementById(id);
  section.hidden = !items?.length;
  reconcile(section.querySelector("ul"), items ?? [], keyOf, create, update);
}

// lined returns an item of two lines, with a button if there is something to explain.
function lined(explain) {
  return element("li", {}, element("span"), element("div", { class: "faint" }),
    explain ? element("button", { type: "button", class: "explain", onclick: explain }, "Explain") : undefined);
}

function setLine(li, first, second) {
  setText(li.children[0], first);
  setText(li.children[1], second);
}

const transfer = () => element("li", {}, element("span"), element("progress", { max: 1, "aria-label": "verified" }), element("div", { class: "faint" }));

function updateTransfer(li, t) {
  const [name, bar, rest] = li.children;
  setText(name, `${t.name}: ${t.receiving ? "receiving" : "sending"}, ${t.phase}`);
  bar.value = t.bytes ? t.verified / t.bytes : t.files && t.files_done / t.files;
  setText(rest, `${t.files_done} of ${t.files} files, ${bytes(t.verified)} of ${bytes(t.bytes)}, ${rate(t.rate)}${t.eta_ms > 0 ? `, ${duration(t.eta_ms)} left` : ""}` +
    `${t.bad ? `, ${t.bad} bad pieces` : ""}${t.sources?.length > 1 ? `, from ${t.sources.length} peers` : ""}`);
}

const limit = () => element("li", {}, element("span"), element("meter", { min: 0, high: 0.8, optimum: 0 }));

function updateLimit(li, l) {
  const amount = l.name === "memory" ? bytes : String;
  const text = `${l.name}${l.tag ? ` of ${l.tag}` : ""}${l.peer ? ` at ${short(l.peer)}` : ""}: ${amount(l.used)} of ${amount(l.max)}${l.refused ? `, ${l.refused} refused` : ""}`;
  setText(li.children[0], text);
  li.children[1].value = l.max ? l.used / l.max : 0;
  li.children[1].setAttribute("aria-label", safe(text));
}
