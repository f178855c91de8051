"""Categories that the codes split, and pairs of categories that the codes take for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pressmark.insight.categories.leaves import Leaves

LEAST_ITEMS = 20
"""Below that a category's codes are chance."""
PART, OWN = 0.25, 0.5
"""A part of a split category: a first code that holds this share of it, and is made up of it by that share."""
OVERLAP = 0.6
"""Share of their first codes that merged categories have in common."""
MOST_PAIRS = 200


@dataclass(frozen=True)
class Shape:
    """One category that is split, or two that are merged.

    Attributes:
        kind: Which.
        leaf: The category.
        other: The category that it is merged with, -1 for a split.
        share: Of the split category that its parts hold; of their codes that merged ones have in common.
        codes: First codes: one a part, or the commonest that two have in common.
        examples: item_index of a product of each part, or of either category.
    """

    kind: Literal["split", "merged"]
    leaf: int
    other: int
    share: float
    codes: tuple[int, ...]
    examples: tuple[int, ...]


def shapes(codes: np.ndarray, leaves: Leaves) -> list[Shape]:
    """Splits, then merged pairs, each the clearest first.

    Split: two first codes or more hold a quarter of the category each, and mostly nothing else. Merged: the
    distributions of two categories over the first codes have most in common.

    Args:
        codes: (N,) int64 first codes.
        leaves: Labels of the same N products.
    """
    known = np.flatnonzero(leaves.labelled)
    table = np.zeros((len(leaves), int(codes.max(initial=0)) + 1))
    np.add.at(table, (leaves.label[known], codes[known]), 1)
    splits = [
        one for leaf in range(len(leaves)) if (one := _split(leaf, table, codes, leaves.label)) is not None
    ]
    return sorted(splits, key=lambda one: (-one.share, one.leaf)) + _merged(table, codes, leaves.label)


def _split(leaf: int, table: np.ndarray, codes: np.ndarray, label: np.ndarray) -> Shape | None:
    total = table[leaf].sum()
    if total < LEAST_ITEMS:
        return None
    own = table[leaf] / np.maximum(table.sum(axis=0), 1)
    parts = np.flatnonzero((table[leaf] >= PART * total) & (own >= OWN))
    if len(parts) < 2:
        return None
    examples = tuple(int(np.flatnonzero((label == leaf) & (codes == part))[0]) for part in parts)
    return Shape("split", leaf, -1, float(table[leaf, parts].sum() / total), tuple(map(int, parts)), examples)


def _merged(table: np.ndarray, codes: np.ndarray, label: np.ndarray) -> list[Shape]:
    large = np.flatnonzero(table.sum(axis=1) >= LEAST_ITEMS)
    shares = table[large] / table[large].sum(axis=1, keepdims=True)
    found = []
    for row in range(len(large)):
        common = np.minimum(shares[row], shares[row + 1 :])
        overlap = common.sum(axis=1)
        for at in np.flatnonzero(overlap >= OVERLAP):
            pair = int(large[row]), int(large[row + 1 + at])
            top = [int(code) for code in np.argsort(-common[at], kind="stable")[:3] if common[at, code] > 0]
            examples = tuple(_typical(one, top[0], codes, label) for one in pair)
            found.append(Shape("merged", *pair, float(overlap[at]), tuple(top), examples))
    return sorted(found, key=lambda one: (-one.share, one.leaf, one.other))[:MOST_PAIRS]


def _typical(leaf: int, code: int, codes: np.ndarray, label: np.ndarray) -> int:
    return int(np.flatnonzero((label == leaf) & (codes == code))[0])
