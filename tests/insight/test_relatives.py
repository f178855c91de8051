from __future__ import annotations

import numpy as np
import pytest

from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.insight.prefixes import find_prefixes
from pressmark.insight.relatives import relatives

MILK, OATS, CATS = ("Dairy", "Milk", "Whole"), ("Dairy", "Oat", "Drinks"), ("Pets", "Cats", "Milk")
SIDS = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 5, 0], [0, 3, 0, 0], [1, 0, 0, 0]])
TREE = build_taxonomy([(MILK,), (MILK,), (OATS,), (CATS,), (CATS,)])
VECTORS = np.array([[1, 0], [0, 1], [1, 0.1], [1, 0], [1, 0]], np.float32)


def test_more_shared_codes_come_before_a_greater_cosine() -> None:
    substitutes, cousins = relatives(find_prefixes(SIDS), TREE, VECTORS, np.arange(5), 3)
    assert substitutes[0].tolist() == [1, 2, -1]  # two codes or more; 3 shares one, 4 none
    assert cousins[0].tolist() == [3, -1, -1]  # 2 is of another category too, and named already
    assert substitutes[4].tolist() == cousins[4].tolist() == [-1, -1, -1]


def test_equal_prefixes_by_cosine_and_any_items_in_any_order() -> None:
    sids = np.zeros((4, 2), np.int64)
    tree = build_taxonomy([()] * 4)
    vectors = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32)
    substitutes, cousins = relatives(find_prefixes(sids), tree, vectors, np.array([2, 0]), 5)
    assert substitutes.tolist() == [[0, 1, 3, -1, -1], [2, 1, 3, -1, -1]]
    assert (cousins == -1).all()


@pytest.mark.parametrize("levels", [2, 3, 8])
def test_as_plain_loops(levels: int) -> None:
    rng = np.random.default_rng(levels)
    sids = rng.integers(0, 3, (60, levels))
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    tree = build_taxonomy([(("A", str(one % 3), str(one % 5)),) if one % 7 else () for one in range(60)])
    substitutes, cousins = relatives(find_prefixes(sids), tree, vectors, np.arange(60), 4)
    for item in range(60):
        shared = np.logical_and.accumulate(sids == sids[item], axis=1).sum(axis=1)
        others = [one for one in range(60) if one != item]
        others.sort(key=lambda one: (-shared[one], -float(units[item] @ units[one])))
        near = [one for one in others if shared[one] >= -(-levels // 2)][:4]
        assert [one for one in substitutes[item] if one >= 0] == near
        relation = tree.relation(np.full(60, item), np.arange(60))
        far = [one for one in others if shared[one] >= 1 and relation[one] in (0, 1) and one not in near][:4]
        assert [one for one in cousins[item] if one >= 0] == far
