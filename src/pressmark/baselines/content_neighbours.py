"""Content neighbours: products whose text is like what the shopper bought last. Knows no other shopper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pressmark.baselines.dense import choose, decay_weights, recommend_by_scores
from pressmark.baselines.popularity import count_items
from pressmark.catalog.embeddings import unit_rows
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests
from pressmark.settings import at_least

if TYPE_CHECKING:
    from pressmark.interactions.cases import Cases


@dataclass(frozen=True)
class Config:
    """How a history becomes one vector.

    Attributes:
        decays: Weights of an item relative to the next newer one, to choose among on validation;
            0 = the newest item alone, 1 = the plain mean. A single value is taken as it is.
        max_cases: Validation cases, evenly spaced, that the choice is made on.
    """

    decays: tuple[float, ...] = (0.0, 0.2, 0.5, 0.8)
    max_cases: int = 4000

    def __post_init__(self) -> None:
        if not self.decays or not all(0 <= decay <= 1 for decay in self.decays):
            raise ValueError(f"content_neighbours.decays is {self.decays}; give values from 0 to 1.")
        at_least("content_neighbours", self, max_cases=1)


@dataclass
class ContentNeighbours:
    """Cosine of every item to the exponentially decayed mean of the history's vectors.

    A history that says nothing (empty, or without any text) is answered by popularity.

    Attributes:
        vectors: (num_items, D) float32 of length 1, or 0 for an item without text.
        popularity: (num_items,) float32, training interactions.
        decay: Weight of an item relative to the next newer one.
        filters: name -> (num_items,) bool.
    """

    vectors: np.ndarray
    popularity: np.ndarray
    decay: float
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_items: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_items = len(self.vectors)

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The allowed items that are most like each history."""
        return recommend_by_scores(self, self.scores, requests, k)

    def scores(self, histories: Histories) -> np.ndarray:
        """(B, num_items) float32: cosines, or training interactions for a history that says nothing."""
        means = unit_rows(decayed_mean(histories, self.vectors, self.decay))
        scores = means @ self.vectors.T
        scores[~means.any(axis=1)] = self.popularity
        return scores


def with_items(model: ContentNeighbours, vectors: np.ndarray) -> ContentNeighbours:
    """The same model with n more items behind its own, which nobody has bought.

    Args:
        model: Over N items.
        vectors: (n, D) float32 of the new ones.
    """
    return ContentNeighbours(
        np.concatenate([model.vectors, unit_rows(vectors)]),
        np.append(model.popularity, np.zeros(len(vectors), np.float32)),
        model.decay,
    )


def decayed_mean(histories: Histories, vectors: np.ndarray, decay: float) -> np.ndarray:
    """Sum of decay^age * vector over each history, age 0 for the newest item; its direction is the mean's.

    Args:
        histories: B histories.
        vectors: (N, D) float32.
        decay: From 0 to 1.

    Returns:
        (B, D) float32; zeros for an empty history.

    >>> decayed_mean(Histories.from_lists([[0, 1], []]), np.eye(2, dtype=np.float32), 0.5).tolist()
    [[0.5, 1.0], [0.0, 0.0]]
    """
    return np.asarray(decay_weights(histories, len(vectors), decay) @ vectors)


def choose_decay(
    vectors: np.ndarray, popularity: np.ndarray, valid: Cases, decays: Sequence[float], max_cases: int = 4000
) -> tuple[float, dict[float, float]]:
    """The decay with the best NDCG@10 on validation; of equals the first.

    Args:
        vectors: (N, D) float32 unit rows.
        popularity: (N,) float32.
        valid: Validation cases.
        decays: Candidates.
        max_cases: Cases to look at, evenly spaced.

    Returns:
        The decay, and every candidate's mean NDCG@10 with the history masked.
    """
    models = {decay: ContentNeighbours(vectors, popularity, decay).scores for decay in decays}
    return choose(models, len(vectors), valid, max_cases)


def load_content_neighbours(run: Path) -> ContentNeighbours:
    """Content neighbours from a run folder's vectors, with the decay chosen on its validation cases."""
    from pressmark.catalog.embeddings import read_vectors
    from pressmark.catalog.items import read_catalog
    from pressmark.interactions.split_files import read_split

    config = Config()
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    vectors, popularity = unit_rows(read_vectors(run)), count_items(split.train, len(catalog))
    decay = config.decays[0]
    if len(config.decays) > 1 and len(split.valid):
        decay, _ = choose_decay(vectors, popularity, split.valid, config.decays, config.max_cases)
    return ContentNeighbours(vectors, popularity, decay)
