"use strict";
// The table of products: only the rows in view are in the page.

const ROW = 44;
const SPARE = 8;
const table = { element: null, rows: null, shown: [], active: 0, sort: { column: "sid", down: false }, words: [], onPick: null };

const COLUMNS = {
  title: { name: "Product", key: (at) => titleOf(at) },
  sid: { name: "SID", key: null },
  category: { name: "Category", key: (at) => pathOf(at).join(" > ") },
  near: { name: "Nearest substitute", key: (at) => nearestTitle(at) },
  flags: { name: "Flags", key: (at) => flagKey(at) },
};

function nearestTitle(at) {
  const near = store.items.substitutes[at * store.items.num_relatives];
  return near < 0 ? "" : titleOf(near);
}

// Flagged products first, the surest first.
function flagKey(at) {
  const own = store.flagsOf.get(at);
  return own ? `0${(1 - Math.max(...own.map((one) => store.flags.confidence[one]))).toFixed(4)}` : "1";
}

function startTable(element, onPick) {
  Object.assign(table, { element, onPick });
  element.classList.toggle("plain", store.flagsOf.size === 0);
  element.append(head(), make("div", { id: "rows", role: "rowgroup" }));
  table.rows = element.querySelector("#rows");
  element.addEventListener("scroll", drawRows, { passive: true });
  element.addEventListener("keydown", keyTable);
  table.rows.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row && !event.target.closest("a")) choose(Number(row.dataset.at));
  });
  new ResizeObserver(drawRows).observe(element);
}

function head() {
  const row = make("div", { class: "head", role: "row", "aria-rowindex": 1 });
  for (const [column, { name }] of Object.entries(COLUMNS)) {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => sortBy(column));
    row.append(make("div", { role: "columnheader", class: column, "data-column": column, "aria-sort": column === "sid" ? "ascending" : "none" }, button));
  }
  return row;
}

function sortBy(column) {
  table.sort = { column, down: table.sort.column === column && !table.sort.down };
  table.element.querySelectorAll("[data-column]").forEach((one) => {
    one.setAttribute("aria-sort", one.dataset.column !== column ? "none" : table.sort.down ? "descending" : "ascending");
  });
  showRows(table.shown, table.words);
}

const collator = new Intl.Collator(undefined, { numeric: true });

function sorted(positions) {
  const { column, down } = table.sort;
  const key = COLUMNS[column].key;
  const ordered = positions.slice().sort((a, b) => a - b);
  if (key) {
    const keys = new Map(ordered.map((at) => [at, key(at)]));
    ordered.sort((a, b) => collator.compare(keys.get(a), keys.get(b)) || a - b);
  }
  return down ? ordered.reverse() : ordered;
}

function showRows(positions, words) {
  table.shown = sorted(positions);
  table.words = words;
  table.active = 0;
  table.element.scrollTop = 0;
  table.element.setAttribute("aria-rowcount", positions.length + 1);
  table.rows.style.height = `${table.shown.length * ROW}px`;
  drawRows();
}

function drawRows() {
  const top = table.element.scrollTop;
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(table.shown.length, Math.ceil((top + table.element.clientHeight) / ROW) + SPARE);
  const rows = [];
  for (let place = first; place < last; place++) rows.push(rowOf(table.shown[place], place));
  if (!table.shown.length) rows.push(make("p", { class: "empty" }, "No product fits. Fewer words, or another shelf, may find some."));
  table.rows.replaceChildren(...rows);
  const active = table.shown.length ? `row-${table.active}` : null;
  if (active && document.getElementById(active)) table.element.setAttribute("aria-activedescendant", active);
  else table.element.removeAttribute("aria-activedescendant");
}

function rowOf(at, place) {
  const path = pathOf(at);
  const near = store.items.substitutes[at * store.items.num_relatives];
  const detail = [brandOf(at), store.items.id[at]].filter(Boolean).join(" \u00b7 ");
  const row = make("div", { class: `row${place === table.active ? " active" : ""}${at === map.chosen ? " chosen" : ""}`, role: "row", id: `row-${place}`, "data-at": place, "aria-rowindex": place + 2, "aria-selected": place === table.active },
    make("div", { class: "title", role: "gridcell" }, ...marked(titleOf(at), table.words), make("small", {}, ...marked(detail, table.words))),
    make("div", { class: "mono", role: "gridcell" }, ...marked(sidOf(at), table.words)),
    make("div", { role: "gridcell", title: path.join(" > ") }, path.length ? dot(at) : null, path.length ? path[path.length - 1] : "\u2013"),
    make("div", { class: "near", role: "gridcell" }, near < 0 ? "\u2013" : itemLink(near)),
    make("div", { class: "flags", role: "gridcell" }, ...(store.flagsOf.get(at) || []).map(flagBadge)));
  row.style.top = `${place * ROW}px`;
  row.querySelectorAll("a").forEach((link) => { link.tabIndex = -1; });
  return row;
}

function choose(place) {
  table.active = place;
  drawRows();
  table.onPick(table.shown[place]);
}

function keyTable(event) {
  if (event.target !== table.element || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Math.max(1, Math.floor(table.element.clientHeight / ROW) - 2);
  const last = table.shown.length - 1;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -last, End: last };
  if (event.key === "Enter" && last >= 0) choose(table.active);
  else if (event.key in steps && last >= 0) {
    table.active = Math.min(last, Math.max(0, table.active + steps[event.key]));
    const top = table.active * ROW;
    const { scrollTop, clientHeight } = table.element;
    if (top < scrollTop) table.element.scrollTop = top;
    else if (top + ROW + 34 > scrollTop + clientHeight) table.element.scrollTop = top + ROW + 34 - clientHeight;
    drawRows();
  } else return;
  event.preventDefault();
}
