"""What a ranked list is worth: one number a case, and a few for all the lists together.

Every case has one target, so each accuracy metric is a function of the target's rank alone. Ranks are found by
looking the target up in the list that was recommended, never by counting the scores above it: a model whose
scores are NaN would have nothing above its target, and a perfect recall.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CUTOFFS = (1, 5, 10, 20, 50)
"""The k of every metric at k."""

BEYOND_CUTOFF = 10
"""The k of coverage, Gini, popularity, diversity and the share of cold slots."""


def rank_of_target(item_index: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Place of each case's target in its list.

    Args:
        item_index: (C, K) int64, best first, padded with -1.
        target: (C,) int64 item_index.

    Returns:
        (C,) int64, counted from 1; 0 = not in the list.

    >>> rank_of_target(np.array([[4, 7, 9], [1, 2, -1]]), np.array([7, 9])).tolist()
    [2, 0]
    """
    hit = item_index == target[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0).astype(np.int64)


def recall_at_k(rank: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first k, else 0: (C,) int64 ranks to (C,) float64.

    >>> recall_at_k(np.array([1, 3, 0]), 2).tolist()
    [1.0, 0.0, 0.0]
    """
    return ((rank > 0) & (rank <= k)).astype(np.float64)


def ndcg_at_k(rank: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(rank + 1) within the first k, else 0: (C,) int64 ranks to (C,) float64.

    >>> ndcg_at_k(np.array([1, 3, 0, 4]), 3).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    return recall_at_k(rank, k) / np.log2(np.maximum(rank, 1) + 1.0)


def mrr_at_k(rank: np.ndarray, k: int) -> np.ndarray:
    """1 / rank within the first k, else 0: (C,) int64 ranks to (C,) float64.

    >>> mrr_at_k(np.array([1, 4, 0]), 5).tolist()
    [1.0, 0.25, 0.0]
    """
    return recall_at_k(rank, k) / np.maximum(rank, 1)


_PER_CASE: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "recall": recall_at_k,
    "ndcg": ndcg_at_k,
    "mrr": mrr_at_k,
}

ACCURACY = tuple(f"{name}_at_{k}" for name in _PER_CASE for k in CUTOFFS)
"""Names of the columns of `accuracy`."""


def accuracy(rank: np.ndarray) -> np.ndarray:
    """Every accuracy metric of every case.

    Args:
        rank: (C,) int64 from `rank_of_target`.

    Returns:
        (C, len(ACCURACY)) float64.
    """
    return np.stack([metric(rank, k) for metric in _PER_CASE.values() for k in CUTOFFS], axis=1)


def catalog_coverage(item_index: np.ndarray, num_items: int) -> float:
    """Share of the catalog that stands in at least one of the lists (C, k).

    >>> catalog_coverage(np.array([[0, 1], [1, -1]]), num_items=4)
    0.5
    """
    return len(np.unique(item_index[item_index >= 0])) / num_items


def exposure_gini(item_index: np.ndarray, num_items: int) -> float:
    """Gini coefficient of how often each catalog item is shown in the lists (C, k).

    0 = every item equally often; (num_items - 1) / num_items = one item takes every slot. NaN without a slot.

    >>> exposure_gini(np.array([[0, 1, 2, 3]]), num_items=4)
    0.0
    >>> exposure_gini(np.array([[2], [2]]), num_items=4)
    0.75
    """
    exposure = np.sort(np.bincount(item_index[item_index >= 0], minlength=num_items))
    total = int(exposure.sum())
    if total == 0:
        return float("nan")
    place = np.arange(1, num_items + 1, dtype=np.int64)
    return (2 * int((place * exposure).sum()) / total - (num_items + 1)) / num_items


def popularity_percentile(num_interactions: np.ndarray) -> np.ndarray:
    """Where each item stands in the catalog by popularity.

    Args:
        num_interactions: (N,) training interactions an item.

    Returns:
        (N,) float64 in (0, 1): the share of items less popular, counting ties (itself too) as one half, so the
        catalog's mean is exactly one half.

    >>> popularity_percentile(np.array([5, 0, 0, 9])).tolist()
    [0.625, 0.25, 0.25, 0.875]
    """
    order = np.sort(num_interactions)
    below = np.searchsorted(order, num_interactions, side="left")
    up_to = np.searchsorted(order, num_interactions, side="right")
    return (below + up_to) / (2.0 * len(order))


def mean_popularity_percentile(item_index: np.ndarray, percentile: np.ndarray) -> np.ndarray:
    """Mean popularity percentile of each list's items.

    Args:
        item_index: (C, k) int64, padded with -1.
        percentile: (N,) float64 from `popularity_percentile`.

    Returns:
        (C,) float64; NaN for an empty list.
    """
    return _mean_over_slots(percentile[item_index], item_index >= 0)


def cold_share(item_index: np.ndarray, cold: np.ndarray) -> np.ndarray:
    """Share of each list's items that are cold: (C, k) int64 and (N,) bool to (C,); NaN for an empty list."""
    return _mean_over_slots(cold[item_index].astype(np.float64), item_index >= 0)


def intra_list_diversity(item_index: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of each list's pairs of items that have no label in common.

    Args:
        item_index: (C, k) int64, padded with -1.
        labels: (N, P) int64 labels of an item (its leaf categories, or its brand), padded with -1. Pairs with
            an unlabelled item are left out.

    Returns:
        (C,) float64 in [0, 1]; NaN for a list without a pair of labelled items.

    >>> labels = np.array([[0, -1], [0, 1], [2, -1], [-1, -1]])
    >>> intra_list_diversity(np.array([[0, 1, 2, 3]]), labels).round(3).tolist()
    [0.667]
    """
    first, second = np.triu_indices(item_index.shape[1], k=1)
    own = np.where((item_index >= 0)[:, :, None], labels[item_index], -1)
    labelled = np.asarray((own >= 0).any(axis=2))
    shared = np.zeros((len(own), len(first)), bool)
    for a in range(own.shape[2]):
        for b in range(own.shape[2]):
            shared |= (own[:, first, a] == own[:, second, b]) & (own[:, first, a] >= 0)
    return _mean_over_slots((~shared).astype(np.float64), labelled[:, first] & labelled[:, second])


def _mean_over_slots(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Row means of (C, k) values over the slots that count; NaN where none does."""
    num = counts.sum(axis=1)
    total = np.where(counts, values, 0.0).sum(axis=1)
    return np.divide(total, num, out=np.full(len(num), np.nan), where=num > 0)
