"""Rank a catalog by scores that a baseline computes for every item, and choose between ways to score it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from scipy.sparse import csr_matrix

from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories
from pressmark.metrics import ndcg_at_k
from pressmark.recommender import (
    Recommendations,
    Recommender,
    Requests,
    allowed_items,
    check_request,
    check_scores,
    top_k,
)

Score = Callable[[Histories], np.ndarray]
"""B histories -> (B, num_items) float32; -inf for an item that the model cannot score, else finite."""

Choice = TypeVar("Choice")

SCORES_AT_ONCE = 2**23
"""Scores held in memory at a time (32 MiB of float32): a batch of any size is answered in chunks."""


def recommend_by_scores(recommender: Recommender, score: Score, requests: Requests, k: int) -> Recommendations:
    """Answers requests from dense scores.

    Args:
        recommender: Its catalog size and filters hold.
        score: Of its items.
        requests: Any number.
        k: Items a request.

    Raises:
        ValueError: As `Recommender.recommend`.
    """
    check_request(recommender, requests, k)
    width = max(1, SCORES_AT_ONCE // recommender.num_items)
    parts = []
    # An empty batch still makes one part, for its shapes.
    for start in range(0, max(1, len(requests)), width):
        rows = np.arange(start, min(start + width, len(requests)))
        part = requests.take(rows)
        allowed = allowed_items(recommender.filters, part, recommender.num_items)
        parts.append(top_k(score(part.histories), allowed, k))
    return Recommendations(
        np.concatenate([part.item_index for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.num_valid for part in parts]),
    )


def decay_weights(histories: Histories, num_items: int, decay: float) -> csr_matrix:
    """(B, num_items) float32, decay^age summed over each item of a history; age 0 for the newest.

    >>> decay_weights(Histories.from_lists([[0, 1], []]), 3, 0.5).toarray().tolist()
    [[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    age = histories.offsets[1:][histories.row_of_value()] - 1 - np.arange(len(histories.values))
    weights = np.power(float(decay), age).astype(np.float32)
    # A copy of the item numbers: scipy would sort and merge them in place.
    return csr_matrix((weights, histories.values.copy(), histories.offsets), (len(histories), num_items))


def choose(
    candidates: Mapping[Choice, Score], num_items: int, valid: Cases, max_cases: int
) -> tuple[Choice, dict[Choice, float]]:
    """The way to score with the best NDCG@10 on validation, history masked; of equals the first.

    Args:
        candidates: Setting -> what it makes of histories.
        num_items: In the catalog.
        valid: Validation cases; without any all candidates are equal.
        max_cases: Cases to look at, evenly spaced.

    Returns:
        The setting, and every candidate's mean NDCG@10.

    Raises:
        ValueError: If a score is NaN or +inf: it is ahead of nothing, and would flatter its model.
    """
    if len(valid) > max_cases:
        valid = valid.take(np.linspace(0, len(valid) - 1, max_cases).astype(np.int64))
    ndcg = {one: _mean_ndcg(score, num_items, valid) for one, score in candidates.items()}
    return max(ndcg, key=lambda one: ndcg[one]), ndcg


def _mean_ndcg(score: Score, num_items: int, cases: Cases) -> float:
    total, width = 0.0, max(1, SCORES_AT_ONCE // num_items)
    for start in range(0, len(cases), width):
        rows = np.arange(start, min(start + width, len(cases)))
        histories, target = cases.histories.take(rows), cases.target[rows]
        allowed = allowed_items({}, Requests(histories), num_items)
        scores = np.where(allowed, score(histories), -np.inf)
        check_scores(scores)
        own = np.take_along_axis(scores, target[:, None], axis=1)
        ahead = (scores > own) | ((scores == own) & (np.arange(num_items) < target[:, None]))
        # A target that is in its own history, or that the model cannot score: rank 0, no gain.
        rank = np.where(np.isfinite(own[:, 0]), ahead.sum(axis=1) + 1, 0)
        total += float(ndcg_at_k(rank, 10).sum())
    return total / max(1, len(cases))
