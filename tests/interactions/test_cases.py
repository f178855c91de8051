from __future__ import annotations

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
