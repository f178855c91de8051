"use strict";
// The tree of prefixes: children are made when a prefix is opened, two hundred at a time.

const CHUNK = 200;
const tree = { element: null, onPick: null, matches: null };

// What goes on from a prefix: longer prefixes of several products, and products alone, the largest first.
function branches(prefix) {
  const found = (store.children.get(prefix) || []).map((one) => ({ prefix: one, size: sizeOf(one) }));
  found.sort((a, b) => b.size - a.size || store.prefixes.start[a.prefix] - store.prefixes.start[b.prefix]);
  const [start, end] = prefix < 0 ? [0, store.numItems] : [store.prefixes.start[prefix], store.prefixes.end[prefix]];
  let at = start;
  const alone = [];
  for (const one of store.children.get(prefix) || []) {
    for (; at < store.prefixes.start[one]; at++) alone.push({ item: at });
    at = store.prefixes.end[one];
  }
  for (; at < end; at++) alone.push({ item: at });
  return found.concat(alone);
}

function startTree(element, onPick) {
  tree.element = element;
  tree.onPick = onPick;
  fill(element, branches(-1), 0, 1);
  const first = element.querySelector("li");
  if (first) first.tabIndex = 0;
  element.addEventListener("click", clickTree);
  element.addEventListener("keydown", keyTree);
}

function fill(list, all, from, level) {
  const shown = all.slice(from, from + CHUNK);
  shown.forEach((one, number) => list.append(twig(one, level, from + number + 1, all.length)));
  const left = all.length - from - shown.length;
  if (left > 0) {
    const more = make("li", { role: "treeitem", "aria-level": level, tabindex: -1 },
      make("div", { class: "node more" }, make("span"), make("span", { class: "name" }, `${grouped(left)} more`)));
    more.open = () => {
      const [held, before] = [more.contains(document.activeElement), more.previousElementSibling];
      more.remove();
      fill(list, all, from + CHUNK, level);
      let next = before.nextElementSibling;
      while (next && next.classList.contains("none")) next = next.nextElementSibling;
      if (more.tabIndex === 0) focusOn(next || before, held);
    };
    list.append(more);
  }
}

function twig(one, level, place, size) {
  const attributes = { role: "treeitem", "aria-level": level, "aria-posinset": place, "aria-setsize": size, tabindex: -1, "aria-selected": "false" };
  if (one.prefix === undefined) {
    const rest = sidOf(one.item).split("_").slice(level - 1).join("_");
    const item = make("li", { ...attributes, "data-item": one.item }, make("div", { class: "node product" },
      make("span"), make("span", { class: "name" }, make("span", { class: "mono" }, rest), titleOf(one.item))));
    tally(item);
    return item;
  }
  const { start, end, length } = store.prefixes;
  const prefix = one.prefix;
  const code = store.items.sid[start[prefix] * store.num_levels + length[prefix] - 1];
  const [most] = mixOf(start[prefix], end[prefix]);
  const mix = most ? `${most.path[most.path.length - 1]} ${percent(most.share)}` : "no category";
  const item = make("li", { ...attributes, "data-prefix": prefix, "aria-expanded": "false" },
    make("div", { class: "node" },
      make("span", { class: "twist", "aria-hidden": "true" }, "\u203a"),
      make("span", { class: "name" }, make("span", { class: "mono" }, String(code)), labelOf(prefix)),
      make("span", { class: "num" }),
      make("div", { class: "under" }, mixBar(start[prefix], end[prefix]), make("span", {}, mix))));
  tally(item);
  return item;
}

// How many of a prefix's products the search finds, before the count; where it finds none it is hidden.
function tally(item) {
  const matches = tree.matches;
  if (item.dataset.item !== undefined) {
    item.classList.toggle("none", Boolean(matches) && !matches.found[item.dataset.item]);
  } else if (item.dataset.prefix !== undefined) {
    const prefix = Number(item.dataset.prefix);
    const found = matches ? matches.upTo[store.prefixes.end[prefix]] - matches.upTo[store.prefixes.start[prefix]] : -1;
    item.classList.toggle("none", found === 0);
    const size = grouped(sizeOf(prefix));
    item.querySelector(":scope > .node > .num").textContent = found < 0 ? size : `${grouped(found)} of ${size}`;
  }
}

function showMatches(matches) {
  tree.matches = matches;
  tree.element.querySelectorAll("li").forEach(tally);
  // Who comes by Tab must find the tree, though what had its place is hidden now.
  const seen = visible();
  if (seen.length && !seen.some((one) => one.tabIndex === 0)) focusOn(seen[0], false);
}

function visible() {
  return [...tree.element.querySelectorAll("li")].filter((one) => !one.closest("ul[hidden], li.none"));
}

function setOpen(item, open) {
  if (!item.hasAttribute("aria-expanded")) return;
  item.setAttribute("aria-expanded", String(open));
  let group = item.querySelector(":scope > ul");
  if (open && !group) {
    group = make("ul", { role: "group" });
    fill(group, branches(Number(item.dataset.prefix)), 0, Number(item.getAttribute("aria-level")) + 1);
    item.append(group);
  }
  if (group) group.hidden = !open;
}

function pick(item) {
  if (item.open) item.open();
  else tree.onPick(item.dataset.prefix === undefined
    ? { item: Number(item.dataset.item) } : { prefix: Number(item.dataset.prefix) });
}

function clickTree(event) {
  const item = event.target.closest("li");
  if (!item) return;
  focusOn(item, false);
  if (event.target.closest(".twist")) setOpen(item, item.getAttribute("aria-expanded") !== "true");
  else { if (item.dataset.prefix !== undefined) setOpen(item, true); pick(item); }
}

function focusOn(item, really = true) {
  tree.element.querySelectorAll('li[tabindex="0"]').forEach((one) => { one.tabIndex = -1; });
  item.tabIndex = 0;
  if (really) item.focus();
}

function keyTree(event) {
  const item = event.target.closest("li");
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const seen = visible();
  const at = seen.indexOf(item);
  const open = item.getAttribute("aria-expanded");
  const steps = {
    ArrowDown: () => seen[at + 1],
    ArrowUp: () => seen[at - 1],
    Home: () => seen[0],
    End: () => seen[seen.length - 1],
    ArrowRight: () => (open === "false" ? setOpen(item, true) : open === "true" ? item.querySelector("ul > li") : null),
    ArrowLeft: () => (open === "true" ? setOpen(item, false) : item.parentElement.closest("li")),
    Enter: () => pick(item),
    " ": () => pick(item),
  };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = steps[event.key]();
  if (next) focusOn(next);
}

// Opens the way to a prefix and marks it.
function reveal(prefix) {
  tree.element.querySelectorAll('li[aria-selected="true"]').forEach((one) => one.setAttribute("aria-selected", "false"));
  if (prefix < 0) return;
  const way = [];
  for (let one = prefix; one >= 0; one = store.parent[one]) way.unshift(one);
  let list = tree.element;
  let item = null;
  for (const one of way) {
    if (item) { setOpen(item, true); list = item.querySelector(":scope > ul"); }
    item = findTwig(list, one);
  }
  item.setAttribute("aria-selected", "true");
  focusOn(item, false);
  item.querySelector(".node").scrollIntoView({ block: "nearest" });
}

function findTwig(list, prefix) {
  for (;;) {
    const found = list.querySelector(`:scope > li[data-prefix="${prefix}"]`);
    if (found) return found;
    list.lastElementChild.open();
  }
}
