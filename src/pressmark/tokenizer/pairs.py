"""How the items of a batch are related, at the price of its leaves and not of its pairs.

Similarity and relation of two items depend on their leaves alone. A batch of 512 has some 150 different sets
of leaves, so tables over these hold all that a loss or a count needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pressmark.catalog.taxonomy import COUSIN, SAME_LEAF, SIBLING, UNKNOWN, UNRELATED, Taxonomy
from pressmark.tokenizer.quantizer import prefix_number

CLASSES = {
    "same_leaf": SAME_LEAF, "sibling": SIBLING, "cousin": COUSIN, "unrelated": UNRELATED, "unknown": UNKNOWN
}  # fmt: skip
_MOST_IN_A_TABLE = 2048
"""Groups for which the tables over all of them are kept: 20 MB at most."""


@dataclass(frozen=True)
class BatchPairs:
    """A batch of B items as G groups, each of the items with one set of leaves.

    Attributes:
        group: (B,) int64 group of each item, 0 to G - 1.
        size: (G,) int64 items.
        similarity: (G, G) float32, `Taxonomy.similarity`; NaN where unknown.
        relation: (G, G) int8, `Taxonomy.relation`.
    """

    group: np.ndarray
    size: np.ndarray
    similarity: np.ndarray
    relation: np.ndarray

    def counts(self) -> dict[str, int]:
        """Unordered pairs of different items in each class.

        Returns:
            same_leaf, sibling, cousin, unrelated, unknown (an item without category).
        """
        size = self.size.astype(np.float64)  # whole numbers, exact up to 2 ** 53
        ordered = np.bincount((self.relation - UNKNOWN).ravel(), np.outer(size, size).ravel(), len(CLASSES))
        np.subtract.at(ordered, self.relation.diagonal() - UNKNOWN, size)  # an item is no pair with itself
        return {name: round(ordered[constant - UNKNOWN] / 2) for name, constant in CLASSES.items()}


class LeafGroups:
    """The catalog's items grouped by their leaves. Built once, asked for every batch.

    Args:
        taxonomy: The tree over N items.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self._group = prefix_number(taxonomy.item_leaf + 1)
        self._first = np.unique(self._group, return_index=True)[1]
        self._tables = self._tables_of(self._first) if len(self._first) <= _MOST_IN_A_TABLE else None

    def _tables_of(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tree = self._taxonomy
        return tree.similarity(items[:, None], items), tree.relation(items[:, None], items)

    def pairs(self, items: np.ndarray) -> BatchPairs:
        """The groups of (B,) int64 item_index, and how they are related."""
        found, group, size = np.unique(self._group[items], return_inverse=True, return_counts=True)
        if self._tables is None:
            similarity, relation = self._tables_of(self._first[found])
        else:
            similarity, relation = (table[np.ix_(found, found)] for table in self._tables)
        return BatchPairs(group.ravel(), size, similarity, relation)


def pair_counts(groups: LeafGroups, batches: Sequence[np.ndarray]) -> dict[str, list[int]]:
    """`BatchPairs.counts` of each batch: one number a batch for every class."""
    counts = [groups.pairs(batch).counts() for batch in batches]
    return {name: [one[name] for one in counts] for name in CLASSES}
