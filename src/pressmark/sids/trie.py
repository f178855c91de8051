"""The trie of all valid SIDs, kept as one CSR a level.

A node of depth d is a SID prefix of d codes; the root is node 0 of depth 0. An edge of level l leads from a
node of depth l to one of depth l + 1, and the child's number is the edge's number: edges stand in lexicographic
order, so no child pointer is stored. A node of depth L is a leaf: one SID, and a range of items, since a
catalog may share SIDs. With 256 codes a level that is one byte an edge and four an inner node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pressmark import files


@dataclass
class Trie:
    """SID prefixes of a set of items. `LivingTrie` is one that can change.

    Attributes:
        level_sizes: L numbers of codes.
        edge_code: For each level (E_l,) of the smallest unsigned integer that holds its codes: the code of
            each edge. Edges of one node stand together, codes ascending.
        first_edge: For each level (nodes of depth l, plus 1) int32: node n has the edges first_edge[n] to
            first_edge[n + 1] - 1.
        width: For each level the most edges of one node.
        item_order: (items,) int32 item_index by SID, equal SIDs by item_index.
        first_item: (leaves + 1,) int32: leaf n has the places first_item[n] to first_item[n + 1] - 1 of
            item_order. None where every leaf has one item, the one of its own number.
    """

    level_sizes: tuple[int, ...]
    edge_code: list[np.ndarray]
    first_edge: list[np.ndarray]
    width: list[int]
    item_order: np.ndarray
    first_item: np.ndarray | None

    @property
    def root(self) -> int:
        """The node of depth 0."""
        return 0

    @property
    def num_levels(self) -> int:
        """L, codes a SID."""
        return len(self.level_sizes)

    @property
    def num_items(self) -> int:
        """Items in the trie."""
        return len(self.item_order)

    @property
    def nbytes(self) -> int:
        """Bytes of everything but `item_order`."""
        arrays = [*self.edge_code, *self.first_edge, *([] if self.first_item is None else [self.first_item])]
        return sum(one.nbytes for one in arrays)

    def child(self, level: int, edge: np.ndarray) -> np.ndarray:
        """(...) int: the node of depth level + 1 that each edge of `level` leads to."""
        return edge

    def find(self, level: int, node: np.ndarray, code: np.ndarray) -> np.ndarray:
        """(n,) int64: the edge of each node that carries the code, -1 where there is none."""
        first = self.first_edge[level][node].astype(np.int64)
        end = self.first_edge[level][node + 1].astype(np.int64)
        codes = self.edge_code[level]
        if not len(codes):
            return np.full(len(node), -1, np.int64)
        low, high = first, end
        for _ in range(self.width[level].bit_length()):
            middle = (low + high) // 2
            below = (low < high) & (codes[np.minimum(middle, len(codes) - 1)] < code)
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        found = (low < end) & (codes[np.minimum(low, len(codes) - 1)] == code)
        return np.where(found, low, -1)

    def walk(self, sids: np.ndarray) -> np.ndarray:
        """Follows SIDs down.

        Args:
            sids: (n, L) int64 codes.

        Returns:
            (n, L) int64: the edge taken at each level, -1 from where a SID leaves the trie.
        """
        edges = np.full(sids.shape, -1, np.int64)
        rows = np.arange(len(sids))
        node = np.full(len(sids), self.root, np.int64)
        for level in range(self.num_levels):
            edge = self.find(level, node, sids[rows, level])
            rows, edge = rows[edge >= 0], edge[edge >= 0]
            edges[rows, level] = edge
            node = self.child(level, edge)
        return edges

    def items_of(self, leaf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items of leaves: (n,) place in `leaf`, ascending, and (n,) int64 item_index, ascending in a leaf."""
        if self.first_item is None:
            return np.arange(len(leaf)), self.item_order[leaf].astype(np.int64)
        first = self.first_item[leaf].astype(np.int64)
        place, within = ragged(self.first_item[leaf + 1] - first)
        return place, self.item_order[first[place] + within].astype(np.int64)

    def leaves(self) -> tuple[np.ndarray, np.ndarray]:
        """Every SID in lexicographic order: (leaves,) int64 leaf and (leaves, L) int64 codes."""
        node, sids = np.array([self.root]), np.empty((1, 0), np.int64)
        for level in range(self.num_levels):
            first = self.first_edge[level][node].astype(np.int64)
            place, within = ragged(self.first_edge[level][node + 1] - first)
            edge = first[place] + within
            sids = np.column_stack([sids[place], self.edge_code[level][edge]])
            node = self.child(level, edge)
        return node, sids

    def save(self, path: str | Path) -> None:
        """Writes the trie as one safetensors file."""
        arrays = {f"edge_code_{level}": one for level, one in enumerate(self.edge_code)}
        arrays |= {f"first_edge_{level}": one for level, one in enumerate(self.first_edge)}
        arrays["item_order"] = self.item_order
        if self.first_item is not None:
            arrays["first_item"] = self.first_item
        metadata = {
            "level_sizes": ",".join(map(str, self.level_sizes)),
            "width": ",".join(map(str, self.width)),
        }
        with files.replacing(Path(path)) as partial:
            save_file({name: torch.from_numpy(one) for name, one in arrays.items()}, partial, metadata)


def load_trie(path: str | Path) -> Trie:
    """Opens a saved trie; its arrays are memory-mapped.

    Raises:
        ValueError: If the file holds no trie.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        sizes, width = ([int(one) for one in metadata[name].split(",")] for name in ("level_sizes", "width"))
        levels = range(len(sizes))
        return Trie(
            tuple(sizes),
            [arrays[f"edge_code_{level}"] for level in levels],
            [arrays[f"first_edge_{level}"] for level in levels],
            width,
            arrays["item_order"],
            arrays.get("first_item"),
        )
    except Exception as error:
        raise ValueError(f"{path}: no trie in it ({error}). Write one with Trie.save.") from error


def build_trie(sids: np.ndarray, level_sizes: tuple[int, ...], items: np.ndarray | None = None) -> Trie:
    """Builds the trie of a catalog, or of some of its items.

    Args:
        sids: (N, L) integers, row = item_index.
        level_sizes: L numbers of codes.
        items: (n,) distinct item_index to keep; None keeps all. None at all is a trie without edges.

    Raises:
        ValueError: If a code is outside its level or an item outside the catalog.
    """
    if sids.ndim != 2 or sids.shape[1] != len(level_sizes):
        raise ValueError(f"sids have the shape {sids.shape}; it must be (items, {len(level_sizes)}).")
    if len(sids) and ((sids.min(axis=0) < 0) | (sids.max(axis=0) >= level_sizes)).any():
        raise ValueError(f"sids hold a code outside level_sizes {level_sizes}.")
    if items is not None:
        items = np.unique(items)
        if len(items) and (items[0] < 0 or items[-1] >= len(sids)):
            raise ValueError(f"items must be item_index 0 to {len(sids) - 1}; got {items[0]} to {items[-1]}.")
        sids = sids[items]
    order, starts = _sorted(sids, level_sizes)
    codes = [np.min_scalar_type(size - 1) for size in level_sizes]
    edge_code, first_edge = [], []
    parents = np.zeros(1, np.int64)
    for level, edges in enumerate(starts):
        edge_code.append(sids[order[edges], level].astype(codes[level]))
        # The root exists without any item too; its edge range is then empty.
        first = parents if level == 0 else np.searchsorted(edges, parents)
        first_edge.append(np.append(first, len(edges)).astype(np.int32))
        parents = edges
    width = [int(np.diff(one).max(initial=0)) for one in first_edge]
    alone = len(starts[-1]) == len(order)
    first_item = None if alone else np.append(starts[-1], len(order)).astype(np.int32)
    item_order = (order if items is None else items[order]).astype(np.int32)
    return Trie(tuple(level_sizes), edge_code, first_edge, width, item_order, first_item)


def _sorted(sids: np.ndarray, level_sizes: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(n,) order of the rows, equal ones as they stand, and for each level where a new prefix starts in it."""
    bits = [max(1, (size - 1).bit_length()) for size in level_sizes]
    row_bits = max(1, len(sids) - 1).bit_length()
    if sum(bits) + row_bits > 64:
        # lexsort is stable and sorts by its last key first.
        order = np.lexsort(sids.T[::-1])
        ranked = sids[order]
        starts, new = [], np.zeros(len(order), bool)
        for level in range(len(level_sizes)):
            new[:1] = True
            new[1:] |= ranked[1:, level] != ranked[:-1, level]
            starts.append(np.flatnonzero(new))
        return order, starts
    # SID and row in one number: a plain sort of those is many times faster than a stable one by key.
    keys = np.zeros(len(sids), np.uint64)
    for level, num in enumerate(bits):
        keys <<= np.uint64(num)
        keys |= sids[:, level].astype(np.uint64)
    keys <<= np.uint64(row_bits)
    keys |= np.arange(len(sids), dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64((1 << row_bits) - 1)).astype(np.int64)
    starts, behind = [], row_bits + sum(bits)
    differs = keys[1:] ^ keys[:-1]
    for num in bits:
        behind -= num
        # Numbers that differ in a bit of the first l codes, or above it, have another prefix.
        new = np.flatnonzero(differs >> np.uint64(behind)) + 1
        starts.append(np.concatenate([[0], new]) if len(keys) else new)
    return order, starts


def ragged(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For n lists of these lengths: of each element its list and its place there, both int64.

    >>> [one.tolist() for one in ragged(np.array([2, 0, 1]))]
    [[0, 0, 2], [0, 1, 0]]
    """
    which = np.repeat(np.arange(len(lengths)), lengths)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
