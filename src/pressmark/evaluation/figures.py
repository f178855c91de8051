"""From lists to figures: what each case is worth, then means with intervals for every slice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pressmark import metrics
from pressmark.catalog.items import Catalog
from pressmark.evaluation.intervals import Estimates, bootstrap_ranks, bootstrap_values, percentiles
from pressmark.evaluation.protocols import LIST_LENGTH
from pressmark.evaluation.slices import MAIN, unit_of
from pressmark.interactions.cases import Cases, Split
from pressmark.recommender import Recommendations

_AT = f"at_{metrics.BEYOND_CUTOFF}"

FINE_METRICS = (f"recall_{_AT}", f"ndcg_{_AT}", f"mrr_{_AT}")
"""Metrics of the finer slices."""

PAIRED_METRICS = (f"recall_{_AT}", f"ndcg_{_AT}")
"""Metrics of the paired differences."""

ACROSS = ("hybrid", "quota_0.1"), ("generator", "full")
"""Compared across protocols: does the hybrid, places given up to cold items, keep what the generator has?"""

PER_LIST = (
    f"popularity_percentile_{_AT}",
    f"category_diversity_{_AT}",
    f"brand_diversity_{_AT}",
    f"cold_share_{_AT}",
)
"""Beyond accuracy, one value a list."""

PER_CATALOG = (f"catalog_coverage_{_AT}", f"exposure_gini_{_AT}")
"""Beyond accuracy, one value for all lists together; without an interval, because a resample's coverage and
Gini are no estimates of the whole's (fewer distinct lists always cover less)."""

BEYOND = PER_CATALOG + PER_LIST


@dataclass(frozen=True)
class ItemFacts:
    """What the metrics beyond accuracy read of each item.

    Attributes:
        percentile: (N,) float64 popularity percentile, from training interactions.
        leaf: (N, P) int64 leaf categories, padded with -1.
        brand: (N, 1) int64, -1 = none.
        cold: (N,) bool.
    """

    percentile: np.ndarray
    leaf: np.ndarray
    brand: np.ndarray
    cold: np.ndarray


@dataclass(frozen=True)
class Judged:
    """One model under one protocol.

    Attributes:
        rank: (S, C) int64 ranks of the targets by S model seeds, 0 = missed; one run has S = 1.
        per_list: (C, len(PER_LIST)) float64, NaN where a list has no value; None where it is not known.
        per_catalog: values of PER_CATALOG.
    """

    rank: np.ndarray
    per_list: np.ndarray | None
    per_catalog: dict[str, float]


def item_facts(catalog: Catalog, split: Split) -> ItemFacts:
    """Reads categories, brands and training popularity of N items."""
    num_interactions = np.bincount(split.train.values, minlength=len(catalog))
    number: dict[Any, int] = {}
    leaf = np.full((len(catalog), max([1, *map(len, catalog.category)])), -1, np.int64)
    for item, paths in enumerate(catalog.category):
        for column, path in enumerate(paths):
            leaf[item, column] = number.setdefault(path, len(number))
    _, brand = np.unique(catalog.brand.astype(str), return_inverse=True)
    brand = np.where(catalog.brand == "", -1, brand).astype(np.int64)[:, None]
    return ItemFacts(metrics.popularity_percentile(num_interactions), leaf, brand, split.cold)


def judge(lists: Recommendations, cases: Cases, items: ItemFacts) -> Judged:
    """Scores C lists against the C cases they answer."""
    short = lists.item_index[:, : metrics.BEYOND_CUTOFF]
    per_list = (
        metrics.mean_popularity_percentile(short, items.percentile),
        metrics.intra_list_diversity(short, items.leaf),
        metrics.intra_list_diversity(short, items.brand),
        metrics.cold_share(short, items.cold),
    )
    num_items = len(items.cold)
    per_catalog = (metrics.catalog_coverage(short, num_items), metrics.exposure_gini(short, num_items))
    rank = metrics.rank_of_target(lists.item_index, cases.target)
    return Judged(rank[None], np.stack(per_list, axis=1), dict(zip(PER_CATALOG, per_catalog, strict=True)))


def measure(
    judged: Mapping[str, Mapping[str, Judged]],
    slices: Mapping[str, np.ndarray],
    target: np.ndarray,
    pairs: Sequence[tuple[str, str]],
    num_resamples: int,
    seed: int,
    users: np.ndarray | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Means and intervals of every protocol, model, slice and metric over the same C cases.

    Args:
        judged: protocol -> model -> its C cases.
        slices: name -> (C,) bool; an empty slice is left out of the figures and counted as 0.
        target: (C,) integers, the units of slices that are about few items, see `unit_of`.
        pairs: Models (a, b) to compare; pairs with an absent model are passed over.
        num_resamples: Bootstrap resamples.
        seed: Bootstrap seed.
        users: (C,) integers, the units of the other slices where several splits are pooled; None where they are
            not, and the case is the unit.

    Returns:
        `protocols` and `paired` of report.json (docs/evaluation.md, Files).
    """
    from tqdm import tqdm

    num_cases = {name: int(inside.sum()) for name, inside in slices.items()}
    cases = np.arange(len(target))
    clusters = {"case": cases, "target item": target, "user": cases if users is None else users}
    units = {name: unit_of(name, users is not None) for name in slices}
    unit_of_case = {name: clusters[unit][slices[name]] for name, unit in units.items()}
    protocols: dict[str, Any] = {
        protocol: {
            "num_cases": num_cases,
            "units": {
                name: {"unit": unit, "num": len(np.unique(unit_of_case[name]))} for name, unit in units.items()
            },
            "models": {model: {} for model in models},
        }
        for protocol, models in judged.items()
    }
    paired: list[dict[str, Any]] = []
    for name, inside in tqdm(slices.items(), desc="intervals", unit="slice", disable=None):
        if not inside.any():
            continue
        kept = metrics.ACCURACY if name in MAIN else FINE_METRICS
        columns = [(p, m, metric) for p, models in judged.items() for m in models for metric in kept]
        ranks = np.stack([one.rank[:, inside] for models in judged.values() for one in models.values()])
        gains = metrics.accuracy(np.arange(LIST_LENGTH + 1))[:, [metrics.ACCURACY.index(one) for one in kept]]
        estimates = bootstrap_ranks(ranks, gains, num_resamples, seed, unit_of_case[name])
        _fill(protocols, name, columns, estimates)
        if name in MAIN:
            paired += _differences(name, columns, estimates, pairs)
    _fill_beyond(protocols, judged, num_resamples, seed)
    return protocols, paired


def _fill(
    protocols: dict[str, Any], name: str, columns: Sequence[tuple[str, str, str]], estimates: Estimates
) -> None:
    low, high = estimates.limits()
    for number, (protocol, model, metric) in enumerate(columns):
        figures = protocols[protocol]["models"][model].setdefault(name, {})
        figures[metric] = {
            "mean": _number(estimates.mean[number]),
            "low": _number(low[number]),
            "high": _number(high[number]),
        }


def _fill_beyond(
    protocols: dict[str, Any], judged: Mapping[str, Mapping[str, Judged]], num_resamples: int, seed: int
) -> None:
    columns, values = [], []
    for protocol, models in judged.items():
        for model, one in models.items():
            for metric, value in one.per_catalog.items():
                figures = protocols[protocol]["models"][model]["all"]
                figures[metric] = {"mean": _number(value), "low": None, "high": None}
            if one.per_list is not None:
                columns += [(protocol, model, metric) for metric in PER_LIST]
                values.append(one.per_list)
    if values:
        estimates = bootstrap_values(np.concatenate(values, axis=1), num_resamples, seed)
        _fill(protocols, "all", columns, estimates)


def _differences(
    name: str,
    columns: Sequence[tuple[str, str, str]],
    estimates: Estimates,
    pairs: Sequence[tuple[str, str]],
) -> list[dict[str, Any]]:
    at = {column: number for number, column in enumerate(columns)}
    rows: list[dict[str, Any]] = []
    draws = []
    protocols = dict.fromkeys(column[0] for column in columns)
    wanted = [(protocol, protocol, protocol, a, b) for protocol in protocols for a, b in pairs]
    (a, of_a), (b, of_b) = ACROSS
    wanted.append((f"{of_a}:{of_b}", of_a, of_b, a, b))
    for protocol, of_a, of_b, a, b in wanted:
        for metric in PAIRED_METRICS:
            first, second = at.get((of_a, a, metric)), at.get((of_b, b, metric))
            if first is None or second is None:
                continue
            difference = float(estimates.mean[first] - estimates.mean[second])
            rows.append({"protocol": protocol, "a": a, "b": b, "slice": name, "metric": metric})
            rows[-1]["difference"] = difference
            draws.append(estimates.draws[:, first] - estimates.draws[:, second])
    if rows:
        for row, low, high in zip(rows, *percentiles(np.stack(draws, axis=1)), strict=True):
            row.update(low=float(low), high=float(high))
    return rows


def _number(value: float) -> float | None:
    """JSON has no NaN: None where there is no value."""
    return None if math.isnan(value) else float(value)
