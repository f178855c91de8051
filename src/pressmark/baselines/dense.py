"""Rank a catalog by scores that a baseline computes for every item."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Recommender, Requests, allowed_items, check_request, top_k

SCORES_AT_ONCE = 2**23
"""Scores held in memory at a time (32 MiB of float32): a batch of any size is answered in chunks."""


def recommend_by_scores(
    recommender: Recommender, score: Callable[[Histories], np.ndarray], requests: Requests, k: int
) -> Recommendations:
    """Answers requests from dense scores.

    Args:
        recommender: Its catalog size and filters hold.
        score: B histories -> (B, num_items) float32, finite.
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
        part = dataclasses.replace(requests, histories=requests.histories.take(rows))
        allowed = allowed_items(recommender.filters, part, recommender.num_items)
        parts.append(top_k(score(part.histories), allowed, k))
    return Recommendations(
        np.concatenate([part.item_index for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.num_valid for part in parts]),
    )
