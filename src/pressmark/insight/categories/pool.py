"""Several sources as one distribution over the leaves: a product of powers, fitted by maximum likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import softmax
from tqdm import tqdm

from pressmark.insight.categories.sources import Source

NUM_FITTED = 4000
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Empty:
    """Leaves without products, of which a pool speaks in its own way; `empty.fit` finds it.

    Attributes:
        leaf: (C,) bool.
        weights: (S,) float64 of the sources, none negative.
        offset: Added to their log shares.
    """

    leaf: np.ndarray
    weights: np.ndarray
    offset: float


@dataclass(frozen=True)
class Pool:
    """p(leaf | product), proportional to the sources' shares to the power of their weights.

    Attributes:
        sources: Who is asked.
        weights: (S,) float64, none negative; they calibrate too: confident sources get less.
        share_unexplained: Of the labels, as the fit has it: those that no source explains.
        empty: Leaves without products, which have weights of their own; None where all go by the same.
    """

    sources: tuple[Source, ...]
    weights: np.ndarray
    share_unexplained: float
    empty: Empty | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64 item_index -> (n, C) float32 shares."""
        asked = [source(rows) for source in self.sources]
        total = sum(weight * shares for weight, shares in zip(self.weights, asked, strict=True))
        if self.empty:
            own = zip(self.empty.weights, asked, strict=True)
            total[:, self.empty.leaf] = self.empty.offset + sum(
                weight * shares[:, self.empty.leaf] for weight, shares in own
            )
        return softmax(total, axis=1).astype(np.float32)

    def by_blocks(self, rows: np.ndarray, what: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Some rows at a time with their shares, with a progress bar."""
        for start in tqdm(range(0, len(rows), ROWS_AT_ONCE), desc=what, unit="block", disable=None):
            some = rows[start : start + ROWS_AT_ONCE]
            yield some, self(some)

    def as_record(self) -> Mapping[str, float]:
        """Weight by source."""
        return {source.name: float(weight) for source, weight in zip(self.sources, self.weights, strict=True)}


def fit_pool(sources: Sequence[Source], label: np.ndarray, seed: int) -> Pool:
    """Weights under which the labels are likeliest, given that some labels are wrong.

    A share of the labels, fitted too, is explained by chance alone (any leaf): otherwise a few wrong labels,
    which no source finds likely, would make every source look unsure.

    Args:
        sources: Who is asked.
        label: (N,) int64, -1 where there is none.
        seed: Which labelled products the weights are fitted on.
    """
    known = np.flatnonzero(label >= 0)
    rows = np.sort(np.random.default_rng([seed, 6]).permutation(known)[:NUM_FITTED])
    shares = torch.from_numpy(np.stack([source(rows) for source in sources]))  # (S, n, C)
    target = torch.from_numpy(label[rows])
    start = np.append(np.full(len(sources), -1.5), -3.0)

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        values = torch.tensor(free, dtype=torch.float32, requires_grad=True)
        weights, wrong = torch.nn.functional.softplus(values[:-1]), torch.sigmoid(values[-1])
        likely = torch.softmax(torch.tensordot(weights, shares, 1), dim=1)
        likely = likely.gather(1, target[:, None])[:, 0]
        total = -((1 - wrong) * likely + wrong / shares.shape[2]).log().mean()
        total.backward()
        assert values.grad is not None
        return float(total.detach()), values.grad.numpy().astype(np.float64)

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return Pool(tuple(sources), np.logaddexp(0, found[:-1]), float(1 / (1 + np.exp(-found[-1]))))
