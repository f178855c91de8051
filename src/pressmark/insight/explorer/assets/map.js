"use strict";
// The map: a sample of the products, near ones alike. What the search and the shelf leave out is faint.

const map = { canvas: null, tip: null, view: { x: 0, y: 0, zoom: 1 }, keep: () => true, chosen: -1, by: "category", onPick: null };

function onMap(at) {
  return store.map.item.includes(at);
}

function startMap(canvas, tip, onPick) {
  Object.assign(map, { canvas, tip, onPick });
  map.hues = codeHues();
  canvas.addEventListener("mousemove", hoverMap);
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => { const near = nearestDot(event); if (near >= 0) onPick(store.map.item[near]); });
  canvas.addEventListener("wheel", wheelMap, { passive: false });
  canvas.addEventListener("keydown", keyMap);
  document.querySelectorAll("input[name=colour]").forEach((one) => one.addEventListener("change", () => { map.by = one.value; drawMap(); }));
  new ResizeObserver(drawMap).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
  document.getElementById("map-count").textContent = store.map.item.length
    ? `${grouped(store.map.item.length)} of ${grouped(store.numItems)} products, near ones alike`
    : "Too few products have text for a map";
  document.getElementById("legend").replaceChildren(...store.categories.tops.slice(0, store.categories.colours.length).map((name, number) => {
    const mark = make("i", { class: "dot" });
    mark.style.background = store.categories.colours[number];
    return make("span", {}, mark, name);
  }));
}

// Every first code has the hue of the spot where its products lie.
function codeHues() {
  const places = new Map();
  store.map.item.forEach((at, dot) => {
    const code = store.items.sid[at * store.num_levels];
    if (!places.has(code)) places.set(code, { x: [], y: [] });
    places.get(code).x.push(store.map.x[dot] / store.map.units - 0.5);
    places.get(code).y.push(store.map.y[dot] / store.map.units - 0.5);
  });
  const middle = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
  const hues = new Map();
  for (const [code, { x, y }] of places) {
    const [mx, my] = [middle(x), middle(y)];
    hues.set(code, `hsl(${(Math.atan2(my, mx) * 180) / Math.PI} ${35 + 100 * Math.hypot(mx, my)}% 52%)`);
  }
  return hues;
}

function placeOf(dot, size) {
  const { view } = map;
  const scale = (Math.min(size.width, size.height) - 40) * view.zoom;
  return [
    size.width / 2 + (store.map.x[dot] / store.map.units - 0.5 - view.x) * scale,
    size.height / 2 + (store.map.y[dot] / store.map.units - 0.5 - view.y) * scale,
  ];
}

function drawMap() {
  const { canvas } = map;
  const size = canvas.getBoundingClientRect();
  if (!size.width) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = size.width * ratio;
  canvas.height = size.height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(document.body);
  const ink = style.getPropertyValue("--ink");
  const radius = Math.max(2, Math.min(5, 2.4 * Math.sqrt(map.view.zoom) + (store.map.item.length < 600 ? 1.5 : 0)));
  const kept = store.map.item.map((at) => map.keep(at));
  const all = kept.every(Boolean);
  for (const round of [false, true]) {
    store.map.item.forEach((at, dot) => {
      if (kept[dot] !== round) return;
      const [x, y] = placeOf(dot, size);
      pen.globalAlpha = round ? (all ? 0.75 : 0.95) : 0.12;
      pen.fillStyle = map.by === "code" ? map.hues.get(store.items.sid[at * store.num_levels]) : colourOf(at).replace("var(--soft)", style.getPropertyValue("--soft"));
      pen.beginPath();
      pen.arc(x, y, round && !all ? radius + 0.6 : radius, 0, 7);
      pen.fill();
    });
  }
  pen.globalAlpha = 1;
  nameShelves(pen, size, ink, style.getPropertyValue("--paper"));
  const dot = store.map.item.indexOf(map.chosen);
  if (dot >= 0) {
    const [x, y] = placeOf(dot, size);
    pen.strokeStyle = ink;
    pen.lineWidth = 2.5;
    pen.beginPath();
    pen.arc(x, y, radius + 5, 0, 7);
    pen.stroke();
  }
}

// The largest shelves by name, where there is room.
function nameShelves(pen, size, ink, paper) {
  const shelves = new Map();
  store.map.item.forEach((at, dot) => {
    const prefix = prefixOf(at, 1);
    if (prefix < 0 || !map.keep(at)) return;
    if (!shelves.has(prefix)) shelves.set(prefix, []);
    shelves.get(prefix).push(dot);
  });
  const taken = [];
  pen.font = "600 12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (const [prefix, dots] of [...shelves].sort((a, b) => b[1].length - a[1].length).slice(0, 60)) {
    const [xs, ys] = [0, 1].map((side) => dots.map((dot) => placeOf(dot, size)[side]).sort((a, b) => a - b));
    const [x, y] = [xs[xs.length >> 1], ys[ys.length >> 1]];
    const text = (termsOf(prefix)[0] || labelOf(prefix)).slice(0, 26);
    const half = pen.measureText(text).width / 2 + 8;
    const box = [x - half, y - 11, x + half, y + 11];
    const inside = box[0] > 0 && box[1] > 0 && box[2] < size.width && box[3] < size.height;
    if (!inside || taken.some((one) => box[0] < one[2] && box[2] > one[0] && box[1] < one[3] && box[3] > one[1])) continue;
    taken.push(box);
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    pen.strokeStyle = paper;
    pen.strokeText(text, x, y);
    pen.fillStyle = ink;
    pen.fillText(text, x, y);
  }
}

function nearestDot(event) {
  const size = map.canvas.getBoundingClientRect();
  const [mx, my] = [event.clientX - size.left, event.clientY - size.top];
  let best = -1;
  let least = 14;
  store.map.item.forEach((at, dot) => {
    const [x, y] = placeOf(dot, size);
    const far = Math.hypot(x - mx, y - my) + (map.keep(at) ? 0 : 5);
    if (far < least) [best, least] = [dot, far];
  });
  return best;
}

function hoverMap(event) {
  const dot = nearestDot(event);
  map.tip.hidden = dot < 0;
  if (dot < 0) return;
  const at = store.map.item[dot];
  map.tip.replaceChildren(titleOf(at), make("div", { class: "mono" }, sidOf(at)));
  const size = map.canvas.getBoundingClientRect();
  const [x, y] = placeOf(dot, size);
  map.tip.style.left = `${Math.min(x + 12, size.width - map.tip.offsetWidth - 8)}px`;
  map.tip.style.top = `${Math.min(y + 12, size.height - map.tip.offsetHeight - 8)}px`;
}

function zoomBy(factor, fromX = 0, fromY = 0) {
  const zoom = Math.min(40, Math.max(1, map.view.zoom * factor));
  map.view.x += fromX * (1 - map.view.zoom / zoom);
  map.view.y += fromY * (1 - map.view.zoom / zoom);
  map.view.zoom = zoom;
  if (zoom === 1) { map.view.x = 0; map.view.y = 0; }
  drawMap();
}

function wheelMap(event) {
  event.preventDefault();
  const size = map.canvas.getBoundingClientRect();
  const scale = (Math.min(size.width, size.height) - 40) * map.view.zoom;
  zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, (event.clientX - size.left - size.width / 2) / scale, (event.clientY - size.top - size.height / 2) / scale);
}

function keyMap(event) {
  const step = 0.08 / map.view.zoom;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in moves) { map.view.x += moves[event.key][0]; map.view.y += moves[event.key][1]; drawMap(); }
  else if (event.key === "+" || event.key === "=") zoomBy(1.3);
  else if (event.key === "-") zoomBy(1 / 1.3);
  else if (event.key === "0") zoomBy(0);
  else return;
  event.preventDefault();
}
