from __future__ import annotations

import numpy as np
import pytest

from pressmark.interactions.cases import Cases
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
