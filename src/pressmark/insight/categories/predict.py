"""A category for products that have none: down the tree as far as it is sure.

From the top each step takes the branch with most of what lies below the one before. How sure a step is, is
calibrated on products whose category is known and was not shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pressmark.insight.categories.leaves import Leaves, member
from pressmark.insight.categories.pool import Pool

NUM_CHECKED = 4000


@dataclass(frozen=True)
class Prediction:
    """Paths for n products, D the depth of the deepest leaf.

    Attributes:
        leaf: (n,) int64.
        confidence: (n, D) float64: probability that the first d + 1 names are right; never grows with depth,
            and stays where a path has ended.
    """

    leaf: np.ndarray
    confidence: np.ndarray

    def sure_depth(self, leaves: Leaves, least: float) -> np.ndarray:
        """(n,) int64 names of the path that are right with at least some confidence; 0 for none."""
        deep = (self.confidence >= least).sum(axis=1)
        return np.minimum(deep, leaves.depth[self.leaf])


def descend(likely: np.ndarray, leaves: Leaves) -> tuple[np.ndarray, np.ndarray]:
    """Branch after branch, the largest each time.

    Args:
        likely: (n, C) shares of the leaves.
        leaves: The leaves.

    Returns:
        (n,) int64 leaf, and (n, D) float64 share below each step.
    """
    row, inside = np.arange(len(likely)), likely.astype(np.float64)
    shares = []
    for group in leaves.groups:
        mass = inside @ member(group)
        best = mass.argmax(axis=1)
        shares.append(mass[row, best])
        inside = np.where(group[None, :] == best[:, None], inside, 0.0)
    return inside.argmax(axis=1), np.stack(shares, axis=1)


def predict(pool: Pool, leaves: Leaves, rows: np.ndarray, seed: int) -> Prediction:
    """Paths of products.

    Args:
        pool: What the sources say.
        leaves: Leaves, and labels of the others.
        rows: (n,) int64 item_index, products without a label, or with one that the sources have not seen.
        seed: Of the labelled products that confidence is calibrated on.
    """
    calibrated = calibrate(pool, leaves, seed)
    found = [descend(likely, leaves) for _, likely in pool.by_blocks(rows, "categories")]
    if not found:
        return Prediction(np.empty(0, np.int64), np.empty((0, len(leaves.groups))))
    leaf, share = (np.concatenate(one) for one in zip(*found, strict=True))
    return Prediction(leaf, np.minimum.accumulate(calibrated(share), axis=1))


def calibrate(pool: Pool, leaves: Leaves, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Share of a branch -> how often the branch is right, over labelled products; it only grows."""
    from sklearn.isotonic import IsotonicRegression

    known = np.flatnonzero(leaves.labelled)
    rows = np.sort(np.random.default_rng([seed, 8]).permutation(known)[:NUM_CHECKED])
    shares, right = [], []
    for some, likely in pool.by_blocks(rows, "calibration"):
        leaf, share = descend(likely, leaves)
        shares.append(share)
        right.append(leaves.groups[:, leaf].T == leaves.groups[:, leaves.label[some]].T)
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(np.concatenate(shares).ravel(), np.concatenate(right).ravel().astype(float))
    return lambda share: model.predict(share.ravel()).reshape(share.shape)
