"""Who learns from whom: no product's label goes into what is said about that product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_FOLDS = 10


@dataclass(frozen=True)
class Folds:
    """N products in folds; a fold is judged by what the others teach.

    Attributes:
        label: (N,) int64 leaf, -1 for a product without one.
        fold: (N,) int64, 0 to num_folds - 1; unlabelled products are in fold num_folds, taught by all others.
        num_folds: Folds of labelled products.
    """

    label: np.ndarray
    fold: np.ndarray
    num_folds: int

    def teachers(self, fold: int) -> np.ndarray:
        """(n,) int64 labelled products outside a fold."""
        return np.flatnonzero((self.label >= 0) & (self.fold != fold))

    def each(self) -> range:
        """All folds, that of unlabelled products too."""
        return range(self.num_folds + 1)


def make_folds(label: np.ndarray, seed: int, num_folds: int = NUM_FOLDS) -> Folds:
    """Every leaf's products spread evenly over the folds, at random within a leaf."""
    known = np.flatnonzero(label >= 0)
    shuffled = np.random.default_rng([seed, 5]).permutation(known)
    ordered = shuffled[np.argsort(label[shuffled], kind="stable")]
    fold = np.full(len(label), num_folds, np.int64)
    fold[ordered] = np.arange(len(ordered)) % num_folds
    return Folds(label, fold, num_folds)
