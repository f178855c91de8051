"use strict";
// What was chosen last lives in the address, behind #: prefix=35_7, item=ID, item=ID&shelf=35_7 or tab=map; none is
// the table of all products. A tab leaves the shelf as it is, a shelf the tab; search and boxes are not in it.

const state = { prefix: -1, query: "", matches: null };
const byId = (id) => document.getElementById(id);

// What shelf, search and boxes leave, read once: it is asked of every product.
function keeper() {
  const [from, to] = state.prefix < 0 ? [0, store.numItems] : [store.prefixes.start[state.prefix], store.prefixes.end[state.prefix]];
  const found = state.matches && state.matches.found;
  const [onlyCold, onlyFlagged] = [byId("only-cold").checked, byId("only-flagged").checked];
  return (at) => at >= from && at < to && (!found || found[at] === 1) && (!onlyCold || store.cold[at] === 1) && (!onlyFlagged || store.flagsOf.has(at));
}

function refresh() {
  const kept = keeper();
  const positions = [];
  for (let at = 0; at < store.numItems; at++) if (kept(at)) positions.push(at);
  showRows(positions, state.matches ? state.matches.words : []);
  const all = positions.length === store.numItems;
  byId("count").textContent = counted(positions.length, "product") + (all ? "" : ` of ${grouped(store.numItems)}`);
  const { start, length } = store.prefixes;
  byId("chips").replaceChildren(...(state.prefix < 0 ? [] : [chip(`${codesOf(start[state.prefix], length[state.prefix])}  ${labelOf(state.prefix)}`)]));
  map.keep = all ? () => true : kept;
  if (!byId("map").hidden) drawMap();
}

function chip(text) {
  const button = make("button", { type: "button", "aria-label": "Leave this shelf" }, "\u00d7");
  button.addEventListener("click", () => { location.hash = ""; });
  return make("span", { class: "chip" }, text, button);
}

function seek(query) {
  state.query = query;
  state.matches = query.trim() ? search(query) : null;
  showMatches(state.matches);
  refresh();
}

function choosePrefix(prefix) {
  state.prefix = prefix;
  reveal(prefix);
  refresh();
  if (prefix >= 0) aboutPrefix(prefix); else aboutStart();
}

function chooseItem(at) {
  map.chosen = at;
  aboutItem(at);
  drawRows();
  if (!byId("map").hidden) drawMap();
}

function showTab(name) {
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const own = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(own));
    tab.tabIndex = own ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !own;
  }
  if (name === "map") drawMap();
  if (name === "products") drawRows();
}

// The address may have been typed: what cannot be read says nothing.
function address() {
  const [, first, shelf] = location.hash.slice(1).match(/^(.*?)(?:&shelf=([\d_]+))?$/s);
  try {
    const [kind, value] = decodeURIComponent(first).split(/=(.*)/s);
    return { kind, value, shelf };
  } catch { return { kind: "?" }; }
}

function follow() {
  const { kind, value, shelf } = address();
  if (kind === "item" && store.position.has(value)) {
    const prefix = store.byCodes.has(shelf) ? store.byCodes.get(shelf) : -1;
    if (prefix !== state.prefix) choosePrefix(prefix);
    chooseItem(store.position.get(value));
  } else if (kind === "prefix" && store.byCodes.has(value)) choosePrefix(store.byCodes.get(value));
  else if (kind === "tab" && byId(`tab-${value}`)) showTab(value);
  else if (!kind) { showTab("products"); choosePrefix(-1); }
}

// A product picked on a shelf keeps it; links to products elsewhere name none.
function goItem(at) {
  const { start, end, length } = store.prefixes;
  const one = state.prefix;
  const shelf = one >= 0 && at >= start[one] && at < end[one] ? `&shelf=${codesOf(start[one], length[one])}` : "";
  go(`#item=${encodeURIComponent(store.items.id[at])}${shelf}`);
}

function go(hash) {
  if (location.hash === hash) follow(); else location.hash = hash;
}

function keys(event) {
  const typing = event.target.matches("input:not([type=checkbox]):not([type=radio])");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    byId("search").focus();
    byId("search").select();
  } else if (event.key === "Escape") {
    byId("search").value = "";
    seek("");
    if (state.prefix >= 0) go("");
  } else if (typing && event.key === "ArrowDown") {
    event.preventDefault();
    byId("table").focus();
  }
}

function startTabs() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  for (const [number, tab] of tabs.entries()) {
    tab.addEventListener("click", () => go(`#tab=${tab.id.slice(4)}`));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(number + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  }
}

async function start() {
  await openStore();
  startTabs();
  startTree(byId("tree"), (one) => (one.item === undefined
    ? go(`#prefix=${codesOf(store.prefixes.start[one.prefix], store.prefixes.length[one.prefix])}`) : goItem(one.item)));
  startTable(byId("table"), goItem);
  startMap(byId("canvas"), byId("tip"), goItem);
  byId("tree-count").textContent = `${grouped(branches(-1).length)} first codes`;
  byId("only-cold-label").hidden = !store.items.cold.length;
  byId("only-flagged-label").hidden = !store.flagsOf.size;
  byId("search").addEventListener("input", (event) => seek(event.target.value));
  for (const id of ["only-cold", "only-flagged"]) byId(id).addEventListener("change", refresh);
  document.addEventListener("keydown", keys);
  addEventListener("hashchange", follow);
  showTab("products");
  choosePrefix(-1);
  follow();
  document.body.dataset.ready = "true";
}

start();
