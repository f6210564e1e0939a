// The map: this node in the middle, its peers around it, and the relays between.
import { duration, element, short } from "./text.js";

const width = 900, height = 440, middle = { x: width / 2, y: height / 2 };

let drawn; // what the map shows

// drawMap draws the peers of a view into parent. choose is called with a peer that is chosen.
export function drawMap(parent, view, choose) {
  const now = JSON.stringify((view.peers ?? []).map((p) => [p.peer, p.direct, p.relay, p.path, p.rtt_ms, p.sessions]));
  if (now === drawn) return;
  drawn = now;
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.peer : undefined;
  const peers = view.peers ?? [];
  const relays = new Map(); // to the angles of their peers
  const places = peers.map((p, i) => {
    const angle = (2 * Math.PI * i) / Math.max(1, peers.length) - Math.PI / 2;
    if (p.relay && !p.direct) relays.set(p.relay, [...(relays.get(p.relay) ?? []), angle]);
    return { p, ...at(angle, peers.length > 24 && i % 2 ? 0.72 : 1) };
  });
  const relayPlaces = new Map([...relays].map(([relay, angles]) => [relay, at(mean(angles), 0.45)]));
  const lines = [], nodes = [];
  for (const place of places) {
    const { p } = place;
    const state = p.direct ? "direct" : p.relay ? "relayed" : "detached";
    const via = p.direct ? undefined : relayPlaces.get(p.relay);
    if (via) lines.push(line(via, place, state));
    else lines.push(line(middle, place, state));
    if (p.rtt_ms && peers.length <= 24) {
      const from = via ?? middle;
      nodes.push(element("text", { class: "rtt", x: (from.x + place.x) / 2, y: (from.y + place.y) / 2 }, duration(p.rtt_ms)));
    }
    nodes.push(peerNode(place, state, peers.length <= 24, choose));
  }
  for (const [relay, place] of relayPlaces) {
    lines.push(line(middle, place, "relayed"));
    nodes.push(element("g", {}, element("title", {}, `relay ${relay}`),
      element("rect", { x: place.x - 8, y: place.y - 8, width: 16, height: 16, rx: 3 }),
      element("text", { x: place.x, y: place.y + (place.y < middle.y ? -14 : 22) }, `relay ${short(relay)}`)));
  }
  nodes.push(element("g", {}, element("circle", { class: "self", cx: middle.x, cy: middle.y, r: 13 }),
    element("text", { x: middle.x, y: middle.y + 28 }, "this node")));
  parent.replaceChildren(element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `this node and ${peers.length} peers` }, ...lines, ...nodes));
  if (focused) [...parent.querySelectorAll("g[data-peer]")].find((g) => g.dataset.peer === focused)?.focus();
}

function at(angle, out) {
  return { x: middle.x + Math.cos(angle) * (width / 2 - 70) * out, y: middle.y + Math.sin(angle) * (height / 2 - 45) * out };
}

// mean returns the mean direction of angles.
function mean(angles) {
  return Math.atan2(angles.reduce((sum, a) => sum + Math.sin(a), 0), angles.reduce((sum, a) => sum + Math.cos(a), 0));
}

const line = (a, b, state) => element("line", { class: state, x1: a.x, y1: a.y, x2: b.x, y2: b.y });

// peerNode returns a peer, which can be chosen.
function peerNode(place, state, labelled, choose) {
  const { p } = place;
  const path = p.path ?? "looking for a path";
  const label = `peer ${p.peer}, ${path}${p.rtt_ms ? `, ${duration(p.rtt_ms)}` : ""}, ${p.sessions} ${p.sessions === 1 ? "session" : "sessions"}`;
  return element("g", { role: "button", tabindex: 0, "aria-label": label, "data-peer": p.peer, onclick: () => choose(p.peer),
    onkeydown: (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); e.stopPropagation(); choose(p.peer); } } },
    element("title", {}, label),
    element("circle", { class: state, cx: place.x, cy: place.y, r: 8 }),
    labelled ? element("text", { x: place.x, y: place.y + (place.y < middle.y ? -13 : 23) }, short(p.peer)) : undefined);
}
