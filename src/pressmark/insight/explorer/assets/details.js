"use strict";
// The panel on the right: one product, one prefix, or how to begin.

function showDetails(...children) {
  const panel = document.getElementById("details");
  panel.replaceChildren(...children.filter(Boolean));
  panel.scrollTop = 0;
}

const section = (title, ...children) => make("section", {}, make("h2", {}, title), ...children);

function aboutStart() {
  const keys = [["/", "search"], ["\u2191 \u2193", "move in the tree or the table"], ["\u2192 \u2190", "open and close a shelf"], ["Enter", "choose"], ["Esc", "clear"]];
  showDetails(
    make("h3", {}, "Every product has a code that puts it among its like"),
    make("p", { class: "sub" }, `A Semantic ID has ${counted(store.num_levels, "number")}, coarse to fine. Products that share the first share a shelf; those that share ${store.deep} or more can stand in for each other. Choose a shelf on the left, or a product.`),
    section("Keys", make("ul", { class: "bars" }, ...keys.map(([key, does]) => make("li", {}, make("span", {}, does), make("span", { class: "mono" }, key))))),
    section("Largest categories", mixList(0, store.numItems, 10)));
}

function aboutPrefix(prefix) {
  const { start, end, length, examples } = store.prefixes;
  const codes = codesOf(start[prefix], length[prefix]);
  const below = branches(prefix).filter((one) => one.prefix !== undefined);
  const cold = store.items.cold.filter((at) => at >= start[prefix] && at < end[prefix]).length;
  const flagged = store.flags.item.filter((at) => at >= start[prefix] && at < end[prefix]).length;
  const facts = [counted(sizeOf(prefix), "product"), cold ? `${cold} new` : "", flagged ? `${counted(flagged, "flag")}` : ""];
  showDetails(
    make("h3", {}, labelOf(prefix)),
    make("p", { class: "sub" }, make("span", { class: "mono" }, codes), ` \u00b7 ${facts.filter(Boolean).join(" \u00b7 ")}`),
    length[prefix] > 1 ? section("Where it stands", pathList(start[prefix], length[prefix] - 1)) : null,
    section("Categories", mixList(start[prefix], end[prefix], 6)),
    section("For example", make("ul", { class: "list" }, ...examples[prefix].map((at) => make("li", {}, itemLink(at), make("small", {}, pathOf(at).join(" > ")))))),
    below.length ? section("Goes on with", make("ul", { class: "path" }, ...below.slice(0, 12).map((one) => pathRow(one.prefix)))) : null);
}

function aboutItem(at) {
  const near = (name) => {
    const from = at * store.items.num_relatives;
    return store.items[name].slice(from, from + store.items.num_relatives).filter((one) => one >= 0);
  };
  const detail = [brandOf(at), store.items.id[at]].filter(Boolean).join(" \u00b7 ");
  showDetails(
    make("h3", {}, titleOf(at)),
    make("p", { class: "sub" }, detail),
    make("p", { class: "sub" }, dot(at), pathOf(at).join(" > ") || "no category"),
    store.cold[at] ? make("p", { class: "sub" }, make("span", { class: "flag new" }, "new"), " nobody has bought it in training") : null,
    ...(store.flagsOf.get(at) || []).map(flagNote),
    section("Why it stands here", pathList(at, store.num_levels)),
    section(`Substitutes: ${store.deep} or more codes in common`, relativeList(at, near("substitutes"))),
    section("Cousins in other categories", relativeList(at, near("cousins"))),
    onMap(at) ? make("p", { class: "sub" }, make("a", { href: "#tab=map" }, "Show it on the map")) : null);
}

function flagNote(number) {
  const { suggested, confidence, severity } = store.flags;
  return make("div", { class: "note" }, make("b", {}, "doubtful category"),
    suggested[number] ? make("div", {}, `Belongs in ${suggested[number]}`) : null,
    make("small", { class: "soft" }, `severity ${severity[number].toFixed(2)}, confidence ${percent(confidence[number])}`));
}

// A product's codes one below the other, each with what its prefix stands for.
function pathList(at, length) {
  const list = make("ul", { class: "path" });
  for (let level = 1; level <= length; level++) {
    const prefix = prefixOf(at, level);
    if (prefix >= 0) list.append(pathRow(prefix));
    else {
      const rest = sidOf(at).split("_").slice(level - 1).join(" \u00b7 ");
      list.append(make("li", {}, make("span", { class: "code mono" }, rest.split(" ")[0]), make("span", { class: "soft" }, "this product alone"), make("span", { class: "num" }, "1")));
      break;
    }
  }
  return list;
}

function pathRow(prefix) {
  const { start, length } = store.prefixes;
  const codes = codesOf(start[prefix], length[prefix]);
  return make("li", {}, prefixLink(codes, codes.split("_").pop(), "code mono"),
    prefixLink(codes, labelOf(prefix)), make("span", { class: "num" }, grouped(sizeOf(prefix))));
}

function relativeList(at, others) {
  if (!others.length) return make("p", { class: "soft" }, "None.");
  return make("ul", { class: "list" }, ...others.map((other) => {
    const shared = sharedCodes(at, other);
    return make("li", {}, itemLink(other), make("small", {}, `${counted(shared, "code")} in common \u00b7 ${pathOf(other).join(" > ") || "no category"}`));
  }));
}

function sharedCodes(a, b) {
  const { num_levels: levels, items: { sid } } = store;
  let shared = 0;
  while (shared < levels && sid[a * levels + shared] === sid[b * levels + shared]) shared++;
  return shared;
}

function mixList(start, end, most) {
  const mix = mixOf(start, end);
  if (!mix.length) return make("p", { class: "soft" }, "No product here has a category.");
  const list = make("ul", { class: "bars" }, ...mix.slice(0, most).map((one) => {
    const fill = make("i");
    fill.style.width = `${100 * one.share}%`;
    fill.style.background = one.colour;
    return make("li", {}, make("span", { title: one.path.join(" > ") }, one.path.slice(-2).join(" > ")), make("span", {}, percent(one.share)), make("span", { class: "track" }, fill));
  }));
  if (mix.length > most) list.append(make("li", {}, make("span", { class: "soft" }, `${mix.length - most} more`)));
  return list;
}
