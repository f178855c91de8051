"""The tree of prefixes as a picture: what the largest prefixes of one, two and three codes stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.drawing import INK, OTHER, QUIET
from pressmark.insight.style import plain, top_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How many of the largest prefixes of each length are drawn below one prefix of the length before.
WIDTHS = (8, 3, 2)
ROW = 0.215  # inches


@dataclass(frozen=True)
class Prefix:
    """One prefix with what is drawn below it.

    Attributes:
        codes: l codes, coarse to fine.
        num_items: Items that have it.
        name: Its commonest category at the depth that fits its length, or an item's title without categories.
        share: Share of its items in that category; None without categories.
        top: Node of its commonest top category, -1 without.
        children: The largest prefixes that go on from it.
        num_children: How many there are in all.
    """

    codes: tuple[int, ...]
    num_items: int
    name: str
    share: float | None
    top: int
    children: tuple[Prefix, ...]
    num_children: int

    @property
    def rows(self) -> int:
        """Lines that it takes: those of its children, or one."""
        return max(1, sum(one.rows for one in self.children))


def largest_prefixes(
    codes: np.ndarray, taxonomy: Taxonomy, titles: np.ndarray, widths: tuple[int, ...] = WIDTHS
) -> tuple[Prefix, ...]:
    """The largest prefixes of one code, and below each the largest that go on from it; ties: lower codes first.

    Args:
        codes: (N, L) int64.
        taxonomy: The tree of the same N items; first paths count. A prefix of l codes is named at depth l.
        titles: (N,) object array of str, for prefixes without a category.
        widths: How many at each length.
    """
    return _below(codes, np.arange(len(codes)), (), taxonomy, titles, widths[: codes.shape[1]])


def _below(
    codes: np.ndarray,
    items: np.ndarray,
    before: tuple[int, ...],
    taxonomy: Taxonomy,
    titles: np.ndarray,
    widths: tuple[int, ...],
) -> tuple[Prefix, ...]:
    found = []
    length = len(before) + 1
    used, counts = np.unique(codes[items, length - 1], return_counts=True)
    for code in used[np.argsort(-counts, kind="stable")[: widths[0]]]:
        mine = items[codes[items, length - 1] == code]
        prefix = (*before, int(code))
        name, share = _named(taxonomy, mine, length, titles)
        children: tuple[Prefix, ...] = ()
        num_children = 0
        if len(widths) > 1:
            num_children = len(np.unique(codes[mine, length]))
            children = _below(codes, mine, prefix, taxonomy, titles, widths[1:])
        top, _ = _commonest(taxonomy.item_nodes[mine, 0, 0])
        found.append(Prefix(prefix, len(mine), name, share, top, children, num_children))
    return tuple(found)


def _named(taxonomy: Taxonomy, items: np.ndarray, length: int, titles: np.ndarray) -> tuple[str, float | None]:
    """The commonest category at depth `length`, an item's last one where its path is shorter."""
    depth = min(length, taxonomy.item_nodes.shape[2]) - 1
    nodes = taxonomy.item_nodes[items, 0, depth]
    nodes = np.where(nodes >= 0, nodes, taxonomy.item_leaf[items, 0])
    node, share = _commonest(nodes)
    return (taxonomy.node_path[node][-1], share) if node >= 0 else (str(titles[items[0]]), None)


def _commonest(nodes: np.ndarray) -> tuple[int, float]:
    """The commonest node and its share of the items that have one; -1 and 0 where none has."""
    known = nodes[nodes >= 0]
    if len(known) == 0:
        return -1, 0.0
    counts = np.bincount(known)
    return int(counts.argmax()), float(counts.max() / len(known))


def draw_tree(codes: np.ndarray, taxonomy: Taxonomy, titles: np.ndarray) -> Figure:
    """One column a prefix length, one cell a prefix; its colour is the top category, its bar the purity."""
    from matplotlib.figure import Figure

    roots = largest_prefixes(codes, taxonomy, titles)
    colour = top_colours(taxonomy)
    num_rows = sum(root.rows for root in roots) + 0.5 * len(roots)
    num_columns = min(len(WIDTHS), codes.shape[1])
    drawn = Figure(figsize=(3.7 * num_columns, ROW * num_rows + 1.0), layout="constrained")
    panel = drawn.add_subplot(1, 1, 1)
    panel.set_axis_off()
    panel.set_xlim(0, num_columns)
    panel.set_ylim(num_rows, -1.6)
    for column in range(num_columns):
        several = "first code" if column == 0 else f"first {('two', 'three')[column - 1]} codes"
        panel.text(column + 0.01, -0.6, several, fontsize=10.5, fontweight="bold", color=INK)
    row = 0.0
    for root in roots:
        _draw(panel, root, row, colour)
        row += root.rows + 0.5
    shown, num_first = sum(root.num_items for root in roots) / len(codes), len(np.unique(codes[:, 0]))
    drawn.suptitle(
        f"The {len(roots)} largest of {num_first} first codes ({shown:.0%} of {len(codes):,} items) "
        "and the largest prefixes below them.\n"
        "Bar and percentage: items in the prefix's commonest category, whose name it shows.",
        fontsize=9.5,
        color=QUIET,
        x=0.012,
        ha="left",
    )
    return drawn


def _draw(panel: Axes, prefix: Prefix, row: float, colour: dict[int, str]) -> None:
    from matplotlib.patches import Rectangle

    column = len(prefix.codes) - 1
    shade = colour.get(prefix.top, OTHER)
    height, gap = prefix.rows - 0.12, 0.02
    share = 1.0 if prefix.share is None else prefix.share
    panel.add_patch(Rectangle((column, row), 1 - gap, height, facecolor=shade, alpha=0.12, linewidth=0))
    panel.add_patch(
        Rectangle((column, row), (1 - gap) * share, height, facecolor=shade, alpha=0.38, linewidth=0)
    )
    panel.add_patch(Rectangle((column, row), 0.012, height, facecolor=shade, linewidth=0))
    middle = row + height / 2
    code = "_".join(map(str, prefix.codes))
    details = f"{prefix.num_items} items" if prefix.num_items > 1 else "1 item"
    if prefix.share is not None:
        details += f", {prefix.share:.0%}"
    if prefix.rows > 2:
        more = f"\n{prefix.num_children} second codes" if prefix.num_children else ""
        panel.text(
            column + 0.03,
            middle,
            f"{code}\n{plain(prefix.name)}\n{details}{more}",
            fontsize=8.5,
            color=INK,
            va="center",
            linespacing=1.35,
        )
    else:
        panel.text(
            column + 0.03, middle, f"{code}  {plain(prefix.name, 24)}", fontsize=7.6, color=INK, va="center"
        )
        panel.text(column + 0.965, middle, details, fontsize=7.2, color=QUIET, va="center", ha="right")
    below = row
    for child in prefix.children:
        _draw(panel, child, below, colour)
        below += child.rows
