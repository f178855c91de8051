"""Popularity: the same list for everybody, most bought first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pressmark.baselines.dense import recommend_by_scores
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests


@dataclass(frozen=True)
class Config:
    """Popularity has nothing to choose."""


@dataclass
class Popularity:
    """Ranks items by their interactions in training; equal counts: lower item_index first.

    An item that nobody bought scores 0, so every item has a place.

    Attributes:
        counts: (num_items,) float32.
        filters: name -> (num_items,) bool.
    """

    counts: np.ndarray
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_items: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_items = len(self.counts)

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The most popular allowed items of each request."""
        return recommend_by_scores(self, self._scores, requests, k)

    def _scores(self, histories: Histories) -> np.ndarray:
        return np.broadcast_to(self.counts, (len(histories), self.num_items))


def count_items(train: Histories, num_items: int) -> np.ndarray:
    """How often each item was bought in training.

    Returns:
        (num_items,) float32, exact up to 2^24 purchases of an item.

    >>> count_items(Histories.from_lists([[2, 0], [2]]), 4).tolist()
    [1.0, 0.0, 2.0, 0.0]
    """
    return np.bincount(train.values, minlength=num_items).astype(np.float32)


def load_popularity(run: Path, config: Config | None = None) -> Popularity:
    """Popularity from the training interactions of a run folder."""
    from pressmark.catalog.items import read_catalog
    from pressmark.interactions.splits import read_split

    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    return Popularity(count_items(split.train, len(catalog)))
