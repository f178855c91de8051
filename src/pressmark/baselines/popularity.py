"""Popularity: the same list for everybody, most bought first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pressmark.baselines.dense import choose, recommend_by_scores
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests

DAY = 86_400.0
"""Seconds."""


@dataclass(frozen=True)
class Config:
    """How long a purchase counts.

    Attributes:
        half_lives: Days after which a purchase counts half, to choose among on validation; 0 = all count
            alike. Only 0 is tried where purchases have no time.
        max_cases: Validation cases, evenly spaced, that the choice is made on.
    """

    half_lives: tuple[float, ...] = (0.0, 30.0, 90.0, 365.0)
    max_cases: int = 4000

    def __post_init__(self) -> None:
        if not self.half_lives or not all(0 <= days < float("inf") for days in self.half_lives):
            raise ValueError(f"popularity.half_lives is {self.half_lives}; give days, 0 or above.")


@dataclass
class Popularity:
    """Ranks items by their interactions in training, old ones counting less; equal: lower item_index first.

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
        return recommend_by_scores(self, self.scores, requests, k)

    def scores(self, histories: Histories) -> np.ndarray:
        """(B, num_items) float32, the same for each history."""
        return np.broadcast_to(self.counts, (len(histories), self.num_items))


def count_items(train: Histories, num_items: int) -> np.ndarray:
    """How often each item was bought in training.

    Returns:
        (num_items,) float32, exact up to 2^24 purchases of an item.

    >>> count_items(Histories.from_lists([[2, 0], [2]]), 4).tolist()
    [1.0, 0.0, 2.0, 0.0]
    """
    return np.bincount(train.values, minlength=num_items).astype(np.float32)


def recent_counts(item: np.ndarray, timestamp: np.ndarray, num_items: int, half_life: float) -> np.ndarray:
    """How often each item was bought, a purchase counting half for each `half_life` of its age.

    Args:
        item: (P,) int64 item_index of purchases.
        timestamp: (P,) float64 seconds; those that have none, NaN, are left out.
        num_items: In the catalog.
        half_life: Days; 0 counts all alike, those without a time too.

    Returns:
        (num_items,) float32.
    """
    if not half_life:
        return np.bincount(item, minlength=num_items).astype(np.float32)
    known = ~np.isnan(timestamp)
    time = timestamp[known]
    weight = np.exp2((time - time.max(initial=-np.inf)) / (half_life * DAY))
    return np.bincount(item[known], weight, num_items).astype(np.float32)


def load_popularity(run: Path) -> Popularity:
    """Popularity from the purchases that are past when the test asks, half-life chosen on validation cases."""
    from pressmark.catalog.items import read_catalog
    from pressmark.interactions.split_files import read_split

    config = Config()
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    timeless = bool(np.isnan(split.train_timestamp).all())
    half_lives = [0.0] if timeless else list(config.half_lives)
    best = half_lives[0]
    if len(half_lives) > 1:
        past = split.purchases("valid")
        models = {days: Popularity(recent_counts(*past, len(catalog), days)) for days in half_lives}
        scores = {days: model.scores for days, model in models.items()}
        best, _ = choose(scores, len(catalog), split.valid, config.max_cases)
    return Popularity(recent_counts(*split.purchases("test"), len(catalog), best))
