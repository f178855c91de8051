"""Which edges of a trie a request may take: filters of items, as one bit an edge, and single exclusions.

A search that never takes a closed edge finds only SIDs that still hold an allowed item: it neither wastes a
beam on an item that is not allowed nor runs into an empty subtree. Its answers are those of a trie built of
the allowed items alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.trie import Trie, ragged


@dataclass(frozen=True)
class EdgeMask:
    """Edges that lead to an allowed item.

    Attributes:
        allowed: (N,) bool by item_index. Items beyond N are not allowed.
        bits: For each level (ceil(E_l / 8),) uint8; edge e is bit e % 8, the lowest first, of byte e // 8.
    """

    allowed: np.ndarray
    bits: tuple[np.ndarray, ...]

    def passes(self, item_index: np.ndarray) -> np.ndarray:
        """(...) bool for items (...)."""
        if not len(self.allowed):
            return np.zeros(item_index.shape, bool)
        inside = item_index < len(self.allowed)
        return self.allowed[np.where(inside, item_index, 0)] & inside

    def live(self, level: int, edge: np.ndarray) -> np.ndarray:
        """(...) bool for edges (...) of a level."""
        return _bit(self.bits[level], edge)


def edge_mask(trie: Trie, allowed: np.ndarray, before: EdgeMask | None = None) -> EdgeMask:
    """Finds the live edges of a trie, bottom up, in time that grows with its items.

    Args:
        trie: The trie.
        allowed: (N,) bool by item_index.
        before: The mask of a living trie's built part, for the same items that it was built of: only what was
            copied since is looked at.

    Raises:
        ValueError: If `allowed` is not bool or not one-dimensional.
    """
    if allowed.ndim != 1 or allowed.dtype != bool:
        raise ValueError(f"allowed is {allowed.dtype} of the shape {allowed.shape}; it must be (items,) bool.")
    if not isinstance(trie, LivingTrie):
        return _built(trie, allowed)
    mask = before or _built(trie.built, allowed)
    bits: list[np.ndarray] = []
    content = EdgeMask(allowed, ()).passes(trie.item_order[trie.tail[-1] :])
    for level in reversed(range(trie.num_levels)):
        # Nodes of depth level + 1: as built, and copies, which live if any of their edges (or items) does.
        num_bytes = trie.tail[level] // 8
        built = mask.bits[level][:num_bytes]
        child, num_built = trie.tail_child[level], trie.built_nodes[level + 1]
        is_copy = child >= num_built
        live = _bit(built, np.where(is_copy, 0, child)) if len(built) else np.zeros(len(child), bool)
        before_here = np.concatenate([[0], np.cumsum(content)])
        node = child[is_copy]
        first = trie.first[level + 1]
        start = trie.tail[level + 1]
        first, end = first[node] - start, first[node + 1] - start
        live[is_copy] = before_here[end] > before_here[first]
        bits.insert(0, np.concatenate([built, np.packbits(live, bitorder="little")]))
        content = live
    return EdgeMask(allowed, tuple(bits))


def _built(trie: Trie, allowed: np.ndarray) -> EdgeMask:
    live = EdgeMask(allowed, ()).passes(trie.item_order)
    if trie.first_item is not None:
        live = _any(live, trie.first_item)
    bits: list[np.ndarray] = []
    for level in reversed(range(trie.num_levels)):
        bits.insert(0, np.packbits(live, bitorder="little"))
        live = _any(live, trie.first_edge[level])
    return EdgeMask(allowed, tuple(bits))


def _any(live: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Whether any of live[first[n]] to live[first[n + 1] - 1] is set, for each n; none of these is empty."""
    return np.logical_or.reduceat(live, first[:-1]) if len(live) else np.zeros(0, bool)


def _bit(bits: np.ndarray, place: np.ndarray) -> np.ndarray:
    return (bits[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1


@dataclass(frozen=True)
class DeadEdges:
    """Edges that single requests must not take, for one level.

    Attributes:
        row: (n,) int64 row of the batch.
        parent: (n,) int64 node of depth `level` that the edge leaves.
        slot: (n,) int64 the edge's number among its parent's.
    """

    row: np.ndarray
    parent: np.ndarray
    slot: np.ndarray


def dead_edges(
    trie: Trie,
    row: np.ndarray,
    item_index: np.ndarray,
    sids: np.ndarray,
    masks: Sequence[EdgeMask | None] = (None,),
    mask_of_row: np.ndarray | None = None,
) -> list[DeadEdges]:
    """Finds, level by level, the edges below which a row has excluded every item that its filter allows.

    Args:
        trie: The trie.
        row: (n,) int64 row of the batch of each exclusion.
        item_index: (n,) int64 the item excluded there. Repeats and items outside the trie do no harm.
        sids: (n, L) int64 SIDs of those items.
        masks: Filters; None allows everything.
        mask_of_row: (B,) int64 the filter of each row of the batch; None is `masks[0]` for all.

    Returns:
        L entries.
    """
    which = np.zeros(len(row), np.int64) if mask_of_row is None else mask_of_row[row]
    keep = np.ones(len(row), bool)
    for number, mask in enumerate(masks):
        if mask is not None:
            own = which == number
            keep[own] = mask.passes(item_index[own])
    keep &= _first_of_each(row, item_index)
    edges = trie.walk(sids[keep])
    inside = edges[:, -1] >= 0
    row, item_index, which, edges = (
        row[keep][inside],
        item_index[keep][inside],
        which[keep][inside],
        edges[inside],
    )
    last = trie.num_levels - 1
    node = trie.child(last, edges[:, last])
    # An item of the same SID as another's, but not in the trie, closes nothing.
    place, items = trie.items_of(node)
    there = np.zeros(len(node), bool)
    there[place[items == item_index[place]]] = True
    row, which, edges, node = row[there], which[there], edges[there], node[there]
    found: list[DeadEdges] = []
    for level in reversed(range(trie.num_levels)):
        # (row, node of depth level + 1) whose every live edge, or allowed item, is gone.
        keys = row * (int(node.max(initial=0)) + 1) + node
        _, first, gone = np.unique(keys, return_index=True, return_counts=True)
        dead = gone == _num_live(trie, level + 1, node[first], which[first], masks)
        first = first[dead]
        row, which, edges = row[first], which[first], edges[first]
        node = np.full(len(row), trie.root) if level == 0 else trie.child(level - 1, edges[:, level - 1])
        found.insert(0, DeadEdges(row, node, edges[:, level] - trie.first_edge[level][node]))
    return found


def _first_of_each(row: np.ndarray, item_index: np.ndarray) -> np.ndarray:
    """(n,) bool: pairs that do not stand earlier."""
    found = np.zeros(len(row), bool)
    keys = row * (int(item_index.max(initial=0)) + 1) + item_index
    found[np.unique(keys, return_index=True)[1]] = True
    return found


def _num_live(
    trie: Trie, depth: int, node: np.ndarray, which: np.ndarray, masks: Sequence[EdgeMask | None]
) -> np.ndarray:
    """(n,) int64: live edges of nodes, each under its own filter; or allowed items of leaves."""
    if depth == trie.num_levels:
        place, content = trie.items_of(node)
    else:
        first = trie.first_edge[depth][node].astype(np.int64)
        place, within = ragged(trie.first_edge[depth][node + 1] - first)
        content = first[place] + within
    live = np.ones(len(content), bool)
    for number, mask in enumerate(masks):
        if mask is not None:
            own = which[place] == number
            live[own] = (
                mask.passes(content[own]) if depth == trie.num_levels else mask.live(depth, content[own])
            )
    return np.bincount(place[live], minlength=len(node))
