"""Experts joined into one distribution over the catalog, fitted by maximum likelihood.

A product that nobody has bought and one that sells are not judged alike: the experts know different things of
them. So each kind has weights of its own for the experts' scores, within it

    p(item | kind, shopper) = softmax over the kind of sum_e weight[kind, e] * score_e(item)

and how likely the shopper's next product is to be of the kind that nobody has bought is a logistic regression
on how much the experts find for this shopper on either side,

    p(unbought | shopper) = sigmoid(r0 + r1 * mass(unbought) + r2 * mass(sold)),  mass(kind) = log sum exp

of the weighted scores. The product of both ranks the catalog. Fitted on cases with items hidden as cold items
are, it puts as many new products before a shopper as shoppers take, and those before the right ones. A shop
that wants its new products seen more raises r0: by as much as costs a stated share of the ranking of those that
sell.

Source: products of experts, Hinton 2002; a conditional logit, McFadden 1974, fitted by Newton's method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pressmark.hybrid.experts import NAMES
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories

Score = Callable[[Histories], Tensor]
"""B histories -> (E, B, N) float32 scores of the experts."""

STEPS = 25
"""Newton steps at most; half a dozen are usual."""

PUSHES = tuple(step / 10 for step in range(41))
"""By how much r0 may be raised."""

RIDGE = 1e-3
"""Squared weights cost so much a case: two experts of one opinion share the weight."""


@dataclass(frozen=True)
class Fusion:
    """The weights.

    Attributes:
        sold: Of the experts' scores of products that sell.
        unbought: Of those of products that nobody has bought.
        route: r0, r1 and r2 above.
    """

    sold: tuple[float, ...]
    unbought: tuple[float, ...]
    route: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.sold) != len(NAMES) or len(self.unbought) != len(NAMES) or len(self.route) != 3:
            raise ValueError(
                f"a fusion has {len(NAMES)} weights for each kind ({', '.join(NAMES)}) and 3 for the route; "
                f"got {len(self.sold)}, {len(self.unbought)} and {len(self.route)}."
            )
        if not np.isfinite([*self.sold, *self.unbought, *self.route]).all():
            raise ValueError(f"a fusion's weights must be finite; got {asdict(self)}.")

    def join(self, scores: Tensor, unbought: Tensor, hidden: Tensor) -> Tensor:
        """Log-probabilities of items.

        Args:
            scores: (E, B, N) of the experts.
            unbought: (N,) bool.
            hidden: (B, N) bool, items that count in no mass: those of the history.

        Returns:
            (B, N) float32; hidden items have what they would have had.
        """
        mixed = self._mixed(scores, unbought)
        mass = _masses(mixed, unbought, hidden)
        empty = [one.isneginf() for one in mass]
        new, sold = (one.masked_fill(none, 0.0) for one, none in zip(mass, empty, strict=True))
        route = self.route[0] + self.route[1] * new + self.route[2] * sold
        # Where nothing of a kind is left the other has all; what is hidden of it keeps a place among its like.
        log_new = F.logsigmoid(route).masked_fill(empty[1], 0.0)
        log_sold = F.logsigmoid(-route).masked_fill(empty[0], 0.0)
        return mixed + torch.where(unbought, (log_new - new)[:, None], (log_sold - sold)[:, None])

    def _mixed(self, scores: Tensor, unbought: Tensor) -> Tensor:
        weights = [
            torch.tensor(one, dtype=scores.dtype, device=scores.device) for one in (self.sold, self.unbought)
        ]
        sold, new = (torch.einsum("e,ebn->bn", one, scores) for one in weights)
        return torch.where(unbought, new, sold)


def _masses(mixed: Tensor, unbought: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) log of the summed exponentials over the unbought and over the sold, hidden items left out.

    -inf where nothing of a kind is left.
    """
    seen = mixed.masked_fill(hidden, -torch.inf)
    new, sold = (seen.masked_fill(~kind, -torch.inf).logsumexp(1) for kind in (unbought, ~unbought))
    return new, sold


def fit(
    score: Score,
    cases: Cases,
    unbought: np.ndarray,
    weight: np.ndarray,
    chunk: int,
    absent: np.ndarray | None = None,
    given_up: float = 0.0,
) -> Fusion:
    """The weights under which the cases' targets are most likely.

    Args:
        score: Of the experts.
        cases: C cases, none with its target in its history.
        unbought: (N,) bool.
        weight: (C,) float, how many cases each stands for.
        chunk: Cases scored at once.
        absent: (N,) bool, items that are in the catalog and could not be taken: hidden from these cases too.
        given_up: How much of the NDCG@10 of targets that sell may go, as a share, for new products to be seen
            more; r0 is raised as far as that allows.

    Raises:
        ValueError: If no case's target sells, or none is unbought.
    """
    of_new = unbought[cases.target]
    if of_new.all() or not of_new.any():
        kind = "of a product that sells" if of_new.all() else "of a product that nobody has bought"
        raise ValueError(f"the hybrid is fitted on {len(cases)} cases and none is {kind}: it needs both kinds.")
    kinds = torch.from_numpy(unbought)

    def chunks(rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        for part in np.split(rows, range(chunk, len(rows), chunk)):
            taken = cases.take(part)
            yield part, score(taken.histories), hidden_items(taken.histories, len(unbought), absent)

    def conditional(kind: Tensor, rows: np.ndarray) -> tuple[float, ...]:
        """Newton's method on the kind's own cases."""
        items = torch.nonzero(kind)[:, 0]
        place = torch.full((len(kind),), -1).index_put((items,), torch.arange(len(items)))
        weights = torch.zeros(len(NAMES), dtype=torch.float64)
        for _ in range(STEPS):
            slope, curve = torch.zeros_like(weights), torch.zeros(len(NAMES), len(NAMES), dtype=torch.float64)
            total = 0.0
            for part, scores, hidden in chunks(rows):
                own, out = scores[:, :, items], hidden[:, items]
                mixed = torch.einsum("e,ebn->bn", weights.float(), own).masked_fill(out, -torch.inf)
                share = mixed.softmax(1)
                counted = torch.from_numpy(weight[part]).float()
                mean = torch.einsum("ebn,bn->be", own, share)
                target = place[torch.from_numpy(cases.target[part])]
                at = own[:, torch.arange(len(part)), target].T
                slope += ((mean - at) * counted[:, None]).sum(0).double()
                second = torch.stack([torch.einsum("ebn,bn->be", own * one, share) for one in own], 2)
                curve += (
                    ((second - mean[:, :, None] * mean[:, None, :]) * counted[:, None, None]).sum(0).double()
                )
                total += float(counted.sum())
            step = torch.linalg.solve(
                curve + 2 * RIDGE * total * torch.eye(len(weights)), slope + 2 * RIDGE * total * weights
            )
            # A step far beyond what the curvature was measured for overshoots.
            step *= min(1.0, 2.0 / max(float(step.abs().max()), 1e-9))
            weights = weights - step
            if float(step.abs().max()) < 1e-4:
                break
        return tuple(weights.tolist())

    sold, new = (conditional(kind, np.flatnonzero(rows)) for kind, rows in ((~kinds, ~of_new), (kinds, of_new)))
    joined = Fusion(sold, new, (0.0, 0.0, 0.0))
    masses = []
    for _, scores, hidden in chunks(np.arange(len(cases))):
        masses.append(torch.stack(_masses(joined._mixed(scores, kinds), kinds, hidden), 1))
    found = torch.cat(masses).double().numpy()
    both = np.isfinite(found).all(axis=1)  # where nothing of a kind is left there is nothing to choose
    route = _logistic(found[both], of_new[both], weight[both])
    natural = Fusion(sold, new, route)
    if not given_up:
        return natural
    gain = sum(
        _gains_by_push(natural.join(scores, kinds, hidden), cases.target[part], kinds, hidden)
        for part, scores, hidden in chunks(np.flatnonzero(~of_new))
    )
    assert isinstance(gain, Tensor)
    if not gain[0] > 0:
        return natural
    push = PUSHES[int(torch.nonzero(gain >= (1 - given_up) * gain[0])[-1])]
    return Fusion(sold, new, (route[0] + push, *route[1:]))


def _gains_by_push(joined: Tensor, target: np.ndarray, unbought: Tensor, hidden: Tensor) -> Tensor:
    """(len(PUSHES),) float64 NDCG@10 summed over (B,) targets that sell, r0 raised by each push.

    A raised r0 takes next to nothing from what sells: log(1 - p) moves by p, a few hundredths, and is left out.
    """
    own = joined.gather(1, torch.from_numpy(target)[:, None])
    ahead = (joined > own) & ~hidden
    sold = (ahead & ~unbought).sum(1)
    new = joined.masked_fill(hidden, -torch.inf)[:, unbought]
    gains = []
    for push in PUSHES:
        rank = 1 + sold + (new + push > own).sum(1)
        gains.append(torch.where(rank <= 10, 1 / torch.log2(1.0 + rank), 0.0).double().sum())
    return torch.stack(gains)


def _logistic(masses: np.ndarray, of_new: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Logistic regression of which kind was taken on (C, 2) masses."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e3, max_iter=1000)
    centre = masses.mean(axis=0)
    model.fit(masses - centre, of_new, sample_weight=weight)
    slopes = model.coef_[0]
    return float(model.intercept_[0] - slopes @ centre), float(slopes[0]), float(slopes[1])


def hidden_items(histories: Histories, num_items: int, absent: np.ndarray | None = None) -> Tensor:
    """(B, N) bool, the items of each history and those that are absent for all."""
    hidden = torch.zeros(len(histories), num_items, dtype=torch.bool)
    hidden[torch.from_numpy(histories.row_of_value()), torch.from_numpy(histories.values)] = True
    if absent is not None:
        hidden |= torch.from_numpy(absent)
    return hidden


def as_json(fusion: Fusion) -> dict[str, Any]:
    """The weights by the experts' names."""
    kinds = {kind: dict(zip(NAMES, getattr(fusion, kind), strict=True)) for kind in ("sold", "unbought")}
    return {**kinds, "route": list(fusion.route)}


def from_json(made: dict[str, Any]) -> Fusion:
    """The opposite of `as_json`.

    Raises:
        ValueError: If weights are missing, or of other experts.
    """
    try:
        kinds = [tuple(float(made[kind][name]) for name in NAMES) for kind in ("sold", "unbought")]
        if any(len(made[kind]) != len(NAMES) for kind in ("sold", "unbought")):
            raise KeyError("experts that this version does not know")
        return Fusion(kinds[0], kinds[1], tuple(made["route"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the weights of a hybrid of this version: {error}.") from error
