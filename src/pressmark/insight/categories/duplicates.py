"""Near duplicates: products of one SID cell whose content is all but the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

ROWS_AT_ONCE = 512
MOST_PAIRS = 20
"""Later products that one is paired with at most, the closest; of equal ones the first is paired with all."""


@dataclass(frozen=True)
class Duplicate:
    """Two products, the lower item_index first.

    Attributes:
        first, second: item_index.
        cosine: Of their content without the category; the lesser one where their words are compared too.
        sid: The cell's nearest codes, before collisions were resolved.
    """

    first: int
    second: int
    cosine: float
    sid: tuple[int, ...]


def duplicates(
    codes: np.ndarray,
    vectors: np.ndarray,
    least: float,
    words: sparse.csr_matrix | None = None,
    numbers: sparse.csr_matrix | None = None,
) -> list[Duplicate]:
    """Pairs within a cell with a cosine of at least `least`, the closest first.

    Only products of one cell are compared, some at a time: no N x N matrix. Products of equal content are each
    paired with the first of them, which alone is compared with others; so there are fewer than
    (MOST_PAIRS + 1) * N pairs.

    Args:
        codes: (N, L) int64 nearest codes.
        vectors: (N, D) float32 of length 1; a product without content has zeros and no duplicate.
        least: Least cosine.
        words: (N, V) float32 of length 1, whose cosine must be as large; None where `vectors` tell enough.
        numbers: (N, M) float32, 1 for each number that a product's text says. Two products are no duplicates
            where each says one that the other does not: 1.5 L and 2 L.

    >>> vectors = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    >>> [(one.first, one.second) for one in duplicates(np.array([[0], [0], [0], [1]]), vectors, 0.9)]
    [(0, 1)]
    """
    told = np.flatnonzero(vectors.any(axis=1))
    cell, size = np.unique(codes[told], axis=0, return_inverse=True, return_counts=True)[1:]
    order = told[np.argsort(cell.ravel(), kind="stable")]
    stop = np.cumsum(size)
    found = []
    for end, count in zip(stop, size, strict=True):
        if count > 1:
            found += _pairs(order[end - count : end], codes, vectors, least, words, numbers)
    return sorted(found, key=lambda one: (-one.cosine, one.first, one.second))


def _pairs(
    items: np.ndarray,
    codes: np.ndarray,
    vectors: np.ndarray,
    least: float,
    words: sparse.csr_matrix | None,
    numbers: sparse.csr_matrix | None,
) -> list[Duplicate]:
    """Pairs of one cell, whose items ascend."""
    sid = tuple(int(code) for code in codes[items[0]])
    first = _first_of_equals(items, vectors, words)
    found = [
        Duplicate(int(one), int(item), 1.0, sid) for one, item in zip(first, items, strict=True) if one < item
    ]
    items = np.unique(first)
    for start in range(0, len(items), ROWS_AT_ONCE):
        some = items[start : start + ROWS_AT_ONCE]
        cosines = vectors[some] @ vectors[items].T
        if words is not None:
            cosines = np.minimum(cosines, (words[some] @ words[items].T).toarray())
        if numbers is not None:
            cosines[_say_otherwise(numbers[some], numbers[items])] = -1.0
        for row, cosine in enumerate(cosines):
            later = np.arange(start + row + 1, len(items))
            # float32 rounding must not lose two products that are all but equal at a threshold of 1.
            near = later[cosine[later] >= least - 1e-6]
            for other in near[np.argsort(-cosine[near], kind="stable")[:MOST_PAIRS]]:
                found.append(Duplicate(int(some[row]), int(items[other]), min(1.0, float(cosine[other])), sid))
    return found


def _say_otherwise(one: sparse.csr_matrix, other: sparse.csr_matrix) -> np.ndarray:
    """(n, m) bool: each of the two says a number that the other does not."""
    common = (one @ other.T).toarray()
    own, others = (np.asarray(side.sum(axis=1)) for side in (one, other))
    return (own > common) & (common < others.T)


def _first_of_equals(items: np.ndarray, vectors: np.ndarray, words: sparse.csr_matrix | None) -> np.ndarray:
    """(n,) for each of n ascending item_index the first that has the same content."""
    first: dict[bytes, int] = {}
    found = []
    for item in items.tolist():
        key = vectors[item].tobytes()
        if words is not None:
            own = slice(words.indptr[item], words.indptr[item + 1])
            key += words.indices[own].tobytes() + words.data[own].tobytes()
        found.append(first.setdefault(key, item))
    return np.array(found, np.int64)
