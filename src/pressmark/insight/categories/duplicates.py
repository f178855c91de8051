"""Near duplicates: products of one SID cell whose content is all but the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Duplicate:
    """Two products, the lower item_index first.

    Attributes:
        first, second: item_index.
        cosine: Of their content without the category.
        sid: The cell's nearest codes, before collisions were resolved.
    """

    first: int
    second: int
    cosine: float
    sid: tuple[int, ...]


def duplicates(codes: np.ndarray, vectors: np.ndarray, least: float) -> list[Duplicate]:
    """Pairs within a cell with a cosine of at least `least`, the closest first.

    Only products of one cell are compared, some at a time: no N x N matrix.

    Args:
        codes: (N, L) int64 nearest codes.
        vectors: (N, D) float32 of length 1; a product without content has zeros and no duplicate.
        least: Least cosine.

    >>> vectors = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    >>> [(one.first, one.second) for one in duplicates(np.array([[0], [0], [0], [1]]), vectors, 0.9)]
    [(0, 1)]
    """
    cell, size = np.unique(codes, axis=0, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(cell.ravel(), kind="stable")
    stop = np.cumsum(size)
    found = []
    for end, count in zip(stop, size, strict=True):
        if count > 1:
            found += _pairs(order[end - count : end], codes, vectors, least)
    return sorted(found, key=lambda one: (-one.cosine, one.first, one.second))


def _pairs(items: np.ndarray, codes: np.ndarray, vectors: np.ndarray, least: float) -> list[Duplicate]:
    found = []
    for start in range(0, len(items), ROWS_AT_ONCE):
        some = items[start : start + ROWS_AT_ONCE]
        cosine = vectors[some] @ vectors[items].T
        # float32 rounding must not lose two equal products at a threshold of 1.
        for row, other in zip(*np.nonzero(cosine >= least - 1e-6), strict=True):
            if start + row < other:
                sid = tuple(int(code) for code in codes[some[row]])
                found.append(
                    Duplicate(int(some[row]), int(items[other]), min(1.0, float(cosine[row, other])), sid)
                )
    return found
