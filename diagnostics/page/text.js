// Texts and elements. All text is set as text: much of it comes from peers.

// safe returns text without characters that are not shown, as those that turn the direction of what follows. Line breaks stay.
export const safe = (text) => text.replace(/[^\P{C}\n]/gu, "\uFFFD");

// element returns an element with attributes and children.
export function element(name, attributes = {}, ...children) {
  const svg = ["svg", "line", "circle", "rect", "text", "g", "polyline", "title"].includes(name);
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) e.setAttribute(key, value === true ? "" : safe(String(value)));
  }
  e.append(...children.filter((c) => c !== undefined && c !== null && c !== "").map((c) => (typeof c === "string" ? safe(c) : c)));
  return e;
}

// setText sets the text of e, if it has another one: what is selected or read aloud stays.
export function setText(e, text) {
  text = safe(String(text));
  if (e.textContent !== text) e.textContent = text;
}

// reconcile makes the children of parent those of items, in order. It keeps the child of each key, with what is focused in it.
export function reconcile(parent, items, keyOf, create, update) {
  const old = new Map();
  for (const child of parent.children) old.set(child.dataset.key, child);
  let place = parent.firstElementChild;
  const used = new Set();
  for (const item of items) {
    const key = String(keyOf(item));
    if (used.has(key)) continue;
    used.add(key);
    let child = old.get(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const [key, child] of old) if (!used.has(key)) child.remove();
}

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(n) {
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

export const rate = (n) => `${bytes(n)}/s`;

export function duration(ms) {
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// since returns how long ago a time was, by the clock of the snapshot.
export const since = (time, taken) => duration(Math.max(0, Date.parse(taken) - Date.parse(time)));

// short returns the end of a Peer ID: they begin alike.
export const short = (peer) => (peer.length > 10 ? `…${peer.slice(-8)}` : peer);

// whyText returns a cause as one line.
export function whyText(why) {
  if (!why) return "";
  const by = { local: "this side", peer: "the peer", network: "the network" }[why.by] ?? why.by;
  return `${by}${why.code ? `, ${why.code}` : ""}: ${why.text}`;
}

// kind returns how a path is drawn: "direct", "relayed" or "detached".
export const kind = (path) => (!path ? "detached" : path.relayed ? "relayed" : "direct");

// spark returns a line of the last values, and sparkline changes it.
export function spark() {
  return element("svg", { class: "spark", viewBox: "0 0 60 16", preserveAspectRatio: "none", "aria-hidden": "true" }, element("polyline", { points: "" }));
}

export function sparkline(svg, values) {
  const most = Math.max(1, ...values);
  const points = values.map((v, i) => `${i + 60 - values.length},${(15 - (14 * v) / most).toFixed(1)}`);
  svg.firstElementChild.setAttribute("points", points.join(" "));
}
