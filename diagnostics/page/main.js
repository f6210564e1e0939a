// The page follows /events and draws each view that comes.
import { drawLists } from "./lists.js";
import { drawMap } from "./map.js";
import { drawSessions } from "./sessions.js";
import { bytes, duration, element, rate, reconcile, setText, short, spark, sparkline } from "./text.js";

const find = (id) => document.getElementById(id);
const perPage = 25;
const query = { q: "", order: "peer", first: 0 };
const flow = { at: 0, in: 0, out: 0, rates: [] }; // bytes of all sessions
let view, token = takeToken(), stream, paused = false, failures = 0;

// takeToken returns the token that the address has behind its #, which no server and no log is sent, and removes it from there.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("token");
}

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

// follow reads events until they end, and begins again.
async function follow() {
  stream?.abort();
  const mine = (stream = new AbortController());
  while (!mine.signal.aborted) {
    try {
      await read(mine.signal);
    } catch (error) {
      if (mine.signal.aborted) return;
      setStatus("lost", `no answer: ${error.message}; trying again`);
    }
    failures++;
    await new Promise((done) => setTimeout(done, Math.min(10_000, 500 * 2 ** Math.min(failures, 5))));
  }
}

async function read(signal) {
  const asked = new URLSearchParams({ ...query, count: perPage });
  const answer = await fetch(`events?${asked}`, { headers: headers(), signal, cache: "no-store" });
  if (answer.status === 401) {
    find("login").hidden = false;
    find("view").hidden = true;
    stream.abort();
    setStatus("lost", "a token is needed");
    return;
  }
  if (!answer.ok) throw new Error((await answer.text()).trim());
  find("login").hidden = true;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the connection ended");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    const last = events.at(-1); // the page may have slept
    if (last?.startsWith("data: ")) {
      failures = 0;
      take(JSON.parse(last.slice(6)));
    }
  }
}

// take makes v what the page shows.
function take(v) {
  const now = Date.parse(v.summary.taken);
  if (flow.at && now > flow.at) {
    const per = 1000 / (now - flow.at);
    const rates = { in: Math.max(0, v.summary.bytes_in - flow.in) * per, out: Math.max(0, v.summary.bytes_out - flow.out) * per };
    flow.rates = [...flow.rates.slice(-59), rates];
  }
  Object.assign(flow, { at: now, in: v.summary.bytes_in, out: v.summary.bytes_out });
  if (paused) return;
  view = v;
  setStatus("live", "live");
  draw();
}

function draw() {
  find("view").hidden = false;
  setText(find("host"), (view.hosts ?? []).join(" "));
  drawSummary(view.summary);
  drawWarnings(view.summary.warnings ?? [], view.more_warnings ?? 0);
  drawMap(find("map"), view, choose);
  setText(find("more-peers"), view.more_peers ? `and ${view.more_peers} more peers` : "");
  document.body.classList.toggle("explains", view.explains);
  drawSessions(document.querySelector("#sessions tbody"), view, explain);
  drawLists(view, explain);
  const last = view.first + (view.sessions?.length ?? 0);
  setText(find("place"), view.matching ? `${view.first + 1} to ${last} of ${view.matching}` : "none");
  find("previous").disabled = view.first === 0;
  find("next").disabled = last >= view.matching;
}

function drawSummary(s) {
  const totals = s.totals ?? { requests_in: 0, requests_out: 0, resumes: 0 }; // left out while all are 0
  const now = flow.rates.at(-1) ?? { in: 0, out: 0 };
  const tiles = [["Sessions", s.sessions], ["Without a path", s.detached], ["Running calls", s.in_flight], ["Calls so far", totals.requests_in + totals.requests_out], ["Resumed", totals.resumes], ["Streams", s.streams],
    ["Transfers", s.transfers], ["In", rate(now.in), flow.rates.map((r) => r.in)], ["Out", rate(now.out), flow.rates.map((r) => r.out)],
    ["Goroutines", s.goroutines], ["Heap", bytes(s.heap)], ["Up for", duration(s.uptime_ms)], ["Version", s.module]];
  reconcile(find("summary"), tiles, (t) => t[0], (t) => element("div", {}, element("dt", {}, t[0]), element("dd", {}, element("span"), t[2] ? spark() : "")),
    (div, t) => {
      setText(div.lastElementChild.firstElementChild, String(t[1]));
      if (t[2]) sparkline(div.lastElementChild.lastElementChild, t[2]);
    });
}

function drawWarnings(limits, more) {
  find("warnings").hidden = limits.length === 0;
  const texts = limits.slice(0, 5).map((l) => `The limit "${l.name}"${l.tag ? ` of ${l.tag}` : ""}${l.peer ? ` at ${short(l.peer)}` : ""} is nearly used up: ${l.used} of ${l.max}.`);
  if (limits.length > 5) texts.push(`And ${limits.length - 5 + more} more.`);
  setText(find("warnings"), texts.join(" "));
}

function setStatus(state, text) {
  find("status").className = state;
  setText(find("status"), paused ? "paused" : text);
}

function choose(peer) {
  find("search").value = query.q === peer ? "" : peer;
  search();
}

function search() {
  Object.assign(query, { q: find("search").value.trim(), first: 0 });
  follow();
}

function turn(by) {
  if (!view || (by < 0 ? find("previous") : find("next")).disabled) return;
  query.first = Math.max(0, view.first + by * perPage);
  follow();
}

// explain shows why a peer can or cannot be reached.
async function explain(peer, tag) {
  const dialog = find("explain"), text = dialog.querySelector("pre");
  setText(text, "asking …");
  if (!dialog.open) dialog.showModal();
  try {
    const answer = await fetch("explain", { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify({ peer, tag }) });
    setText(text, (await answer.text()).trim());
  } catch (error) {
    setText(text, `no answer: ${error.message}`);
  }
}

let typing;
find("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 250);
});
find("order").addEventListener("change", () => {
  Object.assign(query, { order: find("order").value, first: 0 });
  follow();
});
find("previous").addEventListener("click", () => turn(-1));
find("next").addEventListener("click", () => turn(1));
find("login").addEventListener("submit", (e) => {
  e.preventDefault();
  token = find("token").value.trim();
  sessionStorage.setItem("token", token);
  follow();
});
addEventListener("hashchange", () => { // the address of a process that was started anew differs in its token alone
  if (!location.hash.includes("token=")) return;
  token = takeToken();
  follow();
});
document.addEventListener("redraw", () => view && draw());
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || find("explain").open || ["INPUT", "SELECT"].includes(e.target.tagName)) {
    if (e.key === "Escape" && e.target === find("search")) e.target.blur();
    return;
  }
  if (e.key === "/") {
    e.preventDefault();
    find("search").focus();
  } else if (e.key === "n") turn(1);
  else if (e.key === "p") turn(-1);
  else if (e.key === " " && e.target === document.body) {
    e.preventDefault();
    paused = !paused;
    setStatus("live", "live");
  }
});
follow();
