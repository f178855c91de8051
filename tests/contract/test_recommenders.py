"""The contract, proved able to fail: a right recommender passes, each broken one does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from tests.contract.recommender_contract import check_recommender

from pressmark.recommender import Recommendations, Requests, allowed_items, check_request, top_k

NUM_ITEMS = 9


class Toy:
    """Scores an item by its distance to the newest one, with many ties."""

    def __init__(
        self, spoil: Callable[[Toy, Requests, Recommendations], Recommendations] | None = None
    ) -> None:
        self.num_items = NUM_ITEMS
        self.filters: dict[str, np.ndarray] = {}
        self.spoil = spoil
        self.calls = 0

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        check_request(self, requests, k)
        newest, lengths = requests.histories.newest(1)
        near = np.where(lengths[:, None] > 0, newest, 4)
        scores = -np.abs(np.arange(NUM_ITEMS) - near).astype(np.float32)
        answer = top_k(scores, allowed_items(self.filters, requests, NUM_ITEMS), k)
        self.calls += 1
        return self.spoil(self, requests, answer) if self.spoil else answer


def test_a_right_recommender_passes() -> None:
    check_recommender(Toy(), NUM_ITEMS)


def worst_first(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
    full = answer.num_valid == answer.item_index.shape[1]
    items, scores = answer.item_index.copy(), answer.scores.copy()
    items[full], scores[full] = items[full, ::-1], scores[full, ::-1]
    return dataclasses.replace(answer, item_index=items, scores=scores)


def ties_by_higher_index(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
    items = answer.item_index.copy()
    for row, valid in enumerate(answer.num_valid):
        order = np.lexsort((-items[row, :valid], -answer.scores[row, :valid]))
        items[row, :valid] = items[row, order]
    return dataclasses.replace(answer, item_index=items)


def ignores_the_mask(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
    if not requests.mask_history:
        return answer
    k = answer.item_index.shape[1]
    return Toy.recommend(toy, dataclasses.replace(requests, mask_history=False), k)


def one_item_short(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
    items, scores = answer.item_index.copy(), answer.scores.copy()
    rows = np.flatnonzero(answer.num_valid > 1)
    items[rows, answer.num_valid[rows] - 1] = -1
    scores[rows, answer.num_valid[rows] - 1] = -np.inf
    num_valid = answer.num_valid - (answer.num_valid > 1)
    return dataclasses.replace(answer, item_index=items, scores=scores, num_valid=num_valid)


def same_item_twice(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
    items, scores = answer.item_index.copy(), answer.scores.copy()
    rows = np.flatnonzero(answer.num_valid > 1)
    items[rows, 1], scores[rows, 1] = items[rows, 0], scores[rows, 0]
    return dataclasses.replace(answer, item_index=items, scores=scores)


def drifts_from_call_to_call(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
    scores = answer.scores - np.float32(toy.calls)
    return dataclasses.replace(answer, scores=scores)


def depends_on_company(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
    return dataclasses.replace(answer, scores=answer.scores + np.float32(len(requests)))


@pytest.mark.parametrize(
    "spoil",
    [
        worst_first,
        ties_by_higher_index,
        ignores_the_mask,
        one_item_short,
        same_item_twice,
        drifts_from_call_to_call,
        depends_on_company,
    ],
)
def test_a_broken_one_does_not(
    spoil: Callable[[Toy, Requests, Recommendations], Recommendations],
) -> None:
    def once(toy: Toy, requests: Requests, answer: Recommendations) -> Recommendations:
        toy.spoil = None
        try:
            return spoil(toy, requests, answer)
        finally:
            toy.spoil = once

    with pytest.raises(AssertionError):
        check_recommender(Toy(once), NUM_ITEMS)


def test_errors_are_required() -> None:
    class Silent(Toy):
        def recommend(self, requests: Requests, k: int) -> Recommendations:
            try:
                return super().recommend(requests, k)
            except ValueError:
                return top_k(
                    np.zeros((len(requests), NUM_ITEMS), np.float32), np.zeros((1, NUM_ITEMS), bool), 1
                )

    with pytest.raises(pytest.fail.Exception):
        check_recommender(Silent(), NUM_ITEMS)


def test_a_stale_filter_is_found() -> None:
    class Stale(Toy):
        def recommend(self, requests: Requests, k: int) -> Recommendations:
            check_request(self, requests, k)
            if requests.filter:
                kept = self.__dict__.setdefault("kept", dict(self.filters))
                real, self.filters = self.filters, kept
                try:
                    return super().recommend(requests, k)
                finally:
                    self.filters = real
            return super().recommend(requests, k)

    with pytest.raises(AssertionError):
        check_recommender(Stale(), NUM_ITEMS)
