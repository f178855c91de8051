from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests, allowed_items, check_request, top_k


class Nothing:
    num_items = 4
    filters: dict[str, np.ndarray] = {"two": np.array([True, True, False, False])}  # noqa: RUF012

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        raise NotImplementedError


def test_allowed_items_joins_filter_and_history() -> None:
    histories = Histories.from_lists([[0], [], [1, 0]])
    requests = Requests(histories, filter="two")
    expected = [[False, True, False, False], [True, True, False, False], [False] * 4]
    assert allowed_items(Nothing.filters, requests, 4).tolist() == expected
    unmasked = allowed_items(Nothing.filters, Requests(histories, mask_history=False), 4)
    assert unmasked.all()


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 2**6 - 1),
)
def test_top_k_is_a_full_sort_with_the_lower_item_first(rows: list[list[int]], k: int, bits: int) -> None:
    scores = np.array(rows, np.float32)
    allowed = np.tile(np.array([bits >> item & 1 for item in range(6)], bool), (len(rows), 1))
    found = top_k(scores, allowed, k)
    for row in range(len(rows)):
        expected = sorted(np.flatnonzero(allowed[row]), key=lambda item: (-scores[row, item], item))[:k]
        assert found.item_index[row, : found.num_valid[row]].tolist() == expected
        assert found.num_valid[row] == len(expected)
        assert (found.item_index[row, len(expected) :] == -1).all()


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AssertionError, match="finite"):
        Recommendations(np.array([[0]]), np.array([[np.nan]], np.float32), np.array([1]))


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("k", [2, 4])
def test_a_score_that_ranks_nowhere_is_refused(odd: float, k: int) -> None:
    scores = np.array([[3, 2, 1, 0], [odd, odd, odd, 3]], np.float32)
    with pytest.raises(ValueError, match=f"request 1: the score at place 0 is {odd}"):
        top_k(scores, np.ones((2, 4), bool), k)
    hidden = np.array([[True] * 4, [False, False, False, True]])
    assert top_k(scores, hidden, k).item_index[1, :2].tolist() == [3, -1]


@pytest.mark.parametrize(
    ("requests", "k", "message"),
    [
        (Requests(Histories.from_lists([[0]])), 0, "k is 0"),
        (Requests(Histories.from_lists([[4]])), 1, "item_index 4"),
        (Requests(Histories.from_lists([[0]]), filter="three"), 1, "known filters: two"),
    ],
)
def test_bad_requests_are_refused(requests: Requests, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_request(Nothing(), requests, k)


def test_a_cart_is_masked_as_the_history_is_and_is_its_newest_part() -> None:
    requests = Requests(
        Histories.from_lists([[0], [1, 2]]),
        cart=Histories.from_lists([[3, 1], []]),
        context=np.array(["north", ""], object),
    )
    assert allowed_items({}, requests, 4).tolist() == [[False, False, True, False], [True, False, False, True]]
    joined = requests.with_cart_as_history()
    assert [joined.histories[row].tolist() for row in range(2)] == [[0, 3, 1], [1, 2]]
    assert joined.cart is None
    second = requests.take(np.array([1]))
    assert second.cart is not None
    assert second.context is not None
    assert (second.cart.lengths.tolist(), second.context.tolist()) == ([0], [""])
    check_request(Nothing(), joined, 1)


class Carts(Nothing):
    reads = frozenset({"cart"})


def test_bad_carts_and_contexts_are_refused() -> None:
    histories = Histories.from_lists([[0], [1]])
    carts = Histories.from_lists([[2], [9]])
    with pytest.raises(ValueError, match=r"Nothing reads no cart: ask it Requests\.with_cart_as_history"):
        check_request(Nothing(), Requests(histories, cart=carts), 1)
    with pytest.raises(ValueError, match="a cart holds item_index 9; the catalog has items 0 to 3"):
        check_request(Carts(), Requests(histories, cart=carts), 1)
    with pytest.raises(ValueError, match="1 carts for 2 requests"):
        check_request(Carts(), Requests(histories, cart=carts.take(np.array([0]))), 1)
    with pytest.raises(ValueError, match="1 contexts for 2 requests"):
        check_request(Carts(), Requests(histories, context=np.array(["n"], object)), 1)
