"use strict";
// Pieces of the page. Text goes in as text, never as markup: titles are whatever somebody typed.

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((one) => one !== null && one !== undefined && one !== ""));
  return element;
}

const itemLink = (at, text) => make("a", { href: `#item=${encodeURIComponent(store.items.id[at])}` }, text || titleOf(at));
const prefixLink = (codes, text, kind) => make("a", { href: `#prefix=${codes}`, class: kind }, text);
const percent = (share) => (share > 0 && share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`);
const grouping = new Intl.NumberFormat("en");
const grouped = (count) => grouping.format(count);
const counted = (count, word) => `${grouped(count)} ${word}${count === 1 ? "" : "s"}`;

// One segment a category in the colour of its top category; the rarer, the paler.
function mixBar(start, end) {
  const bar = make("span", { class: "mix", "aria-hidden": "true" });
  mixOf(start, end).slice(0, 8).forEach((one, place) => {
    const part = make("i");
    part.style.width = `${100 * one.share}%`;
    part.style.background = one.colour;
    part.style.opacity = 1 / (1 + 0.45 * place);
    bar.append(part);
  });
  return bar;
}

function dot(at) {
  const mark = make("i", { class: "dot", "aria-hidden": "true" });
  mark.style.background = colourOf(at);
  return mark;
}

// A text with the words of the search marked, where plain letters have the same places as the text's own.
function marked(text, words) {
  const low = plain(text);
  if (!words.length || low.length !== text.length) return [text];
  const hit = new Uint8Array(text.length);
  for (const word of words) {
    for (let at = low.indexOf(word); at >= 0; at = low.indexOf(word, at + word.length)) hit.fill(1, at, at + word.length);
  }
  const parts = [];
  for (let from = 0, to; from < text.length; from = to) {
    for (to = from + 1; to < text.length && hit[to] === hit[from]; to++);
    const part = text.slice(from, to);
    parts.push(hit[from] ? make("mark", {}, part) : part);
  }
  return parts;
}

const flagBadge = () => make("span", { class: "flag" }, "doubtful category");
