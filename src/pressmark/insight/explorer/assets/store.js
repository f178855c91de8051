"use strict";
// What the page knows. A product is a position in order of SID; a prefix is a range of positions.

const store = {};

async function unpack(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function openStore() {
  const holder = document.getElementById("data");
  Object.assign(store, await unpack(holder.textContent.trim()));
  holder.textContent = "";
  store.numItems = store.items.id.length;
  store.position = new Map(store.items.id.map((id, at) => [id, at]));
  store.cold = new Uint8Array(store.numItems);
  for (const at of store.items.cold) store.cold[at] = 1;
  linkPrefixes();
  readFlags();
  store.sought = [];
  prepareSearch();
}

// What a search looks in is made while nothing else goes on, some thousands of products at a time.
function prepareSearch() {
  if (store.sought.length === store.numItems) return;
  readSought(Math.min(store.numItems, store.sought.length + 4000));
  setTimeout(prepareSearch);
}

function readSought(until) {
  for (let at = store.sought.length; at < until; at++) store.sought.push(soughtIn(at));
}

// First child and next sibling of each prefix: they come as a walk down the tree meets them.
function linkPrefixes() {
  const { length, start } = store.prefixes;
  const count = length.length;
  store.parent = new Int32Array(count).fill(-1);
  store.children = new Map([[-1, []]]);
  const open = [];
  for (let one = 0; one < count; one++) {
    while (open.length && length[open[open.length - 1]] >= length[one]) open.pop();
    const parent = open.length ? open[open.length - 1] : -1;
    store.parent[one] = parent;
    if (!store.children.has(parent)) store.children.set(parent, []);
    store.children.get(parent).push(one);
    open.push(one);
  }
  store.byCodes = new Map();
  for (let one = 0; one < count; one++) store.byCodes.set(codesOf(start[one], length[one]), one);
}

function readFlags() {
  store.flagsOf = new Map();
  store.flags.item.forEach((at, number) => {
    if (!store.flagsOf.has(at)) store.flagsOf.set(at, []);
    store.flagsOf.get(at).push(number);
  });
}

// The first codes of a product's SID, as "35_7".
function codesOf(at, length) {
  const from = at * store.num_levels;
  return store.items.sid.slice(from, from + length).join("_");
}

const sidOf = (at) => codesOf(at, store.num_levels);
const titleOf = (at) => store.items.title[at] || "(no title)";
const brandOf = (at) => store.items.brands[store.items.brand[at]];
const sizeOf = (prefix) => store.prefixes.end[prefix] - store.prefixes.start[prefix];

function pathOf(at) {
  const node = store.items.category[at];
  return node < 0 ? [] : store.categories.path[node];
}

function colourOf(at) {
  const node = store.items.category[at];
  const number = node < 0 ? -1 : store.categories.colour[node];
  return store.categories.colours[number] || "var(--soft)";
}

function termsOf(prefix) {
  return store.prefixes.terms[prefix].split("|").filter(Boolean);
}

// A prefix in words: its terms, else its commonest category, else a title.
function labelOf(prefix) {
  const terms = termsOf(prefix);
  if (terms.length) return terms.join(", ");
  const [most] = mixOf(store.prefixes.start[prefix], store.prefixes.end[prefix]);
  return most ? most.path[most.path.length - 1] : titleOf(store.prefixes.start[prefix]);
}

// The prefix of so many of a product's codes; -1 where it has them alone.
function prefixOf(at, length) {
  const found = store.byCodes.get(codesOf(at, length));
  return found === undefined ? -1 : found;
}

// Categories of a range of products with their shares, the commonest first.
function mixOf(start, end) {
  const counts = new Map();
  let total = 0;
  for (let at = start; at < end; at++) {
    const node = store.items.category[at];
    if (node >= 0) { counts.set(node, (counts.get(node) || 0) + 1); total++; }
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([node, count]) => ({
    path: store.categories.path[node],
    share: count / total,
    colour: store.categories.colours[store.categories.colour[node]] || "var(--soft)",
  }));
}

// Letters as a search compares them: in lower case, without accents.
function plain(text) {
  const low = text.toLowerCase();
  return /^[\x00-\x7f]*$/.test(low) ? low : low.normalize("NFKD").replace(/\p{M}/gu, "");
}

function soughtIn(at) {
  const text = [store.items.title[at], brandOf(at), store.items.id[at], sidOf(at), pathOf(at).join(" ")];
  return plain(text.join("\n"));
}

// Positions with every word of a query, as marks and as a running count.
function search(query) {
  readSought(store.numItems);
  const words = plain(query).split(/\s+/).filter(Boolean);
  const found = new Uint8Array(store.numItems);
  const upTo = new Uint32Array(store.numItems + 1);
  for (let at = 0; at < store.numItems; at++) {
    const text = store.sought[at];
    found[at] = words.every((word) => text.includes(word)) ? 1 : 0;
    upTo[at + 1] = upTo[at] + found[at];
  }
  return { words, found, upTo };
}
