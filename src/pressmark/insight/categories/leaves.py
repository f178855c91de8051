"""The tree's leaves as labels: whose is whose, who is near whom, and labels moved on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from pressmark.catalog.items import Catalog
from pressmark.catalog.paths import CategoryPath
from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy

SEPARATOR = " > "


@dataclass(frozen=True)
class Leaves:
    """C places where products stand, in ascending order of their paths, and N products' labels.

    A leaf is wherever a product's path ends, inner nodes included. Leading names that the whole catalog shares
    are stripped, as in `Taxonomy`; a product with nothing but those is unlabelled.

    Attributes:
        stripped: Names that every path begins with.
        paths: C paths after stripping.
        label: (N,) int64 leaf of each product's first path, -1 without one.
        also: N sets of further leaves that a product stands on; these are never suggested to it.
    """

    stripped: CategoryPath
    paths: tuple[CategoryPath, ...]
    label: np.ndarray
    also: tuple[frozenset[int], ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool."""
        return self.label >= 0

    def name(self, leaf: int) -> str:
        """A leaf's whole path as text; "" for -1."""
        return SEPARATOR.join((*self.stripped, *self.paths[leaf])) if leaf >= 0 else ""

    @cached_property
    def counts(self) -> np.ndarray:
        """(C,) int64 products labelled with each leaf."""
        return np.bincount(self.label[self.labelled], minlength=len(self))

    @cached_property
    def depth(self) -> np.ndarray:
        """(C,) int64 names in each path."""
        return np.array([len(path) for path in self.paths], np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """(D, C) int64: leaves with equal first d + 1 names share a number; a short path keeps its last."""
        found = []
        for depth in range(1, int(self.depth.max(initial=1)) + 1):
            number: dict[CategoryPath, int] = {}
            found.append([number.setdefault(path[:depth], len(number)) for path in self.paths])
        return np.array(found, np.int64)

    @cached_property
    def family(self) -> np.ndarray:
        """(C, 2) int64: leaf c and its siblings are leaves `family[c, 0]` to `family[c, 1]` - 1.

        Siblings stand below the nearest ancestor that has other leaves too.
        """
        found = np.tile(np.array([0, len(self)]), (len(self), 1))
        # Paths ascend, and so do the numbers of their groups; the deepest that holds two has the last word.
        for depth, group in enumerate(self.groups[:-1], start=1):
            bounds = np.stack([np.searchsorted(group, group, side) for side in ("left", "right")], axis=1)
            several = (self.depth > depth) & (bounds[:, 1] - bounds[:, 0] > 1)
            found[several] = bounds[several]
        return found

    def severity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """How bad it is to stand at one leaf instead of the other.

        Args:
            one: int64 leaves of any shape.
            other: The same.

        Returns:
            float64 in [0, 1]: share of the labelled products below their lowest common ancestor, which is all
            that a shopper might have to look through; 0 for the same leaf. It asks for no depth of the tree.
        """
        share = np.ones(np.broadcast(one, other).shape)
        for depth, group in enumerate(self.groups):
            size = np.bincount(group, weights=self.counts) / max(self.counts.sum(), 1)
            inside = (self.depth > depth)[one] & (self.depth > depth)[other]
            share = np.where((group[one] == group[other]) & inside, size[group[one]], share)
        return np.where(np.asarray(one) == other, 0.0, share)

    def moved_anywhere(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) labels, each moved to another leaf, all alike."""
        return (label + rng.integers(1, len(self), len(label))) % len(self)

    def moved_by_size(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) labels, each moved to another leaf, large ones the likelier."""
        share = (self.counts + 0.5) / (self.counts + 0.5).sum()
        drawn = rng.choice(len(self), len(label), p=share)
        return np.where(drawn == label, self.moved_anywhere(label, rng), drawn)

    def moved_to_sibling(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) labels, each moved to one of its siblings, all alike."""
        first, last = self.family[label].T
        step = 1 + np.floor(rng.random(len(label)) * (last - first - 1)).astype(np.int64)
        return first + (label - first + step) % (last - first)


def leaves_of(catalog: Catalog, more: Sequence[CategoryPath] = ()) -> Leaves:
    """The leaves of a catalog.

    Args:
        catalog: N products.
        more: Whole paths that exist and hold no product yet.

    Raises:
        ValueError: If no product has a category, or all stand at one place.
    """
    every = [*catalog.category, *((path,) for path in more)]
    tree = build_taxonomy(every)
    if not tree.num_nodes or not (tree.item_leaf[: len(catalog)] >= 0).any():
        raise ValueError("no product of the run has a category, so there is none to audit or to learn from.")
    ends = np.unique(tree.item_leaf[tree.item_leaf >= 0])
    if len(ends) < 2:
        name = SEPARATOR.join(_shared(every, tree) + tree.node_path[ends[0]])
        raise ValueError(
            f"all products of the run stand in one category, {name!r}: there is no other to tell it from."
        )
    leaf = np.searchsorted(ends, tree.item_leaf[: len(catalog)])
    leaf = np.where(tree.item_leaf[: len(catalog)] >= 0, leaf, -1)
    first = np.full(len(catalog), -1, np.int64)
    for slot in range(leaf.shape[1] - 1, -1, -1):
        first = np.where(leaf[:, slot] >= 0, leaf[:, slot], first)
    also = tuple(frozenset(row[row >= 0].tolist()) - {int(own)} for row, own in zip(leaf, first, strict=True))
    return Leaves(_shared(every, tree), tuple(tree.node_path[one] for one in ends), first, also)


def member(group: np.ndarray) -> sparse.csr_matrix:
    """(C, G) float32: 1 where a leaf is of a group; shares times it are the groups' shares."""
    shape = (len(group), int(group.max()) + 1)
    return sparse.csr_matrix((np.ones(len(group), np.float32), (np.arange(len(group)), group)), shape)


def _shared(category: Sequence[tuple[CategoryPath, ...]], tree: Taxonomy) -> CategoryPath:
    path = next(one for paths in category for one in paths)
    return path[: tree.num_stripped]
