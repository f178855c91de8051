from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories

CASES = Cases(
    case_id=np.array([7, 8, 9]),
    user_id=np.array(["a", "b", "c"], object),
    histories=Histories.from_lists([[1, 2], [], [3]]),
    target=np.array([4, 5, 6]),
    cold=np.array([False, True, True]),
)


@pytest.mark.parametrize("rows", [np.array([2, 0]), np.array([2, 0], np.int32)])
def test_take_by_number_keeps_the_order(rows: np.ndarray) -> None:
    taken = CASES.take(rows)
    assert taken.case_id.tolist() == [9, 7]
    assert taken.user_id.tolist() == ["c", "a"]
    assert [taken.histories[row].tolist() for row in range(2)] == [[3], [1, 2]]
    assert taken.target.tolist() == [6, 4]
    assert taken.cold.tolist() == [True, False]


def test_take_by_mask() -> None:
    assert CASES.take(CASES.cold).case_id.tolist() == [8, 9]
    assert len(CASES.take(np.zeros(3, bool))) == 0


def test_columns_of_different_lengths_are_no_cases() -> None:
    with pytest.raises(AssertionError, match="different lengths"):
        Cases(CASES.case_id[:2], CASES.user_id, CASES.histories, CASES.target, CASES.cold)


def test_the_last_training_item_is_held_back_and_stays_in_the_histories_asked() -> None:
    asked = Cases(
        np.arange(2),
        np.array(["a", "c"], object),
        Histories.from_lists([[1, 2, 3], [5, 6]]),
        np.array([4, 7]),
        np.zeros(2, bool),
    )
    split = Split(
        Histories.from_lists([[1, 2, 3], [9], [5, 6]]),
        np.array(["a", "b", "c"], object),
        np.arange(6.0),
        np.arange(6) * 10,
        asked,
        asked,
        np.zeros(10, bool),
        np.ones(10, bool),
    )
    found = split.held_back()
    # An only item stays: a shopper without any would have no sequence.
    assert [found.train[row].tolist() for row in range(3)] == [[1, 2], [9], [5]]
    assert found.train_timestamp.tolist() == [0, 1, 3, 4]
    assert found.train_position.tolist() == [0, 10, 30, 40]
    assert found.valid.histories[0].tolist() == [1, 2, 3]


def test_cold_items_are_simulated_without_a_trace_in_training() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 30, size).tolist() for size in rng.integers(1, 9, 40)]
    asked = Cases(
        np.arange(40),
        np.array([f"u{one}" for one in range(40)], object),
        Histories.from_lists(lists),
        rng.integers(0, 28, 40),
        np.zeros(40, bool),
    )
    train = Histories.from_lists(lists)
    num = len(train.values)
    outer_cold = np.arange(30) >= 28
    split = Split(
        train, asked.user_id, np.arange(float(num)), np.arange(num), asked, asked, outer_cold, ~outer_cold
    )
    found = split.simulating_cold(0.2, seed=3)
    hidden = found.cold & ~outer_cold
    assert hidden.sum() == round(0.2 * len(np.unique(asked.target)))
    assert set(np.flatnonzero(hidden)) <= set(asked.target.tolist())
    for part in (found.train, found.valid.histories):
        assert not hidden[part.values].any()
    assert (found.train.lengths > 0).all()
    assert found.valid.cold.tolist() == hidden[asked.target].tolist()
    assert found.valid.target.tolist() == asked.target.tolist()
    assert (found.fitted_on == ~found.cold).all()
    assert len(found.test) == 0
    # What is left stands as it stood, shopper by shopper, times and all.
    held = split.held_back()
    kept = ~hidden[held.train.values]
    np.testing.assert_array_equal(found.train.values, held.train.values[kept])
    np.testing.assert_array_equal(found.train_timestamp, held.train_timestamp[kept])
    assert found.train_user_id.tolist() == list(dict.fromkeys(asked.user_id[held.train.row_of_value()[kept]]))
    own = replace(split, valid=replace(asked, cold=asked.target == 5))
    assert (
        own.simulating_cold(0.2, seed=3).valid.cold.tolist()
        == (hidden[asked.target] | (asked.target == 5)).tolist()
    )
    assert own.simulating_cold(0.2, seed=3).cold[5]
    again = split.simulating_cold(0.2, seed=3)
    assert (again.cold == found.cold).all()
    assert (split.simulating_cold(0.2, seed=4).cold != found.cold).any()
