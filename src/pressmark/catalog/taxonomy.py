"""The category tree: nodes keyed by whole path, and how two items are related in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pressmark.catalog.paths import CategoryPath

SAME_LEAF, SIBLING, COUSIN, UNRELATED, UNKNOWN = 3, 2, 1, 0, -1


@dataclass(frozen=True)
class Taxonomy:
    """n nodes and where N items hang. A name under two parents is two nodes.

    Leading names shared by the whole catalog are stripped first: in a shop where every path begins with
    "Beauty", no two items would be unrelated otherwise. An item with nothing but those names is unknown.

    Attributes:
        num_stripped: Leading names shared by all paths, left out of everything here.
        node_path: n paths after stripping, in ascending order: a parent stands before its children, and
            the nodes below one follow it without a gap.
        parent: (n,) int64 node, -1 for a top-level node.
        depth: (n,) int64, 1 at the top level.
        item_nodes: (N, P, D) int64: node at each depth of each of an item's P paths, padded with -1.
        path_length: (N, P) int64, 0 for no path.
        item_leaf: (N, P) int64: last node of each path, -1 for no path.
    """

    num_stripped: int
    node_path: tuple[CategoryPath, ...]
    parent: np.ndarray
    depth: np.ndarray
    item_nodes: np.ndarray
    path_length: np.ndarray
    item_leaf: np.ndarray

    @property
    def num_nodes(self) -> int:
        """Nodes of the tree."""
        return len(self.node_path)

    def relation(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How close two items stand, the closest over pairs of paths.

        Args:
            a: int64 item_index of any shape.
            b: The same, of a shape that broadcasts with a's.

        Returns:
            int8: SAME_LEAF, identical whole path; SIBLING, a shared ancestor at most one step above the
            longer path's end; COUSIN, a shared ancestor further up; UNRELATED; UNKNOWN, an item
            without category.
        """
        return self._best(a, b, _relation_of, UNKNOWN, np.int8)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Shared depth / length of the longer path, the best over pairs of paths. Arguments as above.

        Returns:
            float32 in [0, 1], 1 for the same leaf; NaN for an item without category.
        """
        best = self._best(a, b, _similarity_of, -1.0, np.float32)
        return np.where(best < 0, np.float32(np.nan), best)

    def _best(
        self, a: np.ndarray, b: np.ndarray, grade: _Grade, worst: float, kind: type[np.generic]
    ) -> np.ndarray:
        """The largest grade over pairs of paths, `worst` where an item has none."""
        a, b = np.asarray(a), np.asarray(b)
        best = np.full(np.broadcast_shapes(a.shape, b.shape), worst, kind)
        num_paths, num_levels = self.item_nodes.shape[1:]
        for p, q in itertools.product(range(num_paths), repeat=2):
            shared = np.zeros(best.shape, np.int16)
            for level in range(num_levels):  # one (B, B) block at a time, not (B, B, D)
                node = self.item_nodes[a, p, level]
                shared += (node == self.item_nodes[b, q, level]) & (node >= 0)
            length_a, length_b = self.path_length[a, p], self.path_length[b, q]
            known = (length_a > 0) & (length_b > 0)
            graded = np.where(known, grade(shared, length_a, length_b), worst).astype(kind)
            np.maximum(best, graded, out=best)
        return best


def build_taxonomy(category: Sequence[tuple[CategoryPath, ...]]) -> Taxonomy:
    """Builds the tree of `Catalog.category`.

    Args:
        category: N tuples of paths from root to leaf.

    >>> milk, butter, pets = ("Shop", "Dairy", "Milk"), ("Shop", "Dairy", "Butter"), ("Shop", "Pets")
    >>> tree = build_taxonomy([(milk,), (butter,), (pets,), ()])
    >>> tree.num_stripped, tree.node_path
    (1, (('Dairy',), ('Dairy', 'Butter'), ('Dairy', 'Milk'), ('Pets',)))
    >>> tree.relation(np.array([0, 0, 0, 0]), np.array([0, 1, 2, 3])).tolist()
    [3, 2, 0, -1]
    """
    num_stripped = _num_shared(category)
    paths = [[path[num_stripped:] for path in paths] for paths in category]
    node_path = sorted({path[:end] for one in paths for path in one for end in range(1, len(path) + 1)})
    node_of = {path: node for node, path in enumerate(node_path)}
    parent = np.array([node_of.get(path[:-1], -1) for path in node_path], np.int64)

    shape = (len(paths), max(map(len, paths), default=0) or 1)
    path_length = np.zeros(shape, np.int64)
    item_leaf = np.full(shape, -1, np.int64)
    item_nodes = np.full((*shape, max(map(len, node_path), default=1)), -1, np.int64)
    for item, one in enumerate(paths):
        for slot, path in enumerate(one):
            nodes = [node_of[path[:end]] for end in range(1, len(path) + 1)]
            path_length[item, slot] = len(nodes)
            item_nodes[item, slot, : len(nodes)] = nodes
            item_leaf[item, slot] = nodes[-1] if nodes else -1

    return Taxonomy(
        num_stripped=num_stripped,
        node_path=tuple(node_path),
        parent=parent,
        depth=np.array([len(path) for path in node_path], np.int64),
        item_nodes=item_nodes,
        path_length=path_length,
        item_leaf=item_leaf,
    )


def _num_shared(category: Sequence[tuple[CategoryPath, ...]]) -> int:
    """Leading names that all paths share, but one fewer where that would empty every path."""
    paths = [path for one in category for path in one]
    if not paths:
        return 0
    # What the smallest and the largest share, all between them share.
    first, last = min(paths), max(paths)
    shared = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(shared, max(map(len, paths)) - 1)


_Grade = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _relation_of(shared: np.ndarray, length_a: np.ndarray, length_b: np.ndarray) -> np.ndarray:
    longer = np.maximum(length_a, length_b)
    same = (shared == longer) & (length_a == length_b)
    sibling = (shared > 0) & (shared >= longer - 1)
    return np.select([same, sibling, shared > 0], [SAME_LEAF, SIBLING, COUSIN], UNRELATED)


def _similarity_of(shared: np.ndarray, length_a: np.ndarray, length_b: np.ndarray) -> np.ndarray:
    return shared / np.maximum(np.maximum(length_a, length_b), 1)
