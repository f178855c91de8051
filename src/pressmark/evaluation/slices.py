"""Which cases a figure is about: all, warm, cold, and finer cuts of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pressmark.catalog.embeddings import unit_rows
from pressmark.catalog.items import Catalog
from pressmark.interactions.cases import Cases, Split

MAIN = ("all", "warm", "cold")
"""Slices with every metric, every protocol and paired differences."""

UNBOUGHT = "warm_unbought"
"""Targets that are in no training interaction, though nothing hid them; many cases of few items."""

HISTORY_BINS = ((0, 0), (1, 4), (5, 9), (10, 19), (20, None))
"""Visible history lengths in items, both ends included."""

DESCRIPTIONS = {
    "all": "Every case.",
    "warm": "Cases whose target is warm.",
    "cold": "Cases whose target is cold.",
    "cold_leaf_seen": "Cold; a leaf category of the target has an item in the training interactions.",
    "cold_leaf_unseen": "Cold; no leaf category of the target has an item in the training interactions.",
    "cold_leaf_none": "Cold; the target has no category.",
    "cold_cosine_q1": "Cold; quarter of the distinct targets farthest (cosine) from their nearest warm item.",
    "cold_cosine_q2": "Cold; second quarter by cosine to the nearest warm item.",
    "cold_cosine_q3": "Cold; third quarter by cosine to the nearest warm item.",
    "cold_cosine_q4": "Cold; quarter of the distinct targets nearest to a warm item.",
    "cold_history_0": "Cold; empty history.",
    "cold_history_1_4": "Cold; 1 to 4 items of visible history.",
    "cold_history_5_9": "Cold; 5 to 9 items of visible history.",
    "cold_history_10_19": "Cold; 10 to 19 items of visible history.",
    "cold_history_20_up": "Cold; 20 items of visible history or more.",
    "warm_head": "Warm; the most popular items that together make 20 % of the training interactions.",
    "warm_middle": "Warm; items between head and tail.",
    "warm_tail": "Warm; the least popular items, behind the first 80 % of the training interactions.",
    UNBOUGHT: "Warm; the target is in no training interaction, though it was not hidden.",
    "warm_history_0": "Warm; empty history.",
    "warm_history_1_4": "Warm; 1 to 4 items of visible history.",
    "warm_history_5_9": "Warm; 5 to 9 items of visible history.",
    "warm_history_10_19": "Warm; 10 to 19 items of visible history.",
    "warm_history_20_up": "Warm; 20 items of visible history or more.",
}

LABELS = {
    "cold_leaf_seen": "leaf seen in training",
    "cold_leaf_unseen": "leaf unseen",
    "cold_leaf_none": "no category",
    "cold_cosine_q1": "farthest quarter",
    "cold_cosine_q2": "second quarter",
    "cold_cosine_q3": "third quarter",
    "cold_cosine_q4": "nearest quarter",
    "cold_history_0": "no history",
    "cold_history_1_4": "1 to 4 items",
    "cold_history_5_9": "5 to 9 items",
    "cold_history_10_19": "10 to 19 items",
    "cold_history_20_up": "20 items or more",
    "warm_head": "head",
    "warm_middle": "middle",
    "warm_tail": "tail",
    UNBOUGHT: "never in training",
    "warm_history_0": "no history",
    "warm_history_1_4": "1 to 4 items",
    "warm_history_5_9": "5 to 9 items",
    "warm_history_10_19": "10 to 19 items",
    "warm_history_20_up": "20 items or more",
}
"""Short names of the finer slices for tables and pictures, which say warm or cold themselves."""

HEAD, MIDDLE, TAIL = 0, 1, 2


@dataclass(frozen=True)
class Facts:
    """What the slices are cut by, one value a case.

    Attributes:
        target_in_history: (C,) bool, excluded where the history is masked.
        history_length: (C,) int64 items.
        num_interactions: (C,) int64 training interactions of the target.
        nearest_warm_cosine: (C,) float32; NaN for a warm target, or without vectors.
        slices: name -> (C,) bool; empty slices are left out, apart from the main three.
    """

    target_in_history: np.ndarray
    history_length: np.ndarray
    num_interactions: np.ndarray
    nearest_warm_cosine: np.ndarray
    slices: dict[str, np.ndarray]


def facts(cases: Cases, split: Split, catalog: Catalog, vectors: np.ndarray | None) -> Facts:
    """Cuts cases into slices.

    Args:
        cases: C cases.
        split: The split they are from: training interactions and the cold mask.
        catalog: N items.
        vectors: (N, D) float32 content vectors for the cosine quartiles, or None to leave those out.
    """
    num_interactions = np.bincount(split.train.values, minlength=len(catalog)).astype(np.int64)
    lengths = cases.histories.lengths
    cosine = np.full(len(cases), np.nan, np.float32)
    if vectors is not None and cases.cold.any() and not split.cold.all():
        targets, inverse = np.unique(cases.target[cases.cold], return_inverse=True)
        cosine[cases.cold] = nearest_cosine(vectors[targets], vectors[~split.cold])[inverse]
    slices = {"all": np.ones(len(cases), bool), "warm": ~cases.cold, "cold": cases.cold}
    fine = {
        **_by_leaf(cases, catalog, num_interactions > 0),
        **_by_cosine(cases, cosine),
        **_by_popularity(cases, popularity_class(num_interactions)),
        UNBOUGHT: ~cases.cold & (num_interactions[cases.target] == 0),
        **_by_length(cases, lengths),
    }
    slices.update({name: inside for name, inside in fine.items() if inside.any()})
    return Facts(cases.target_in_history(), lengths, num_interactions[cases.target], cosine, slices)


def unit_of(name: str, pooled: bool) -> str:
    """What the intervals of a slice resample: "target item", "user" or "case".

    Cases of one item share its luck, those of one user in several splits share the user's.

    Args:
        name: The slice.
        pooled: Whether its cases come from several splits, so that a user may have one in each.
    """
    if name.startswith("cold") or name == UNBOUGHT:
        return "target item"
    return "user" if pooled else "case"


def popularity_class(num_interactions: np.ndarray) -> np.ndarray:
    """Head, middle or tail of each item.

    Items are ordered by training interactions, ties by item_index. An item is head while the items before it
    make less than 20 % of all interactions, tail once they make 80 % or more, and middle between.

    Args:
        num_interactions: (N,) int64 training interactions an item.

    Returns:
        (N,) int64 of HEAD, MIDDLE, TAIL.

    >>> popularity_class(np.array([6, 1, 2, 1])).tolist()
    [0, 2, 1, 2]
    """
    order = np.argsort(-num_interactions, kind="stable")
    total = num_interactions.sum()
    before = np.cumsum(num_interactions[order]) - num_interactions[order]
    # Integers, so that a boundary of exactly 20 % does not depend on rounding.
    classes = np.select([5 * before < total, 5 * before < 4 * total], [HEAD, MIDDLE], TAIL)
    result = np.empty(len(order), np.int64)
    result[order] = classes
    return result


def nearest_cosine(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Largest cosine of each of (Q, D) float32 vectors to any of (M, D): (Q,) float32; a zero vector has 0."""
    nearest = np.empty(len(queries), np.float32)
    items = unit_rows(items)
    for start in range(0, len(queries), 256):
        nearest[start : start + 256] = (unit_rows(queries[start : start + 256]) @ items.T).max(axis=1)
    return nearest


def _by_leaf(cases: Cases, catalog: Catalog, in_training: np.ndarray) -> dict[str, np.ndarray]:
    seen = {path for item in np.flatnonzero(in_training) for path in catalog.category[item]}
    kind = np.full(len(catalog), "", object)
    for item in np.unique(cases.target):
        paths = catalog.category[item]
        kind[item] = "none" if not paths else "seen" if any(path in seen for path in paths) else "unseen"
    return {
        f"cold_leaf_{name}": cases.cold & (kind[cases.target] == name) for name in ("seen", "unseen", "none")
    }


def _by_cosine(cases: Cases, cosine: np.ndarray) -> dict[str, np.ndarray]:
    """Quarters of the distinct cold targets, so that one frequent target does not move the cuts."""
    known = ~np.isnan(cosine)
    if not known.any():
        return {}
    _, first = np.unique(cases.target[known], return_index=True)
    cuts = np.quantile(cosine[known][first], [0.25, 0.5, 0.75])
    quarter = (cosine[:, None] > cuts).sum(axis=1)
    return {f"cold_cosine_q{number + 1}": known & (quarter == number) for number in range(4)}


def _by_popularity(cases: Cases, classes: np.ndarray) -> dict[str, np.ndarray]:
    names = {"warm_head": HEAD, "warm_middle": MIDDLE, "warm_tail": TAIL}
    return {name: ~cases.cold & (classes[cases.target] == one) for name, one in names.items()}


def _by_length(cases: Cases, lengths: np.ndarray) -> dict[str, np.ndarray]:
    slices = {}
    for side, of_side in (("cold", cases.cold), ("warm", ~cases.cold)):
        for low, high in HISTORY_BINS:
            name = f"{low}" if low == high else f"{low}_{'up' if high is None else high}"
            inside = (lengths >= low) & (lengths <= (np.inf if high is None else high))
            slices[f"{side}_history_{name}"] = of_side & inside
    return slices
