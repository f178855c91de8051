from __future__ import annotations

import dataclasses

import numpy as np

from pressmark.catalog.items import Catalog
from pressmark.evaluation import slices
from pressmark.evaluation.slices import (
    DESCRIPTIONS,
    HEAD,
    MIDDLE,
    TAIL,
    facts,
    nearest_cosine,
    popularity_class,
)
from pressmark.evaluation.slices import HISTORY_BINS as BINS
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories


def tiny() -> tuple[Cases, Split, Catalog]:
    """Items 0-3 warm with 6, 2, 1, 1 training interactions; 4-7 cold."""
    train = Histories.from_lists([[0, 0, 0, 1], [0, 0, 0, 1, 2, 3]])
    cold = np.array([False] * 4 + [True] * 4)
    lists = [[], [1], [0, 1, 2, 3, 0], [0] * 10, [1] * 20, [1, 2], [0], [3]]
    target = np.array([0, 1, 2, 3, 4, 5, 6, 6])
    users = np.array([f"u{case}" for case in range(8)], object)
    cases = Cases(np.arange(8), users, Histories.from_lists(lists), target, cold[target])
    nan, unknown = np.full(10, np.nan), np.full(10, -1)
    split = Split(train, users[:2], nan, unknown, cases.take(np.arange(0)), cases, cold, ~cold)
    names = np.array([f"i{item}" for item in range(8)], object)
    category = (
        (("a", "x"),),
        (("a", "y"), ("b", "y")),
        (),
        (("a", "x"),),
        (("c",), ("b", "y")),
        # A leaf is a whole path: "y" under another parent is another leaf.
        (("c", "y"),),
        (),
        (("a", "x"),),
    )
    return cases, split, Catalog(names, names, names, category)


def rows(found: slices.Facts, name: str) -> list[int]:
    return np.flatnonzero(found.slices[name]).tolist()


def test_main_slices_and_leaves() -> None:
    found = facts(*tiny(), vectors=None)
    assert rows(found, "all") == list(range(8))
    assert rows(found, "warm") == [0, 1, 2, 3]
    assert rows(found, "cold") == [4, 5, 6, 7]
    assert rows(found, "cold_leaf_seen") == [4]
    assert rows(found, "cold_leaf_unseen") == [5]
    assert rows(found, "cold_leaf_none") == [6, 7]
    assert not any("cosine" in name for name in found.slices)


def test_warm_slices_by_popularity_and_length() -> None:
    found = facts(*tiny(), vectors=None)
    assert rows(found, "warm_head") == [0]
    # Items before it: 6 of 10 for item 1, 8 of 10 for item 2.
    assert rows(found, "warm_middle") == [1]
    assert rows(found, "warm_tail") == [2, 3]
    assert rows(found, "warm_history_0") == [0]
    assert rows(found, "warm_history_1_4") == [1]
    assert rows(found, "warm_history_5_9") == [2]
    assert rows(found, "warm_history_10_19") == [3]
    assert "warm_history_20_up" not in found.slices
    # Cold cases are cut by the same lengths.
    assert rows(found, "cold_history_1_4") == [5, 6, 7]
    assert rows(found, "cold_history_20_up") == [4]
    assert "cold_history_0" not in found.slices
    assert found.num_interactions.tolist() == [6, 2, 1, 1, 0, 0, 0, 0]


def test_warm_targets_that_nobody_bought_in_training() -> None:
    cases, split, catalog = tiny()
    assert "warm_unbought" not in facts(cases, split, catalog, vectors=None).slices
    fewer = Histories.from_lists([[0, 0, 0, 1], [0, 0, 0, 1, 2]])
    split = dataclasses.replace(
        split, train=fewer, train_timestamp=split.train_timestamp[1:], train_position=split.train_position[1:]
    )
    found = facts(cases, split, catalog, vectors=None)
    assert rows(found, "warm_unbought") == [3]
    assert not any("bought" in words for words in DESCRIPTIONS.values())


def test_target_in_history() -> None:
    assert facts(*tiny(), vectors=None).target_in_history.tolist() == [False, True, True] + [False] * 5


def test_cosine_quarters_are_of_distinct_targets() -> None:
    cases, split, catalog = tiny()
    angles = np.radians([0, 90, 180, 270, 10, 20, 40, 0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * 3
    found = facts(cases, split, catalog, vectors)
    np.testing.assert_allclose(found.nearest_warm_cosine[4:], np.cos(np.radians([10, 20, 40, 40])), rtol=1e-6)
    assert np.isnan(found.nearest_warm_cosine[:4]).all()
    # Cuts at the quartiles of the three distinct values; both cases of item 6 are farthest.
    assert rows(found, "cold_cosine_q1") == [6, 7]
    assert rows(found, "cold_cosine_q2") == [5]
    assert rows(found, "cold_cosine_q4") == [4]


def test_popularity_class_boundaries_are_exact() -> None:
    # Ten items of 10 %: two head, six middle, two tail; ties by item_index.
    assert popularity_class(np.ones(10, np.int64)).tolist() == [HEAD] * 2 + [MIDDLE] * 6 + [TAIL] * 2
    assert popularity_class(np.array([0, 5, 0])).tolist() == [TAIL, HEAD, TAIL]


def test_nearest_cosine_in_blocks_and_with_a_zero_vector() -> None:
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(300, 5)).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    queries[3] = 0
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True).clip(1e-9) for one in (queries, items)]
    np.testing.assert_allclose(nearest_cosine(queries, items), (unit[0] @ unit[1].T).max(axis=1), atol=1e-6)


def test_every_slice_is_described_and_the_fine_ones_labelled() -> None:
    assert set(slices.DESCRIPTIONS) == set(slices.LABELS) | set(slices.MAIN)
    ends = {f"{low}" if low == high else f"{low}_{high or 'up'}" for low, high in BINS}
    names = {f"{side}_history_{end}" for side in ("warm", "cold") for end in ends}
    assert names <= set(slices.LABELS)
