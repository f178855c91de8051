"""BM25: products whose text holds the words of what the shopper bought last. Knows no other shopper.

The history's products are the query, a word counting by how new the product is that brings it. What is fitted
(which words there are, how rare each is, how long a text is) comes from the items that may be looked at alone;
libraries such as bm25s index a catalog with its own statistics, cold products and all, so the weights are
written out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, diags

from pressmark.baselines.dense import SCORES_AT_ONCE, choose, decay_weights, recommend_by_scores
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests


@dataclass(frozen=True)
class Config:
    """How texts are matched.

    Attributes:
        decays: As in content neighbours: how much an item's words count relative to the next newer one's, to
            choose among on validation; 0 = the newest item alone.
        k1: How soon more of the same word stops counting.
        b: How much a long text is held against its words, 0 to 1.
        max_cases: Validation cases, evenly spaced, that the choice is made on.
    """

    decays: tuple[float, ...] = (0.0, 0.2, 0.5, 0.8)
    k1: float = 1.2
    b: float = 0.75
    max_cases: int = 4000

    def __post_init__(self) -> None:
        if not self.decays or not all(0 <= decay <= 1 for decay in self.decays):
            raise ValueError(f"bm25.decays is {self.decays}; give values from 0 to 1.")
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise ValueError(f"bm25.k1 is {self.k1} and b {self.b}; k1 must be 0 or above, b from 0 to 1.")


@dataclass
class BM25:
    """Okapi BM25 of every item's text for the words of a history.

    A history without any known word is answered by popularity.

    Attributes:
        words: (num_items, V) bool, which words an item's text holds.
        weights: (num_items, V) float32, what each of its words is worth to a text.
        popularity: (num_items,) float32, training interactions.
        decay: Weight of an item's words relative to the next newer one's.
        filters: name -> (num_items,) bool.
    """

    words: csr_matrix
    weights: csr_matrix
    popularity: np.ndarray
    decay: float
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_items: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_items = self.weights.shape[0]

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The allowed items whose texts hold the most of each history's words."""
        return recommend_by_scores(self, self.scores, requests, k)

    def scores(self, histories: Histories) -> np.ndarray:
        """(B, num_items) float32: BM25, or training interactions for a history that says nothing."""
        query = decay_weights(histories, self.num_items, self.decay) @ self.words
        scores = matched(query, self.weights)
        scores[np.diff(query.indptr) == 0] = self.popularity
        return scores


def matched(query: csr_matrix, texts: csr_matrix) -> np.ndarray:
    """What every text has of the words that are asked for.

    For queries of many words and a whole catalog: nearly every text has one of them, so the product of two
    sparse matrices would not be sparse. The words that are asked for are laid out densely.

    Args:
        query: (B, V) float32.
        texts: (N, V) float32.

    Returns:
        (B, N) float32.
    """
    width = max(1, SCORES_AT_ONCE // query.shape[1])
    found = np.empty((query.shape[0], texts.shape[0]), np.float32)
    for start in range(0, len(found), width):
        asked = query[start : start + width].toarray()
        found[start : start + width] = (texts @ np.ascontiguousarray(asked.T)).T
    return found


def bm25_weights(counts: csr_matrix, fitted_on: np.ndarray, k1: float, b: float) -> csr_matrix:
    """What each word of each text is worth.

    Args:
        counts: (N, V) how often a word stands in a text.
        fitted_on: (N,) bool, the texts that rarity and mean length are taken from.
        k1: As in `Config`.
        b: As in `Config`.

    Returns:
        (N, V) float32, never negative.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", equation 3.15, with one added
    inside the logarithm of the rarity so that frequent words are worth little instead of less than nothing.
    """
    counts = counts.astype(np.float32)
    fitted = counts[fitted_on]
    num = fitted.shape[0]
    holding = np.bincount(fitted.indices, minlength=counts.shape[1])
    rarity = np.log1p((num - holding + 0.5) / (holding + 0.5)).astype(np.float32)
    length = np.asarray(counts.sum(axis=1)).ravel()
    typical = float(length[fitted_on].mean()) if num else 1.0
    slack = k1 * (1 - b + b * length / max(typical, 1e-9))
    weights = counts.copy()
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    weights.data = counts.data * (k1 + 1) / (counts.data + slack[row])
    return csr_matrix(weights @ diags(rarity), dtype=np.float32)


def fit(
    texts: Sequence[str], fitted_on: np.ndarray, popularity: np.ndarray, decay: float, config: Config
) -> BM25:
    """BM25 over the texts of N items; words that no fitted text holds are not known."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    try:
        vectorizer.fit(text for text, seen in zip(texts, fitted_on, strict=True) if seen)
        counts = csr_matrix(vectorizer.transform(texts))
    except ValueError:  # not a word in any text
        counts = csr_matrix((len(texts), 1), dtype=np.float32)
    return BM25(counts.sign(), bm25_weights(counts, fitted_on, config.k1, config.b), popularity, decay)


def load_bm25(run: Path) -> BM25:
    """BM25 over all that is written about a run's items, with the decay chosen on its validation cases."""
    from pressmark.baselines.popularity import count_items
    from pressmark.catalog.embeddings import item_texts
    from pressmark.catalog.items import read_catalog
    from pressmark.interactions.split_files import read_split

    config = Config()
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    popularity = count_items(split.train, len(catalog))
    model = fit(item_texts(catalog), split.fitted_on, popularity, config.decays[0], config)
    if len(config.decays) > 1:
        scores = {one: replace(model, decay=one).scores for one in config.decays}
        model.decay, _ = choose(scores, len(catalog), split.valid, config.max_cases)
    return model
