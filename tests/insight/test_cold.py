from __future__ import annotations

import numpy as np
import pytest

from pressmark.insight.cold import cold_against_warm

COLD = np.array([False, False, False, False, True, True])
#                 warm    warm    warm    warm    cold    cold
CODES = np.array([[0, 0], [0, 1], [0, 1], [1, 0], [0, 0], [2, 0]])


def test_prefixes_by_hand() -> None:
    vectors = np.eye(6, dtype=np.float32)
    found = cold_against_warm(vectors, CODES, vectors, COLD, {})
    # Of the cold, the first shares both codes with a warm item, the second none.
    assert (found["prefix_shared_1_cold"], found["prefix_shared_2_cold"]) == (1 / 2, 1 / 2)
    # Of the warm, three share the first code, two both; a cold item with the same codes does not count.
    assert (found["prefix_shared_1_warm"], found["prefix_shared_2_warm"]) == (3 / 4, 2 / 4)
    assert found["prefix_shared_1_gap"] == 1 / 4


def test_reconstruction_by_hand() -> None:
    vectors = np.array([[0.0], [2.0], [0.0], [2.0], [3.0], [1.0]], np.float32)
    decoded = np.array([[0.0], [2.0], [0.0], [1.0], [2.0], [1.0]], np.float32)
    found = cold_against_warm(vectors, CODES, decoded, COLD, {})
    assert found["reconstruction_r2_warm"] == pytest.approx(1 - 1 / 4)
    assert found["reconstruction_r2_cold"] == pytest.approx(1 - 1 / 4)  # around the warm mean 1: 4 + 0
    decoded[4] = 3.0
    found = cold_against_warm(vectors, CODES, decoded, COLD, {})
    assert found["reconstruction_r2_gap"] == pytest.approx(-1 / 4)


def test_the_commonest_category_of_the_other_warm_items() -> None:
    vectors = np.eye(6, dtype=np.float32)
    category = np.array([7, 7, 3, 3, 7, 7])
    found = cold_against_warm(vectors, CODES, vectors, COLD, {"leaf": category})
    # Cold: 7 is the commonest below code 0; below code 2 there is nobody.
    assert found["majority_leaf_cold"] == 1 / 2
    # Warm below code 0: without itself the first sees 7, 3: a tie, which the lower node takes; the second too;
    # the third sees 7, 7; the fourth, below code 1, nobody.
    assert found["majority_leaf_warm"] == 0
    category = np.array([3, 3, 3, -1, 3, -1])
    found = cold_against_warm(vectors, CODES, vectors, COLD, {"leaf": category})
    assert (found["majority_leaf_warm"], found["majority_leaf_cold"]) == (1.0, 1.0)


def test_one_side_alone_has_nothing_to_compare() -> None:
    vectors = np.eye(6, dtype=np.float32)
    assert cold_against_warm(vectors, CODES, vectors, np.zeros(6, bool), {}) == {}
    assert cold_against_warm(vectors, CODES, vectors, np.ones(6, bool), {}) == {}


def test_a_category_that_no_cold_item_has_gives_no_gap() -> None:
    vectors = np.eye(6, dtype=np.float32)
    category = np.array([0, 0, 0, 0, -1, -1])
    found = cold_against_warm(vectors, CODES, vectors, COLD, {"leaf": category})
    assert found["majority_leaf_warm"] == 3 / 4
    assert not found.keys() & {"majority_leaf_cold", "majority_leaf_gap"}
