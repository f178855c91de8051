"""What every recommender owes its callers: one list of checks, run against each of them.

    check_recommender(recommender, num_items)

The catalog should be small (5 to a few hundred items): single items are asked for, and whole catalogs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Recommender, Requests


def check_recommender(recommender: Recommender, num_items: int, exhaustive: bool = True) -> None:
    """Runs every check.

    Args:
        recommender: The one to judge.
        num_items: Items in its catalog.
        exhaustive: It ranks every allowed item. A beam search may leave items out: it is then held to
            what it says is valid, and not to how much that is.
    """
    assert num_items >= 5, "the checks need a catalog of 5 items or more"
    assert isinstance(recommender, Recommender)
    assert recommender.num_items == num_items
    _check_shapes(recommender, exhaustive)
    _check_more_than_the_catalog(recommender, exhaustive)
    _check_best_item(recommender, exhaustive)
    _check_histories(recommender, exhaustive)
    _check_filters(recommender, exhaustive)
    _check_same_answer(recommender)
    _check_errors(recommender)


def mixed_histories(num_items: int) -> Histories:
    """Empty, short, repeated, long and whole-catalog-but-one histories."""
    rng = np.random.default_rng(0)
    return Histories.from_lists(
        [
            [],
            [0],
            [num_items - 1, 1, num_items - 1],
            [2] * 45,
            rng.integers(0, num_items, 60).tolist(),
            rng.permutation(num_items)[1:].tolist(),
            [],
            [3, 1, 4],
        ]
    )


def allowed(requests: Requests, row: int, num_items: int, mask: np.ndarray | None = None) -> set[int]:
    """The items that a request may be answered with, worked out the slow way."""
    items = set(range(num_items)) if mask is None else set(np.flatnonzero(mask).tolist())
    return items - set(requests.histories[row].tolist()) if requests.mask_history else items


def check_answer(
    answer: Recommendations,
    requests: Requests,
    k: int,
    num_items: int,
    mask: np.ndarray | None = None,
    exhaustive: bool = True,
) -> None:
    """Checks one answer: form, order, padding and that nothing forbidden stands in it."""
    num = len(requests)
    assert answer.item_index.shape == (num, k)
    assert answer.item_index.dtype == np.int64
    assert answer.scores.shape == (num, k)
    assert answer.scores.dtype == np.float32
    assert answer.num_valid.shape == (num,)
    assert answer.num_valid.dtype == np.int64
    if answer.exact is not None:
        assert answer.exact.shape == (num,)
        assert answer.exact.dtype == bool
    for row in range(num):
        valid = int(answer.num_valid[row])
        items, scores = answer.item_index[row, :valid].tolist(), answer.scores[row, :valid]
        assert (answer.item_index[row, valid:] == -1).all()
        assert np.isneginf(answer.scores[row, valid:]).all()
        assert np.isfinite(scores).all()
        may = allowed(requests, row, num_items, mask)
        assert set(items) <= may
        assert len(set(items)) == len(items), f"row {row} holds an item twice: {items}"
        order = sorted(range(valid), key=lambda place: (-scores[place], items[place]))
        assert order == list(range(valid)), f"row {row}: best first, and of equal scores the lower item_index"
        if exhaustive:
            assert valid == min(k, len(may)), f"row {row}: {valid} items where {len(may)} are allowed, k {k}"


def _ask(
    recommender: Recommender, requests: Requests, k: int, exhaustive: bool, mask: np.ndarray | None = None
) -> Recommendations:
    values, offsets = requests.histories.values.copy(), requests.histories.offsets.copy()
    answer = recommender.recommend(requests, k)
    check_answer(answer, requests, k, recommender.num_items, mask, exhaustive)
    np.testing.assert_array_equal(
        requests.histories.values, values, "a recommender must not change its request"
    )
    np.testing.assert_array_equal(requests.histories.offsets, offsets)
    return answer


def _check_shapes(recommender: Recommender, exhaustive: bool) -> None:
    histories = mixed_histories(recommender.num_items)
    for mask_history in (True, False):
        answer = _ask(recommender, Requests(histories, mask_history=mask_history), 3, exhaustive)
        # The first row has seen nothing: whatever the model, it has something to say.
        assert answer.num_valid[0] > 0
    _ask(recommender, Requests(Histories.from_lists([])), 3, exhaustive)
    _ask(recommender, Requests(Histories.from_lists([[], []])), 3, exhaustive)


def _check_more_than_the_catalog(recommender: Recommender, exhaustive: bool) -> None:
    num_items = recommender.num_items
    for mask_history in (True, False):
        requests = Requests(mixed_histories(num_items), mask_history=mask_history)
        answer = _ask(recommender, requests, num_items + 7, exhaustive)
        assert (answer.num_valid <= num_items).all()
    everything = Requests(Histories.from_lists([list(range(num_items))]))
    assert _ask(recommender, everything, 4, exhaustive).num_valid.tolist() == [0]


def _check_best_item(recommender: Recommender, exhaustive: bool) -> None:
    requests = Requests(mixed_histories(recommender.num_items))
    one = _ask(recommender, requests, 1, exhaustive)
    if exhaustive:
        whole = _ask(recommender, requests, recommender.num_items, exhaustive)
        np.testing.assert_allclose(one.scores[:, 0], whole.scores[:, 0], rtol=1e-4, atol=1e-5)


def _check_histories(recommender: Recommender, exhaustive: bool) -> None:
    """Masking takes the history's items out and leaves the others in their order."""
    if not exhaustive:
        return
    num_items = recommender.num_items
    histories = mixed_histories(num_items)
    masked = recommender.recommend(Requests(histories), num_items)
    open_ = recommender.recommend(Requests(histories, mask_history=False), num_items)
    for row in range(len(histories)):
        seen = set(histories[row].tolist())
        kept = np.array([item not in seen for item in open_.item_index[row]])
        width = int(kept.sum())
        _assert_same_ranking(
            masked.item_index[row, :width],
            masked.scores[row, :width],
            open_.item_index[row, kept],
            open_.scores[row, kept],
        )


def _check_filters(recommender: Recommender, exhaustive: bool) -> None:
    num_items = recommender.num_items
    histories = mixed_histories(num_items)
    for mask in _masks(num_items):
        # One name for all masks: an answer kept from the mask before would show.
        with _filter(recommender, "contract", mask):
            for mask_history in (True, False):
                for k in (1, 3, num_items + 1):
                    requests = Requests(histories, "contract", mask_history)
                    answer = _ask(recommender, requests, k, exhaustive, mask)
                    assert mask.any() or not answer.num_valid.any()


def _masks(num_items: int) -> list[np.ndarray]:
    single = np.zeros(num_items, bool)
    single[num_items // 2] = True
    even = np.arange(num_items) % 2 == 0
    return [even, ~even, single, np.zeros(num_items, bool), np.ones(num_items, bool)]


@contextmanager
def _filter(recommender: Recommender, name: str, mask: np.ndarray) -> Iterator[None]:
    recommender.filters[name] = mask
    try:
        yield
    finally:
        del recommender.filters[name]


def _check_same_answer(recommender: Recommender) -> None:
    """The same request twice gives the same answer; alone or in company, the same up to rounding."""
    histories = mixed_histories(recommender.num_items)
    together = recommender.recommend(Requests(histories), 5)
    again = recommender.recommend(Requests(histories), 5)
    np.testing.assert_array_equal(together.item_index, again.item_index)
    np.testing.assert_array_equal(together.scores, again.scores)
    for row in range(len(histories)):
        alone = recommender.recommend(Requests(Histories.from_lists([histories[row]])), 5)
        assert alone.num_valid[0] == together.num_valid[row]
        valid = int(alone.num_valid[0])
        _assert_same_ranking(
            alone.item_index[0, :valid],
            alone.scores[0, :valid],
            together.item_index[row, :valid],
            together.scores[row, :valid],
        )


def _assert_same_ranking(
    items: np.ndarray, scores: np.ndarray, others: np.ndarray, other_scores: np.ndarray
) -> None:
    """The same scores place by place, and the same items wherever no near-equal score stands beside."""
    np.testing.assert_allclose(scores, other_scores, rtol=1e-4, atol=1e-5)
    # Places whose score is within rounding of a neighbour's, or that close the list, may hold another item.
    gap = np.abs(np.diff(scores)) > 1e-4 * np.abs(scores[:-1]) + 1e-5
    clear = np.append(gap, False)[: len(scores)] & np.insert(gap, 0, True)[: len(scores)]
    np.testing.assert_array_equal(items[clear], others[clear])


def _check_errors(recommender: Recommender) -> None:
    histories = mixed_histories(recommender.num_items)
    for k in (0, -1):
        with pytest.raises(ValueError, match=r"\bk\b"):
            recommender.recommend(Requests(histories), k)
    with pytest.raises(ValueError, match="no-such-filter"):
        recommender.recommend(Requests(histories, "no-such-filter"), 3)
    for bad in (recommender.num_items, -1):
        with pytest.raises(ValueError, match=str(bad)):
            recommender.recommend(Requests(Histories.from_lists([[0], [bad]])), 3)
