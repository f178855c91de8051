"""Leaves that hold no product yet: whom to believe about them, learnt from leaves emptied on purpose.

Every source that learns from labels speaks against a leaf without any, so that a pool fitted on products that
have a label hardly names one. Here some leaves lose all their products, the sources are made again without
them, and the emptied leaves get an offset and weights of their own for the sources that read names: those
under which the products that were there, and those that were not, are likeliest to stand where they do. How
many of the products in question belong to empty leaves is read off what the pool says of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit

from pressmark.insight.categories.leaves import Leaves
from pressmark.insight.categories.pool import NUM_FITTED, Empty, Pool, fit_pool
from pressmark.insight.categories.sources import Source

SHARE_EMPTIED = 0.1
"""Of the leaves that are no larger than the mean: what is new is small."""
FEWEST_EMPTIED = 2
TOO_FEW = (
    f"too few others hold products to learn how far names can be believed. {SHARE_EMPTIED:.0%} of them are "
    f"emptied on purpose for that, at least {FEWEST_EMPTIED}: it takes some 15."
)
NUM_BELIEVED = 10
"""Products, as many as which what was expected counts beside those in question."""

STEP = 0.05
"""Of the log odds that a share is tried at."""

Ask = Callable[[Leaves], Sequence[Source]]
"""Makes the sources for a catalog's labels."""


@dataclass(frozen=True)
class Rehearsal:
    """Labelled products that are asked for as if they had no label, to see how often an answer is right.

    Attributes:
        pool: Who answers; it has not seen the labels of `rows`.
        rows: (n,) int64 item_index.
        weight: (n,) float64: how many products of the catalog each stands for.
        emptied: (n,) bool products of leaves that were emptied on purpose.
    """

    pool: Pool
    rows: np.ndarray
    weight: np.ndarray
    emptied: np.ndarray

    @property
    def share_emptied(self) -> float:
        """Of the products stood for."""
        return float(self.weight[self.emptied].sum() / self.weight.sum())


def fit(ask: Ask, leaves: Leaves, seed: int) -> tuple[Pool, Rehearsal]:
    """A pool for all leaves, those without products too, and what its confidence can be measured on.

    Args:
        ask: Makes the sources; called twice where a leaf is empty.
        leaves: The leaves, and who stands where.
        seed: Which products and leaves are drawn.
    """
    pool = fit_pool(ask(leaves), leaves.label, seed)
    rng = np.random.default_rng([seed, 13])
    emptied = _emptied(leaves, rng)
    if leaves.counts.all() or len(emptied) < FEWEST_EMPTIED:
        rows = _some(np.flatnonzero(leaves.labelled), rng)
        return pool, Rehearsal(pool, rows, np.ones(len(rows)), np.zeros(len(rows), bool))
    gone = np.isin(leaves.label, emptied)
    without = replace(leaves, label=np.where(gone, -1, leaves.label))
    there, left = _some(np.flatnonzero(gone), rng), _some(np.flatnonzero(without.labelled), rng)
    rows = np.concatenate([there, left])
    emptied_rows = gone[rows]
    weight = np.where(emptied_rows, gone.sum() / len(there), without.labelled.sum() / len(left))
    asked = replace(pool, sources=tuple(ask(without)))
    found = _fit(asked, without.counts == 0, rows, leaves.label[rows], weight)
    rehearsal = Rehearsal(replace(asked, empty=found), rows, weight, emptied_rows)
    return replace(pool, empty=replace(found, leaf=leaves.counts == 0)), rehearsal


def expecting(pool: Pool, rehearsal: Rehearsal, rows: np.ndarray) -> tuple[Pool, Rehearsal]:
    """Both as if as many products belonged to empty leaves as do of those in question.

    An empty leaf is expected to hold as many products as one that was emptied, until what the pool says of
    products shows that more or fewer of them belong to such leaves. A product's answer then depends, a little,
    on which others are asked for.

    Args:
        pool: As `fit` made it.
        rehearsal: The same.
        rows: (n,) int64 item_index of the products in question.

    Source: Saerens, Latinne and Decaestecker 2002, who take the likeliest share in place of the mean.
    """
    if pool.empty is None or rehearsal.pool.empty is None or not len(rows):
        return pool, rehearsal
    leaf, share = pool.empty.leaf, rehearsal.share_emptied
    before = share * leaf.sum() / rehearsal.pool.empty.leaf.sum()
    said = np.concatenate([likely[:, leaf].sum(axis=1) for _, likely in pool.by_blocks(rows, "empty leaves")])
    said = logit(np.clip(said.astype(np.float64), 1e-9, 1 - 1e-9))
    shift = float(logit(share_of(said - logit(before), before)) - logit(before))
    after = float(expit(logit(share) + shift))
    weight = rehearsal.weight * np.where(rehearsal.emptied, after / share, (1 - after) / (1 - share))
    return _shifted(pool, shift), replace(rehearsal, pool=_shifted(rehearsal.pool, shift), weight=weight)


def share_of(ratio: np.ndarray, before: float) -> float:
    """Mean of a share, as products tell it, from a beta distribution with `before` as its mean.

    Not the likeliest share, which evidence that hardly tells the two kinds apart can put anywhere: where
    nothing is told, what was expected stays.

    Args:
        ratio: (n,) log of how much likelier each product is if it is of the kind than if it is not.
        before: The share expected before.
    """
    odds = np.arange(-30, 20, STEP)
    yes, no = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    height = NUM_BELIEVED * (before * yes + (1 - before) * no)
    height += [np.logaddexp(one + ratio, other).sum() for one, other in zip(yes, no, strict=True)]
    weight = np.exp(height - height.max())
    weight[0] *= 1 + 1 / (NUM_BELIEVED * before * STEP)  # all that lies below, where the share is nothing
    return float(np.clip(weight @ np.exp(yes) / weight.sum(), 1e-9, 1 - 1e-9))


def _shifted(pool: Pool, by: float) -> Pool:
    assert pool.empty is not None
    return replace(pool, empty=replace(pool.empty, offset=pool.empty.offset + by))


def _emptied(leaves: Leaves, rng: np.random.Generator) -> np.ndarray:
    held = leaves.counts[leaves.counts > 0]
    small = np.flatnonzero((leaves.counts > 0) & (leaves.counts <= held.mean()))
    return rng.choice(small, min(len(small), round(SHARE_EMPTIED * len(held))), replace=False)


def _some(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(rows)[:NUM_FITTED])


def _fit(pool: Pool, leaf: np.ndarray, rows: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Empty:
    """How to speak of empty leaves, (C,) bool, under which products' labels are likeliest."""
    shares = np.stack([source(rows) for source in pool.sources])  # (S, n, C)
    reads = np.array([source.reads_names for source in pool.sources])
    held = torch.from_numpy(np.tensordot(pool.weights, shares[:, :, ~leaf], 1))
    offered = torch.from_numpy(shares[reads][:, :, leaf].astype(np.float64))
    place = np.argsort(np.argsort(leaf, kind="stable"))  # (C,): full leaves first, then empty ones
    target, mass = torch.from_numpy(place[label]), torch.from_numpy(weight / weight.sum())
    wrong = pool.share_unexplained

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        values = torch.tensor(free, requires_grad=True)
        scores = values[-1] + torch.tensordot(torch.nn.functional.softplus(values[:-1]), offered, 1)
        likely = torch.softmax(torch.cat([held, scores], dim=1), dim=1).gather(1, target[:, None])[:, 0]
        total = -(mass * ((1 - wrong) * likely + wrong / len(leaf)).log()).sum()
        total.backward()
        assert values.grad is not None
        return float(total.detach()), values.grad.numpy()

    start = np.append(np.full(reads.sum(), -1.5), 0.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    weights = np.zeros(len(reads))
    weights[reads] = np.logaddexp(0, found[:-1])
    return Empty(leaf, weights, float(found[-1]))
