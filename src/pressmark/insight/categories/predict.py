"""A category for products that have none: down the tree as far as it is sure.

From the top each step takes the branch with most of what lies below the one before. How sure a step is, is
calibrated on products whose category is known and was not shown; a step to a branch that holds no product yet,
on those of leaves that were emptied on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pressmark.insight.categories.empty import Rehearsal, expecting
from pressmark.insight.categories.leaves import Leaves, member
from pressmark.insight.categories.pool import Pool

Curve = Callable[[np.ndarray], np.ndarray]
"""Shares of branches -> how often such branches are right, element by element."""


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


def predict(pool: Pool, rehearsal: Rehearsal, leaves: Leaves, rows: np.ndarray) -> Prediction:
    """Paths of products.

    Args:
        pool: What the sources say.
        rehearsal: What confidence is calibrated on.
        leaves: Leaves, and labels of the others.
        rows: (n,) int64 item_index, products without a label, or with one that the sources have not seen.
    """
    pool, rehearsal = expecting(pool, rehearsal, rows)
    full, hollow = calibrate(rehearsal, leaves)
    found = [descend(likely, leaves) for _, likely in pool.by_blocks(rows, "categories")]
    if not found:
        return Prediction(np.empty(0, np.int64), np.empty((0, len(leaves.groups))))
    leaf, share = (np.concatenate(one) for one in zip(*found, strict=True))
    sure = np.where(_hollow(pool, leaves)[:, leaf].T, hollow(share), full(share))
    return Prediction(leaf, np.minimum.accumulate(sure, axis=1))


def calibrate(rehearsal: Rehearsal, leaves: Leaves) -> tuple[Curve, Curve]:
    """Share of a branch -> how often the branch is right; it only grows.

    Returns:
        Of branches with products, and of those without; the first for both where none was rehearsed.
    """
    shares, leaf = [], []
    for _, likely in rehearsal.pool.by_blocks(rehearsal.rows, "calibration"):
        chosen, share = descend(likely, leaves)
        leaf.append(chosen)
        shares.append(share)
    share, step = np.concatenate(shares), leaves.groups[:, np.concatenate(leaf)].T
    right = step == leaves.groups[:, leaves.label[rehearsal.rows]].T
    weight = np.repeat(rehearsal.weight[:, None], share.shape[1], axis=1)
    hollow = _hollow(rehearsal.pool, leaves)[:, np.concatenate(leaf)].T
    full = _curve(share[~hollow], right[~hollow], weight[~hollow])
    return full, _curve(share[hollow], right[hollow], weight[hollow]) if hollow.any() else full


def _curve(share: np.ndarray, right: np.ndarray, weight: np.ndarray) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(share, right.astype(float), weight)
    return lambda asked: model.predict(asked.ravel()).reshape(asked.shape)


def _hollow(pool: Pool, leaves: Leaves) -> np.ndarray:
    """(D, C) bool: the branch of the first d + 1 names of leaf c has nothing but empty leaves."""
    if pool.empty is None:
        return np.zeros(leaves.groups.shape, bool)
    return np.stack([np.bincount(group, ~pool.empty.leaf)[group] == 0 for group in leaves.groups])
