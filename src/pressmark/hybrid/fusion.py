"""Experts joined into one distribution over the catalog, fitted by maximum likelihood.

A product that nobody has bought and one that sells are not judged alike: the experts know different things of
them. So each kind has weights of its own for the experts' scores, within it

    p(item | kind, shopper) = softmax over the kind of sum_e weight[kind, e] * score_e(item)

and how likely the shopper's next product is to be of the kind that nobody has bought is a logistic regression
on how much the experts find for this shopper on either side,

    p(unbought | shopper) = sigmoid(r0 + r1 * mean(unbought) + r2 * mean(sold) + log(U / S))

where mean is the log of the mean exp of the weighted scores, of the U items that nobody has bought or of the S
that sell: twice as many new products have twice the odds, and each of them the same. The product of both ranks
the catalog. Fitted on cases with items hidden as cold items are, it puts as many new products before a shopper
as shoppers take, and those before the right ones. A shop that wants its new products seen more raises r0: by as
much as costs a stated share of the ranking of those that sell.

Source: products of experts, Hinton 2002; a conditional logit, McFadden 1974, fitted by Newton's method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pressmark.hybrid.experts import SOLD, UNBOUGHT
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories

Score = Callable[[np.ndarray, bool | None], Tensor]
"""(b,) rows of the cases and a kind of items -> (E, b, n) float32, see `Experts.scores`."""

STEPS = 40
"""Looks at the cases for Newton's method at most; half a dozen are usual."""

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
        if (len(self.sold), len(self.unbought), len(self.route)) != (len(SOLD), len(UNBOUGHT), 3):
            raise ValueError(
                f"a fusion has weights of what sells ({', '.join(SOLD)}), of what nobody has bought "
                f"({', '.join(UNBOUGHT)}) and 3 for the route; "
                f"got {len(self.sold)}, {len(self.unbought)} and {len(self.route)}."
            )
        if not np.isfinite([*self.sold, *self.unbought, *self.route]).all():
            raise ValueError(f"a fusion's weights must be finite; got {asdict(self)}.")

    def join(self, scores: Tensor, unbought: Tensor, hidden: Tensor) -> Tensor:
        """Log-probabilities of items from (E, B, N) scores of the experts; the rest as in `placed`."""
        return self.placed(self.mixed(scores, unbought), unbought, hidden)

    def placed(self, mixed: Tensor, unbought: Tensor, hidden: Tensor) -> Tensor:
        """Log-probabilities of items.

        Args:
            mixed: (B, N) scores, see `mixed`.
            unbought: (N,) bool.
            hidden: (B, N) bool, items that count in no mass: those of the history.

        Returns:
            (B, N) float32; hidden items have what they would have had.
        """
        mass = _masses(mixed, unbought, hidden)
        empty = [one.isneginf() for one in mass]
        new, sold = (one.masked_fill(none, 0.0) for one, none in zip(mass, empty, strict=True))
        log_u, log_s = _log_counts(unbought, hidden)
        route = self.route[0] + self.route[1] * (new - log_u) + self.route[2] * (sold - log_s) + log_u - log_s
        # Where nothing of a kind is left the other has all; what is hidden of it keeps a place among its like.
        log_new = F.logsigmoid(route).masked_fill(empty[1], 0.0)
        log_sold = F.logsigmoid(-route).masked_fill(empty[0], 0.0)
        placed = mixed + (log_sold - sold)[:, None]
        placed[:, unbought] = mixed[:, unbought] + (log_new - new)[:, None]
        return placed

    def mixed(self, scores: Tensor, unbought: Tensor) -> Tensor:
        """(B, N) float32, each item's (E, B, N) scores weighted as its kind's are."""
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
    return seen[:, unbought].logsumexp(1), seen.masked_fill_(unbought, -torch.inf).logsumexp(1)


def _log_counts(unbought: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) log of how many items of either kind are not hidden; of none 0."""
    seen = ~hidden
    num_new = seen[:, unbought].sum(1)
    num_sold = seen.sum(1) - num_new
    return num_new.clamp(min=1).log(), num_sold.clamp(min=1).log()


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
    asked = _Asked(score, cases, torch.from_numpy(unbought), weight, chunk, absent)
    of_new = unbought[cases.target]
    if of_new.all() or not of_new.any():
        kind = "of a product that sells" if of_new.all() else "of a product that nobody has bought"
        raise ValueError(f"the hybrid is fitted on {len(cases)} cases and none is {kind}: it needs both kinds.")
    sold = _conditional_logit(asked, False, np.flatnonzero(~of_new))
    new = _conditional_logit(asked, True, np.flatnonzero(of_new))
    natural = _routed(asked, Fusion(sold, new, (0.0, 0.0, 0.0)), of_new)
    return _pushed(asked, natural, np.flatnonzero(~of_new), given_up) if given_up else natural


@dataclass(frozen=True)
class _Asked:
    """What a fit is made on; the arguments of `fit`."""

    score: Score
    cases: Cases
    unbought: Tensor
    weight: np.ndarray
    chunk: int
    absent: np.ndarray | None

    def parts(
        self, rows: np.ndarray, unbought: bool | None = None
    ) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """A chunk of the cases at a time: their rows, (E, b, n) scores and (b, n) what is hidden from them.

        Of all items or of one kind. Scored anew each time: of some thousand cases and a large catalog the
        scores would not fit in memory.
        """
        for part in np.split(rows, range(self.chunk, len(rows), self.chunk)):
            hidden = hidden_items(self.cases.histories.take(part), len(self.unbought), self.absent)
            own = slice(None) if unbought is None else self.unbought == unbought
            yield part, self.score(part, unbought), hidden[:, own]


def _conditional_logit(asked: _Asked, unbought: bool, rows: np.ndarray) -> tuple[float, ...]:
    """The weights of one kind of items from the cases with such a target: Newton's method."""
    place = torch.cumsum(asked.unbought == unbought, 0) - 1  # of an item among its kind
    ridge = 2 * RIDGE * float(asked.weight[rows].sum())
    weights = torch.zeros(len(UNBOUGHT if unbought else SOLD), dtype=torch.float64)
    step, before = torch.zeros_like(weights), math.inf
    for _ in range(STEPS):
        cost = ridge / 2 * float(weights @ weights)
        slope, curve = ridge * weights, ridge * torch.eye(len(weights), dtype=torch.float64)
        for part, scores, hidden in asked.parts(rows, unbought):
            counted = torch.from_numpy(asked.weight[part]).float()
            mixed = torch.einsum("e,ebn->bn", weights.float(), scores).masked_fill(hidden, -torch.inf)
            share = mixed.softmax(1) * counted[:, None]
            mean = torch.einsum("ebn,bn->eb", scores, share)
            target, each = place[torch.from_numpy(asked.cases.target[part])], torch.arange(len(part))
            own = (scores[:, each, target] * counted).sum(1)
            second = (scores * share).flatten(1) @ scores.flatten(1).T
            spread = second - (mean / counted) @ mean.T
            cost += float(((mixed.logsumexp(1) - mixed[each, target]) * counted).double().sum())
            slope += (mean.sum(1) - own).double()
            curve += spread.double()
        if cost > before:  # beyond the bottom, where it is flat: half the way back
            step = step / 2
            weights = weights + step
        else:
            before, step = cost, torch.linalg.solve(curve, slope)
            # A step far beyond what the curvature was measured for overshoots.
            step *= min(1.0, 2.0 / max(float(step.abs().max()), 1e-9))
            weights = weights - step
        if float(step.abs().max()) < 1e-4:
            break
    return tuple(weights.tolist())


def _routed(asked: _Asked, fusion: Fusion, of_new: np.ndarray) -> Fusion:
    """The fusion with its route fitted to (C,) bool which kind each case's target is of."""
    from sklearn.linear_model import LogisticRegression

    means, offsets = [], []
    for _, scores, hidden in asked.parts(np.arange(len(asked.cases))):
        mass = _masses(fusion.mixed(scores, asked.unbought), asked.unbought, hidden)
        log_counts = _log_counts(asked.unbought, hidden)
        means.append(torch.stack(mass, 1) - torch.stack(log_counts, 1))
        offsets.append(log_counts[0] - log_counts[1])
    masses = torch.cat(means).double().numpy()
    both = np.isfinite(masses).all(axis=1)  # where nothing of a kind is left there is nothing to choose
    centre = masses[both].mean(axis=0)
    model = LogisticRegression(C=1e3, max_iter=1000)
    model.fit(masses[both] - centre, of_new[both], sample_weight=asked.weight[both])
    slopes = model.coef_[0]
    # Taken for the same in every case: histories take a few items of thousands.
    odds = float(np.average(torch.cat(offsets).double().numpy()[both], weights=asked.weight[both]))
    route = (float(model.intercept_[0] - slopes @ centre) - odds, float(slopes[0]), float(slopes[1]))
    return replace(fusion, route=route)


def _pushed(asked: _Asked, fusion: Fusion, rows: np.ndarray, given_up: float) -> Fusion:
    """The fusion with r0 raised as far as costs a share of the NDCG@10 of the cases whose target sells."""
    gains = [
        _gains_by_push(
            fusion.join(scores, asked.unbought, hidden), asked.cases.target[part], asked.unbought, hidden
        )
        for part, scores, hidden in asked.parts(rows)
    ]
    gain = torch.stack(gains).sum(0)
    if not gain[0] > 0:
        return fusion
    push = PUSHES[int(torch.nonzero(gain >= (1 - given_up) * gain[0])[-1])]
    return replace(fusion, route=(fusion.route[0] + push, *fusion.route[1:]))


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


def hidden_items(histories: Histories, num_items: int, absent: np.ndarray | None = None) -> Tensor:
    """(B, N) bool, the items of each history and those that are absent for all."""
    hidden = torch.zeros(len(histories), num_items, dtype=torch.bool)
    hidden[torch.from_numpy(histories.row_of_value()), torch.from_numpy(histories.values)] = True
    if absent is not None:
        hidden |= torch.from_numpy(absent)
    return hidden


KINDS = {"sold": SOLD, "unbought": UNBOUGHT}
"""The kinds of items, as in a fusion's JSON, and whose weights it has for them."""


def as_json(fusion: Fusion) -> dict[str, Any]:
    """The weights by the experts' names."""
    kinds = {kind: dict(zip(names, getattr(fusion, kind), strict=True)) for kind, names in KINDS.items()}
    return {**kinds, "route": list(fusion.route)}


def from_json(made: dict[str, Any]) -> Fusion:
    """The opposite of `as_json`.

    Raises:
        ValueError: If weights are missing, or of other experts.
    """
    try:
        kinds = {kind: tuple(float(made[kind][name]) for name in names) for kind, names in KINDS.items()}
        if any(len(made[kind]) != len(names) for kind, names in KINDS.items()):
            raise KeyError("experts that this version does not know")
        return Fusion(**kinds, route=tuple(made["route"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the weights of a hybrid of this version: {error}.") from error
