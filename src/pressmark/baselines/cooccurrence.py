"""Item-item co-occurrence: what was bought near the shopper's items by others. Knows no text.

Either two items are as alike as the sequences that hold both within a few purchases of each other, over the
root of how often each sells: cosine of the two. Or an item is followed by others, the more the sooner: a Markov
chain that passes over purchases (`transitions`). Validation says which. An item that was bought with nothing
else is like nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from pressmark.baselines.dense import choose, decay_weights, recommend_by_scores
from pressmark.baselines.popularity import count_items
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests

FOLLOWING = 10
"""Purchases apart, at most, that still count as one after the other."""


@dataclass(frozen=True)
class Config:
    """How near is near.

    Attributes:
        windows: Purchases apart, at most, that still count as together, to choose among on validation;
            0 = anywhere in the same sequence. Transitions stand beside them.
        decays: As in content neighbours, to choose among on validation.
        shrinkage: Added to each pair's product of sales under the root: pairs seen once count less.
        max_cases: Validation cases, evenly spaced, that the choice is made on.
    """

    windows: tuple[int, ...] = (1, 3, 10)
    decays: tuple[float, ...] = (0.2, 0.5, 0.8)
    shrinkage: float = 1.0
    max_cases: int = 4000

    def __post_init__(self) -> None:
        if not self.decays or not all(0 <= decay <= 1 for decay in self.decays):
            raise ValueError(f"cooccurrence.decays is {self.decays}; give values from 0 to 1.")
        if not self.windows or min(self.windows) < 0 or self.shrinkage < 0:
            raise ValueError(
                f"cooccurrence.windows is {self.windows} and shrinkage {self.shrinkage}; "
                "both must be 0 or above."
            )


@dataclass
class Cooccurrence:
    """Sum of each history's items' likeness to every item, the newest counting most.

    What is like nothing in the history stands behind what is, the most popular first.

    Attributes:
        likeness: (num_items, num_items) float32, 0 on the diagonal: of a row's item in a history to others.
        popularity: (num_items,) float32, training interactions.
        decay: Weight of an item relative to the next newer one.
        filters: name -> (num_items,) bool.
    """

    likeness: csr_matrix
    popularity: np.ndarray
    decay: float
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_items: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_items = len(self.popularity)
        # From -1 to 0, so that no likeness, however small, is outdone by what merely sells.
        self._behind = (self.popularity / (1 + self.popularity.max(initial=0.0)) - 1).astype(np.float32)

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The allowed items that were bought most with each history's."""
        return recommend_by_scores(self, self.scores, requests, k)

    def scores(self, histories: Histories) -> np.ndarray:
        """(B, num_items) float32."""
        query = decay_weights(histories, self.num_items, self.decay)
        scores = (query @ self.likeness).toarray().astype(np.float32)
        return np.where(scores > 0, scores, self._behind)


def likeness(train: Histories, num_items: int, window: int, shrinkage: float) -> csr_matrix:
    """How often items were bought near each other, over the root of how often each was bought.

    Args:
        train: Training sequences.
        num_items: N.
        window: Purchases apart, at most; 0 = the same sequence.
        shrinkage: Added to the product of the counts under the root.

    Returns:
        (N, N) float32, symmetric, 0 on the diagonal.

    Source: Linden et al. 2003, "Amazon.com Recommendations: Item-to-Item Collaborative Filtering".
    """
    followed = _followed(train, num_items, window, lambda distance: 1.0)
    together = csr_matrix(followed + followed.T)
    count = count_items(train, num_items)
    row = np.repeat(np.arange(num_items), np.diff(together.indptr))
    together.data /= np.sqrt(count[row] * count[together.indices] + shrinkage)
    return together


def transitions(train: Histories, num_items: int) -> csr_matrix:
    """Of what followed an item, the share of each other: pairs up to `FOLLOWING` apart, each 1 / distance.

    Args:
        train: Training sequences.
        num_items: N.

    Returns:
        (N, N) float32, 0 on the diagonal; rows sum to 1, or to 0 where nothing followed.
    """
    followed = _followed(train, num_items, FOLLOWING, lambda distance: 1 / distance)
    total = np.asarray(followed.sum(axis=1)).ravel()
    followed.data /= np.repeat(total, np.diff(followed.indptr))
    return followed


def _followed(train: Histories, num_items: int, window: int, weigh: Callable[[int], float]) -> csr_matrix:
    """(N, N) float32, 0 on the diagonal: how often the column's item came after the row's, by distance."""
    shape = (num_items, num_items)
    followed = csr_matrix(shape, dtype=np.float32)
    row = train.row_of_value()
    longest = int(train.lengths.max(initial=0)) - 1
    for distance in range(1, min(window, longest) + 1 if window else longest + 1):
        same = row[distance:] == row[:-distance]
        weight = np.full(int(same.sum()), weigh(distance), np.float32)
        pairs = train.values[:-distance][same], train.values[distance:][same]
        followed += csr_matrix((weight, pairs), shape)
    followed.setdiag(0)
    followed.eliminate_zeros()
    return followed


def load_cooccurrence(run: Path) -> Cooccurrence:
    """Co-occurrence in a run's training interactions, form and decay chosen on its validation cases."""
    from pressmark.catalog.items import read_catalog
    from pressmark.interactions.split_files import read_split

    config = Config()
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    num_items = len(catalog)
    popularity = count_items(split.train, num_items)
    forms = {str(one): likeness(split.train, num_items, one, config.shrinkage) for one in config.windows}
    forms["transitions"] = transitions(split.train, num_items)
    models = {
        (form, decay): Cooccurrence(alike, popularity, decay)
        for form, alike in forms.items()
        for decay in config.decays
    }
    best, _ = choose(
        {one: model.scores for one, model in models.items()}, num_items, split.valid, config.max_cases
    )
    return models[best]
