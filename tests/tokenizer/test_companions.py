from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.catalog.embeddings import unit_rows
from pressmark.interactions.histories import Histories
from pressmark.tokenizer import companions
from pressmark.tokenizer.companions import bought_together, neighbours, pair_matrix


def lists_of(histories: Histories) -> list[list[int]]:
    return [histories[row].tolist() for row in range(len(histories))]


def brute_force(vectors: np.ndarray, items: np.ndarray, count: int, min_cosine: float) -> list[list[int]]:
    """Nearest first, by one cosine after the other."""
    found: list[list[int]] = [[] for _ in vectors]
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1)
    for one in items:
        scored = [
            (float(vectors[one].astype(np.float64) @ vectors[other]) / (norm[one] * norm[other]), other)
            for other in items
            if other != one and norm[one] > 0 and norm[other] > 0
        ]
        near = sorted((cosine, other) for cosine, other in scored if cosine >= min_cosine)[::-1]
        found[one] = [int(other) for _, other in near[:count]]
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0.05, 0.5, 0.9]))
def test_neighbours_are_the_nearest_by_brute_force(seed: int, count: int, min_cosine: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(30, 3)).astype(np.float32) * rng.uniform(0.1, 9, size=(30, 1)).astype(np.float32)
    vectors[rng.integers(30, size=3)] = 0.0
    # In any order; what is outside has no list and stands in none.
    items = rng.permutation(30)[: rng.integers(1, 31)]
    found = neighbours(vectors, items, count, min_cosine, seed=0)
    assert found.values.dtype == found.offsets.dtype == np.int64
    assert lists_of(found) == brute_force(vectors, items, count, min_cosine)


def test_one_item_has_no_neighbours() -> None:
    assert lists_of(neighbours(np.ones((3, 2), np.float32), np.array([1]), 5, 0.5, 0)) == [[], [], []]


def twins(num_pairs: int = 400) -> np.ndarray:
    """Items 2 i and 2 i + 1 are near duplicates, cosine above 0.99; others are far from them."""
    rng = np.random.default_rng(0)
    one = np.repeat(rng.normal(size=(num_pairs, 16)), 2, axis=0)
    return (one + 0.05 * rng.normal(size=one.shape)).astype(np.float32)


def test_a_large_catalog_finds_nearly_all_near_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = twins()
    items = np.random.default_rng(1).permutation(800)[:700]
    exact = lists_of(neighbours(vectors, items, 3, 0.9, seed=0))
    assert sum(map(len, exact)) > 500
    monkeypatch.setattr(companions, "EXACT", 100)
    monkeypatch.setattr(companions, "CELL", 40)
    found = lists_of(neighbours(vectors, items, 3, 0.9, seed=0))
    # Nothing is found that the exact search does not find, and next to nothing is missed.
    assert all(set(few) <= set(all_of_them) for few, all_of_them in zip(found, exact, strict=True))
    assert sum(map(len, found)) >= 0.98 * sum(map(len, exact))
    assert lists_of(neighbours(vectors, items, 3, 0.9, seed=0)) == found


def test_in_a_large_catalog_each_item_asks_once_those_of_its_two_nearest_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(companions, "EXACT", 100)
    monkeypatch.setattr(companions, "CELL", 40)
    units = torch.from_numpy(unit_rows(twins()))
    blocks = companions._blocks(units, seed=0)
    assert len(blocks) > 10
    assert sorted(np.concatenate([asking for asking, _ in blocks]).tolist()) == list(range(800))
    for asking, among in blocks:
        assert set(asking) <= set(among)
        assert len(np.unique(among)) == len(among) < 400
    # Every item stands in exactly two cells.
    held = np.bincount(np.concatenate([among for _, among in blocks]), minlength=800)
    assert held.max() == 2
    assert held.mean() > 1.9


def test_bought_together_by_hand() -> None:
    #            u0: 0-1, 1-2, 2-1     u1: nothing   u2: 3-3, 3-0     u3: 4-1, 1-5 (both outside)
    histories = Histories.from_lists([[0, 1, 2, 1], [], [3, 3, 0], [4, 1, 5]])
    found = bought_together(histories, 7, np.array([0, 1, 2, 3]))
    # 1 and 2 met twice. Not 1-3 or 0-4: another shopper. Not 3-3: itself.
    assert [sorted(one) for one in lists_of(found)] == [[1, 3], [0, 2, 2], [1, 1], [0], [], [], []]


def test_bought_together_is_symmetric_and_empty_without_interactions() -> None:
    assert lists_of(bought_together(Histories.from_lists([]), 3, np.arange(3))) == [[], [], []]
    assert lists_of(bought_together(Histories.from_lists([[], []]), 2, np.arange(2))) == [[], []]
    rng = np.random.default_rng(0)
    users = [rng.integers(12, size=rng.integers(0, 7)).tolist() for _ in range(40)]
    found = lists_of(bought_together(Histories.from_lists(users), 12, np.arange(12)))
    expected = np.zeros((12, 12), int)
    for user in users:
        for first, second in pairwise(user):
            if first != second:
                expected[first, second] += 1
                expected[second, first] += 1
    counted = np.array([np.bincount(one, minlength=12) for one in found])
    assert (counted == expected).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_pair_matrix_is_the_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = [rng.integers(15, size=rng.integers(0, 5)).tolist() for _ in range(15)]
    items = rng.permutation(15)[: rng.integers(1, 16)]
    expected = [[int(other) in lists[one] for other in items] for one in items]
    assert pair_matrix(Histories.from_lists(lists), items).tolist() == expected
