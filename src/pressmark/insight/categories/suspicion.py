"""How likely is a label wrong? The labels beside labels that were moved on purpose.

Every product's label is compared with one moved to any leaf (half of them all alike, half by size) and with
one moved to a sibling. A product's own label never enters what the sources say of it, so that moving it costs
no new fit. Classifiers tell the three apart, and their odds are densities: how much commoner such
evidence is among moved labels than among those of the catalog. The catalog's labels hold some wrong ones, so
that ratio can never exceed one over their share: where it is at its greatest it tells the share. Share times
ratio is the probability that a label is wrong.

Source: the share of a component from the least ratio of tails, Blanchard, Lee, Scott 2010, "Semi-supervised
novelty detection", and Scott 2015; Elkan and Noto 2008 for positive and unlabelled examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pressmark.insight.categories.leaves import Leaves, member
from pressmark.insight.categories.pool import Pool

KINDS = ("far", "near")
"""Moved anywhere; moved to a sibling."""
LEAST_TAIL = 0.1
"""Smallest share of the moved labels whose tail the share of wrong labels is read from."""
MOST_UNTOLD = 0.2
"""Greatest confidence about a product without text: what is bought with it tells little by itself."""
NUM_SUGGESTED = 3
TREES: dict[str, Any] = {
    "max_iter": 60,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 50,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}
"""Small ones, and few."""


@dataclass(frozen=True)
class Judgement:
    """What the sources say of n labelled products.

    Attributes:
        rows: (n,) int64 item_index, ascending.
        log_odds: (n, 2) float64 by `KINDS`: density of the evidence among moved labels over that among labels.
        rates: (2,) float64: share of the labels that are wrong in either way, as estimated.
        severities: (2,) float64: mean severity of moves of either kind.
        confidence: (n,) float64 in [0, 1]: probability that the label is wrong.
        suggested: (n, NUM_SUGGESTED) int64 leaves that fit best beside the product's own, -1 beyond the last.
        share: (n, NUM_SUGGESTED) float64: their shares of what does not stand at the product's own.
        own_share: (n,) float64 share of the product's own leaf.
    """

    rows: np.ndarray
    log_odds: np.ndarray
    rates: np.ndarray
    severities: np.ndarray
    confidence: np.ndarray
    suggested: np.ndarray
    share: np.ndarray
    own_share: np.ndarray

    @property
    def harm(self) -> np.ndarray:
        """(n,) float64 log of probability times the root of severity, not capped: what findings are ordered by.

        A product in the wrong aisle comes before one on the neighbouring shelf that is as likely wrong. By the
        root: severity as it is puts near mistakes, a tenth as grave, behind all that are barely likely.
        """
        return np.logaddexp(*(self.log_odds + np.log(self.rates * np.sqrt(self.severities))).T)

    @property
    def suggested_confidence(self) -> np.ndarray:
        """(n, NUM_SUGGESTED) float64: probability that a suggested leaf is the right one."""
        return self.confidence[:, None] * self.share


def judge(leaves: Leaves, pool: Pool, fold: np.ndarray, seed: int, told: np.ndarray | None = None) -> Judgement:
    """Judges every labelled product.

    Args:
        leaves: The leaves and labels.
        pool: What the sources say.
        fold: (N,) int64; a fold's odds come from classifiers that have not seen it.
        seed: Of the labels that are moved.
        told: (N,) bool products with text: the share of wrong labels is read off these. All by default.
    """
    rows = np.flatnonzero(leaves.labelled)
    rng = np.random.default_rng([seed, 7])
    label = leaves.label[rows]
    alike = rng.random(len(rows)) < 0.5
    far = np.where(alike, leaves.moved_anywhere(label, rng), leaves.moved_by_size(label, rng))
    cases = (label, far, leaves.moved_to_sibling(label, rng))
    said = _read(leaves, pool, rows, cases)
    odds = _odds(said.evidence, fold[rows])
    told = np.ones(len(rows), bool) if told is None else told[rows]
    sure = told if told.any() else ~told
    rates = np.array(
        [wrong_share(odds[0][sure, kind], odds[kind + 1][sure, kind]) for kind in range(len(KINDS))]
    )
    severities = np.array([leaves.severity(label, moved).mean() for moved in cases[1:]])
    confidence = _confidence(odds, rates, pool.share_unexplained, sure)
    confidence = np.where(told, confidence, np.minimum(confidence, MOST_UNTOLD))
    return Judgement(rows, odds[0], rates, severities, confidence, said.suggested, said.share, said.own_share)


def _confidence(odds: list[np.ndarray], rates: np.ndarray, least: float, sure: np.ndarray) -> np.ndarray:
    """(n,) probability that a label is wrong: both kinds as one score, whose ratio of densities only grows.

    It is learnt from the products of `sure`, (n,) bool.
    """
    given, *moved = (np.logaddexp(*(one + np.log(rates)).T) for one in odds)
    weight = np.repeat(rates / rates.sum(), sure.sum())
    return probability(given[sure], np.concatenate([one[sure] for one in moved]), weight, least, given)


def probability(
    given: np.ndarray,
    moved: np.ndarray,
    weight: np.ndarray,
    least: float,
    asked: np.ndarray | None = None,
) -> np.ndarray:
    """(k,) float64 in [0, 1]: share of wrong labels among those with the same suspicion.

    Where a catalog's mistakes are milder than the moves, tails tell too small a share: it is at least `least`.

    Args:
        given: (n,) suspicion of the labels as they are.
        moved: (m,) suspicion of moved labels.
        weight: (m,) of each.
        least: Least share of wrong labels: those that no source explains.
        asked: (k,) suspicion of the labels in question; `given` by default.
    """
    from sklearn.isotonic import IsotonicRegression

    weight = weight / weight.sum() * len(given)
    among = IsotonicRegression(y_min=0.0, y_max=1 - 1e-9, out_of_bounds="clip").fit(
        np.concatenate([given, moved]),
        np.repeat([0.0, 1.0], [len(given), len(moved)]),
        sample_weight=np.concatenate([np.ones(len(given)), weight]),
    )
    share = among.predict(given if asked is None else asked)
    return np.minimum(1.0, max(wrong_share(given, moved, weight), least) * share / (1 - share))


def wrong_share(given: np.ndarray, moved: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of moved labels among those given: the least ratio of their tails, at most 1.

    Args:
        given: (n,) suspicion of the labels as they are.
        moved: (m,) suspicion of moved labels.
        weight: (m,) of each; all alike by default.

    >>> wrong_share(np.array([0.0] * 95 + [9.0] * 5), np.array([9.0] * 10))
    0.06
    """
    weight = np.ones(len(moved)) if weight is None else weight
    order = np.argsort(-moved, kind="stable")
    tail = np.cumsum(weight[order]) / weight.sum()
    # The last of equals: a tail holds all that are as suspicious.
    last = np.append(moved[order][1:] != moved[order][:-1], True) & (tail >= LEAST_TAIL)
    above = len(given) - np.searchsorted(np.sort(given), moved[order][last], side="left")
    # One more than were found: a tail that no label reaches does not prove that none is wrong.
    return float(min(1.0, ((above + 1) / len(given) / tail[last]).min()))


@dataclass(frozen=True)
class _Reading:
    """What the pool says of n products, beside each case's labels and at all.

    Attributes:
        evidence: (n, F) float64, one a case.
        suggested, share, own_share: As in `Judgement`.
    """

    evidence: list[np.ndarray]
    suggested: np.ndarray
    share: np.ndarray
    own_share: np.ndarray


def _read(leaves: Leaves, pool: Pool, rows: np.ndarray, cases: tuple[np.ndarray, ...]) -> _Reading:
    """Asks the pool once for all."""
    groups, stop = _Groups(leaves), 0
    evidence: list[list[np.ndarray]] = [[] for _ in cases]
    suggested, share, owned = [], [], []
    for some, likely in pool.by_blocks(rows, "labels judged"):
        start, stop = stop, stop + len(some)
        own = cases[0][start:stop]
        for one, labels in zip(evidence, cases, strict=True):
            one.append(groups.evidence(likely, labels[start:stop]))
        owned.append(likely[np.arange(len(some)), own].astype(np.float64))
        best, shares = suggestions_of(likely, own, [leaves.also[item] for item in some])
        suggested.append(best)
        share.append(shares)
    return _Reading([np.concatenate(one) for one in evidence], *map(np.concatenate, (suggested, share, owned)))


def suggestions_of(
    likely: np.ndarray, own: np.ndarray, also: Sequence[frozenset[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """What fits best beside a product's own places.

    Args:
        likely: (n, C) float32 shares.
        own: (n,) int64 labels.
        also: n sets of further places.

    Returns:
        (n, NUM_SUGGESTED) int64 leaves, -1 beyond the last, and their (n, NUM_SUGGESTED) float64 shares of what
        is left.
    """
    left = likely.copy()
    left[np.arange(len(own)), own] = 0
    for at, places in enumerate(also):
        left[at, list(places)] = 0
    order = np.argsort(-left, axis=1, kind="stable")[:, :NUM_SUGGESTED]
    share = np.take_along_axis(left, order, axis=1) / np.maximum(left.sum(axis=1, keepdims=True), 1e-12)
    return np.where(share > 0, order, -1), share.astype(np.float64)


class _Groups:
    """Shares summed over parts of the tree."""

    def __init__(self, leaves: Leaves) -> None:
        number: dict = {}
        self.parent = np.array([number.setdefault(path[:-1], len(number)) for path in leaves.paths])
        self.top, self.family = leaves.groups[0], leaves.family
        self._sums = [member(self.parent), member(self.top)]

    def evidence(self, likely: np.ndarray, label: np.ndarray) -> np.ndarray:
        """(n, C) shares and (n,) labels -> (n, F) float64, one column a measure."""
        row = np.arange(len(label))
        leaf = likely[row, label].astype(np.float64)
        parents, tops = (likely @ one for one in self._sums)
        running = np.concatenate(
            [np.zeros((len(label), 1)), np.cumsum(likely, axis=1, dtype=np.float64)], axis=1
        )
        first, last = self.family[label].T
        others = likely.copy()
        others[row, label] = 0
        logs = {
            name: np.log(one + 1e-9)
            for name, one in {
                "leaf": leaf,
                "parent": parents[row, self.parent[label]],
                "top": tops[row, self.top[label]],
                "best_leaf": likely.max(axis=1),
                "best_top": tops.max(axis=1),
                "siblings": np.maximum(running[row, last] - running[row, first] - leaf, 0),
                "best_other": others.max(axis=1),
            }.items()
        }
        lead = logs["leaf"] - logs["best_other"]
        measures = {
            **logs,
            "entropy": -(likely * np.log(likely + 1e-9)).sum(axis=1),
            "leaf_within_parent": logs["leaf"] - logs["parent"],
            "lead": lead,
            "num_siblings": np.log(last - first - 1.0),
            "behind": np.minimum(lead, 0),
            "parent_behind": np.minimum(logs["parent"] - logs["best_leaf"], 0),
        }
        return np.stack(list(measures.values()), axis=1)


def _odds(evidence: list[np.ndarray], fold: np.ndarray) -> list[np.ndarray]:
    """(n, 2) log ratios of densities for each case's labels, cross-fitted over five groups of folds.

    The mean of two classifiers: a line goes on where there are few examples, boosted trees see its bends.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = [np.zeros((len(fold), len(KINDS))) for _ in evidence]
    part = fold % 5
    for held in np.unique(part):
        inside, outside = part == held, part != held
        if not outside.any():  # too few products to hold any back
            outside = inside
        known = np.concatenate([one[outside] for one in evidence])
        case = np.repeat(np.arange(len(evidence)), outside.sum())
        line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(known, case)
        trees = HistGradientBoostingClassifier(**TREES).fit(known, case)
        for out, one in zip(found, evidence, strict=True):
            scores = (line.decision_function(one[inside]) + trees.decision_function(one[inside])) / 2
            out[inside] = scores[:, 1:] - scores[:, :1]
    return found
