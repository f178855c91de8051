"""The seam that every model answers: requests in, ranked items out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from pressmark.interactions.histories import Histories


@dataclass(frozen=True)
class Requests:
    """A batch of B requests.

    Attributes:
        histories: B histories of `item_index`, oldest first; the whole visible history, empty ones too.
            A model may read only the newest items, but masks all of them.
        filter: Name of a filter that the recommender knows (see `Recommender.filters`), or None for the
            whole catalog. It holds for the whole batch.
        mask_history: Remove the items of the history from the answer.
        user_id: (B,) object str who asks, or None. Only the synthetic store's oracle reads it: a model that
            did could not answer new users.
    """

    histories: Histories
    filter: str | None = None
    mask_history: bool = True
    user_id: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.histories)


@dataclass(frozen=True)
class Recommendations:
    """Ranked items, best first.

    Attributes:
        item_index: (B, k) int64, padded with -1 behind the valid items.
        scores: (B, k) float32, never increasing along a row, padded with -inf. Equal scores: lower
            item_index first.
        num_valid: (B,) int64, how many of a row's k places hold an item.
        exact: (B,) bool where the model can prove its top-k, else None.
    """

    item_index: np.ndarray
    scores: np.ndarray
    num_valid: np.ndarray
    exact: np.ndarray | None = None

    def __post_init__(self) -> None:
        valid = np.arange(self.item_index.shape[1]) < self.num_valid[:, None]
        assert self.item_index.dtype == np.int64, self.item_index.dtype
        assert self.scores.dtype == np.float32, self.scores.dtype
        assert ((self.item_index >= 0) == valid).all(), "valid items must stand first and padding be -1"
        # A NaN score would count as "greater than nothing" somewhere and flatter a model.
        assert np.isfinite(self.scores[valid]).all(), "scores of valid items must be finite"


@runtime_checkable
class Recommender(Protocol):
    """Anything that ranks a catalog.

    Attributes:
        num_items: Items in the catalog; item_index runs from 0 to num_items - 1.
        filters: name -> (num_items,) bool mask of the items allowed; fill it by `filters[name] = mask`
            before naming it in a request.
    """

    num_items: int
    filters: dict[str, np.ndarray]

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """Answers each request with its k best items.

        Raises:
            ValueError: If k < 1, an item_index is out of range, or the filter is unknown.
        """
        ...


def check_request(recommender: Recommender, requests: Requests, k: int) -> None:
    """Raises ValueError for a request that no recommender can answer."""
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1.")
    values = requests.histories.values
    if len(values) and (values.min() < 0 or values.max() >= recommender.num_items):
        bad = values[(values < 0) | (values >= recommender.num_items)][0]
        raise ValueError(
            f"history holds item_index {bad}; the catalog has items 0 to {recommender.num_items - 1}."
        )
    if requests.filter is not None and requests.filter not in recommender.filters:
        known = ", ".join(sorted(recommender.filters)) or "none"
        raise ValueError(f"filter {requests.filter!r} is not registered; known filters: {known}.")


def allowed_items(filters: Mapping[str, np.ndarray], requests: Requests, num_items: int) -> np.ndarray:
    """Items each request may be answered with: (B, num_items) bool, from filter and history."""
    base = np.ones(num_items, bool) if requests.filter is None else filters[requests.filter]
    allowed = np.repeat(base[None], len(requests), axis=0)
    if requests.mask_history:
        allowed[requests.histories.row_of_value(), requests.histories.values] = False
    return allowed


def top_k(scores: np.ndarray, allowed: np.ndarray, k: int) -> Recommendations:
    """Ranks dense scores.

    Args:
        scores: (B, num_items) float32, finite where allowed.
        allowed: (B, num_items) bool.
        k: Places a row; more than num_items gives padding.
    """
    scores = np.where(allowed, scores, -np.inf).astype(np.float32)
    num_items = scores.shape[1]
    width = min(k, num_items)
    if width < num_items:
        # argpartition alone would pick arbitrarily among items tied with the k-th score; keep all of them.
        kth = -np.partition(-scores, width - 1, axis=1)[:, width - 1]
    else:
        kth = np.full(len(scores), -np.inf, np.float32)
    item_index = np.full((len(scores), k), -1, np.int64)
    ranked = np.full((len(scores), k), -np.inf, np.float32)
    num_valid = np.minimum(np.isfinite(scores).sum(axis=1), k).astype(np.int64)
    for row in range(len(scores)):
        candidates = np.flatnonzero((scores[row] >= kth[row]) & np.isfinite(scores[row]))
        order = candidates[np.argsort(-scores[row, candidates], kind="stable")][: num_valid[row]]
        item_index[row, : len(order)] = order
        ranked[row, : len(order)] = scores[row, order]
    return Recommendations(item_index, ranked, num_valid)
