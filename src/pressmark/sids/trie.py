"""The trie of all valid SIDs, kept as one CSR a level.

A node of depth d is a SID prefix of d codes; the root is node 0 of depth 0. An edge of level l leads from
a node of depth l to one of depth l + 1, and the child's number is the edge's number: edges stand in
lexicographic order, so no child pointer is stored. A node of depth L is a leaf: one SID, and a range of
items, since a catalog may share SIDs. Items sorted by SID make every node of every depth a range of places
in that order, which is all that counting the items below a node takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trie:
    """SID prefixes of a set of items.

    Attributes:
        level_sizes: L numbers of codes.
        edge_code: For each level (E_l,) of the smallest unsigned integer that holds its codes: the code of
            each edge. Edges of one node stand together, codes ascending.
        first_edge: For each level (nodes of depth l, plus 1) int32: node n has the edges first_edge[n] to
            first_edge[n + 1] - 1.
        first_place: For each level (E_l + 1,) int32: below edge e lie the places first_place[e] to
            first_place[e + 1] - 1 of `item_order`. The last level's are the leaves' items.
        item_order: (items,) int64 item_index by SID, equal SIDs by item_index.
        place: (catalog,) int32 place of each item_index in `item_order`, -1 for items outside the trie.
    """

    level_sizes: tuple[int, ...]
    edge_code: tuple[np.ndarray, ...]
    first_edge: tuple[np.ndarray, ...]
    first_place: tuple[np.ndarray, ...]
    item_order: np.ndarray
    place: np.ndarray

    @property
    def num_levels(self) -> int:
        """L, codes a SID."""
        return len(self.level_sizes)

    @property
    def num_items(self) -> int:
        """Items in the trie."""
        return len(self.item_order)

    @property
    def num_leaves(self) -> int:
        """Distinct SIDs."""
        return len(self.edge_code[-1])

    def widest(self, level: int) -> int:
        """Edges of the node with the most of them, among nodes of depth `level`."""
        return int(np.diff(self.first_edge[level]).max(initial=0))

    def edge_of_item(self, level: int, item_index: np.ndarray) -> np.ndarray:
        """The edge of `level` on each item's way.

        Args:
            level: 0 to L - 1.
            item_index: (n,) int64 items of the trie.

        Returns:
            (n,) int64 edges.
        """
        return np.searchsorted(self.first_place[level], self.place[item_index], side="right") - 1

    def sids(self) -> np.ndarray:
        """(leaves, L) int64: every SID in lexicographic order."""
        sids = np.empty((self.num_leaves, self.num_levels), np.int64)
        edge = np.arange(self.num_leaves)
        for level in reversed(range(self.num_levels)):
            sids[:, level] = self.edge_code[level][edge]
            edge = self.parent(level, edge)
        return sids

    def parent(self, level: int, edge: np.ndarray) -> np.ndarray:
        """(n,) int64: the node of depth `level` that each of (n,) edges of that level leaves."""
        return np.searchsorted(self.first_edge[level], edge, side="right") - 1


def build_trie(sids: np.ndarray, level_sizes: tuple[int, ...], items: np.ndarray | None = None) -> Trie:
    """Builds the trie of a catalog, or of the items that a filter allows.

    Args:
        sids: (N, L) int64, row = item_index.
        level_sizes: L numbers of codes.
        items: (n,) distinct item_index to keep; None keeps all. None at all is a trie without edges.

    Returns:
        The trie.

    Raises:
        ValueError: If a code is outside its level or an item outside the catalog.
    """
    if sids.ndim != 2 or sids.shape[1] != len(level_sizes):
        raise ValueError(f"sids have the shape {sids.shape}; it must be (items, {len(level_sizes)}).")
    if ((sids < 0) | (sids >= np.array(level_sizes))).any():
        raise ValueError(f"sids hold a code outside level_sizes {level_sizes}.")
    items = np.arange(len(sids)) if items is None else np.unique(items)
    if len(items) and (items[0] < 0 or items[-1] >= len(sids)):
        raise ValueError(f"items must be item_index 0 to {len(sids) - 1}; got {items[0]} to {items[-1]}.")
    # lexsort is stable and sorts by its last key first; items ascend, so equal SIDs stay in item_index order.
    order = items[np.lexsort(sids[items].T[::-1])]
    ranked = sids[order]
    edge_code, first_edge, first_place = [], [], []
    parent_starts = np.array([0, len(order)])[: 2 if len(order) else 1]
    starts_here = np.zeros(len(order), bool)
    for level, size in enumerate(level_sizes):
        # An edge starts wherever the code changes, or a coarser code did.
        starts_here[:1] = True
        starts_here[1:] |= ranked[1:, level] != ranked[:-1, level]
        starts = np.flatnonzero(starts_here)
        edge_code.append(ranked[starts, level].astype(np.min_scalar_type(size - 1)))
        first_edge.append(_pointers(np.searchsorted(starts, parent_starts[:-1]), len(starts), level))
        first_place.append(np.append(starts, len(order)).astype(np.int32))
        parent_starts = np.append(starts, len(order))
    place = np.full(len(sids), -1, np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return Trie(tuple(level_sizes), tuple(edge_code), tuple(first_edge), tuple(first_place), order, place)


def _pointers(first: np.ndarray, num_edges: int, level: int) -> np.ndarray:
    # The root exists without any item too; its edge range is then empty.
    first = np.zeros(1, np.int64) if level == 0 else first
    return np.append(first, num_edges).astype(np.int32)


@dataclass(frozen=True)
class DeadEdges:
    """Edges that lead to excluded items only, for each row of a batch and one level.

    Attributes:
        row: (n,) int64 row of the batch.
        parent: (n,) int64 node of depth `level` that the edge leaves.
        edge: (n,) int64 the edge.
    """

    row: np.ndarray
    parent: np.ndarray
    edge: np.ndarray


def dead_edges(trie: Trie, row: np.ndarray, item_index: np.ndarray) -> list[DeadEdges]:
    """Finds, level by level, the edges below which a row has excluded every item.

    A search that never takes a dead edge finds only SIDs that still hold an allowed item: it can neither
    waste a beam on an excluded item nor run into an empty subtree.

    Args:
        trie: The trie.
        row: (n,) int64 row of the batch of each exclusion.
        item_index: (n,) int64 the item excluded there. Repeats and items outside the trie do no harm.

    Returns:
        L entries, sorted by row, then edge.
    """
    inside = trie.place[item_index] >= 0
    pairs = np.unique(row[inside] * len(trie.place) + item_index[inside])
    row, item_index = np.divmod(pairs, max(len(trie.place), 1))
    found = []
    for level in range(trie.num_levels):
        num_edges = max(len(trie.edge_code[level]), 1)
        keys, counts = np.unique(row * num_edges + trie.edge_of_item(level, item_index), return_counts=True)
        key_row, edge = np.divmod(keys, num_edges)
        dead = counts == np.diff(trie.first_place[level])[edge]
        key_row, edge = key_row[dead], edge[dead]
        found.append(DeadEdges(key_row, trie.parent(level, edge), edge))
    return found
