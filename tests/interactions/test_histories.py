from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pressmark.interactions.histories import Histories

LISTS = [[3, 1, 4], [], [1], [5, 9, 2, 6]]
lists = st.lists(st.lists(st.integers(0, 20), max_size=6), max_size=6)


def test_lists_are_packed_end_to_end() -> None:
    histories = Histories.from_lists(LISTS)
    assert histories.values.tolist() == [3, 1, 4, 1, 5, 9, 2, 6]
    assert histories.offsets.tolist() == [0, 3, 3, 4, 8]
    assert histories.lengths.tolist() == [3, 0, 1, 4]
    assert histories.row_of_value().tolist() == [0, 0, 0, 2, 3, 3, 3, 3]
    assert histories[3].tolist() == [5, 9, 2, 6]


@pytest.mark.parametrize("empty", [[], [[]], [[], []]])
def test_nothing_is_a_history_too(empty: list[list[int]]) -> None:
    histories = Histories.from_lists(empty)
    assert len(histories) == len(empty)
    assert (histories.values.dtype, histories.offsets.dtype) == (np.int64, np.int64)
    items, lengths = histories.newest(3)
    assert items.shape == (len(empty), 3)
    assert lengths.tolist() == [0] * len(empty)


def test_newest_items_stand_left_oldest_first() -> None:
    items, lengths = Histories.from_lists(LISTS).newest(3)
    assert items.tolist() == [[3, 1, 4], [-1, -1, -1], [1, -1, -1], [9, 2, 6]]
    assert lengths.tolist() == [3, 0, 1, 3]


def test_take_keeps_the_order_asked_for() -> None:
    taken = Histories.from_lists(LISTS).take(np.array([3, 1, 0, 3]))
    assert [taken[row].tolist() for row in range(4)] == [[5, 9, 2, 6], [], [3, 1, 4], [5, 9, 2, 6]]
    assert len(Histories.from_lists(LISTS).take(np.array([], np.int64))) == 0


@given(lists, st.integers(1, 8))
def test_newest_agrees_with_slicing(lists: list[list[int]], width: int) -> None:
    items, lengths = Histories.from_lists(lists).newest(width)
    for row, one in enumerate(lists):
        assert items[row, : lengths[row]].tolist() == one[-width:]
        assert (items[row, lengths[row] :] == -1).all()


@given(lists, st.data())
def test_take_agrees_with_indexing(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=5)) if lists else []
    taken = Histories.from_lists(lists).take(np.array(rows, np.int64))
    assert [taken[row].tolist() for row in range(len(rows))] == [lists[row] for row in rows]
