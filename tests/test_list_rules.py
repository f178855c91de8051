from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generator.models import random_model, random_table

from pressmark.generator.recommend import GeneratorRecommender
from pressmark.interactions.histories import Histories
from pressmark.list_rules import with_rules
from pressmark.recommender import Recommendations, Requests, allowed_items, check_request, top_k

NUM_ITEMS = 14


class Toy:
    """Fixed scores, some of them equal."""

    def __init__(self, scores: np.ndarray) -> None:
        self.num_items, self.scores = len(scores), scores.astype(np.float32)
        self.filters: dict[str, np.ndarray] = {}

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        check_request(self, requests, k)
        scores = np.repeat(self.scores[None], len(requests), axis=0)
        return top_k(scores, allowed_items(self.filters, requests, self.num_items), k)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(1, 3))
def test_lists_are_the_best_that_keep_the_rules(seed: int, k: int, share: float, most: int) -> None:
    rng = np.random.default_rng(seed)
    toy = Toy(rng.integers(0, 9, NUM_ITEMS))
    toy.filters |= {"new": rng.random(NUM_ITEMS) < 0.3, "stock": rng.random(NUM_ITEMS) < 0.8}
    brand = rng.integers(-1, 4, NUM_ITEMS)
    requests = Requests(Histories.from_lists([[0, 1], []]), ["stock", None])
    answer = with_rules(toy, requests, k, {"new": share}, {"brand": most}, {"brand": brand})
    assert set(toy.filters) == {"new", "stock"}
    assert answer.exact is None
    least = int(np.ceil(share * k - 1e-9))
    for row, allowed in enumerate(allowed_items(toy.filters, requests, NUM_ITEMS)):
        items = answer.item_index[row, : answer.num_valid[row]]
        assert allowed[items].all()
        assert len(set(items.tolist())) == len(items)
        assert (np.unique(brand[items][brand[items] >= 0], return_counts=True)[1] <= most).all()
        assert (np.diff(answer.scores[row, : len(items)]) <= 0).all()
        # As many new ones as asked for, or as there can be.
        room = sum(min(most, n) if b >= 0 else n for b, n in counts(brand[allowed & toy.filters["new"]]))
        assert toy.filters["new"][items].sum() >= min(least, room)
        assert len(items) == min(k, most_items(brand, allowed, toy.filters["new"], most, least, k))
        if not share:
            best = max(
                (
                    sorted(toy.scores[list(one)].tolist(), reverse=True)
                    for one in valid_lists(brand, allowed, most, len(items))
                ),
                default=[],
            )
            assert answer.scores[row, : len(items)].tolist() == best


def counts(groups: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(*(one.tolist() for one in np.unique(groups, return_counts=True)), strict=True))


def most_items(brand: np.ndarray, allowed: np.ndarray, new: np.ndarray, most: int, least: int, k: int) -> int:
    """How many items a list can hold: taking new ones first never costs a place."""
    return sum(min(most, n) if b >= 0 else n for b, n in counts(brand[allowed]))


def valid_lists(brand: np.ndarray, allowed: np.ndarray, most: int, num: int) -> list[tuple[int, ...]]:
    return [
        one
        for one in itertools.combinations(np.flatnonzero(allowed).tolist(), num)
        if all(n <= most for b, n in counts(brand[list(one)]) if b >= 0)
    ]


def test_over_the_generator() -> None:
    table = random_table(5, 120, (7, 8, 9))
    model = GeneratorRecommender(random_model(5, table), table, beam=30)
    model.filters["new"] = np.arange(len(table)) % 10 == 0
    category = np.arange(len(table)) % 4
    requests = Requests(Histories.from_lists([[1, 2], [], [3]]), certify=True)
    answer = with_rules(model, requests, 8, {"new": 0.25}, {"category": 2}, {"category": category})
    assert answer.num_valid.tolist() == [8, 8, 8]
    assert (model.filters["new"][answer.item_index].sum(axis=1) >= 2).all()
    for row in answer.item_index:
        assert np.bincount(category[row], minlength=4).tolist() == [2, 2, 2, 2]
    assert set(model.filters) == {"new"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"at_least": {"new": 1.5}}, "share from 0 to 1"),
        ({"at_least": {"old": 0.5}}, "'old' is not registered"),
        ({"at_least": {"new": 0.5, "other": 0.5}}, "it can keep one"),
        ({"at_most": {"brand": 0}, "groups": {"brand": np.zeros(4, int)}}, "at least 1"),
        ({"at_most": {"brand": 1}}, "names the group 'brand'; known groups: none"),
        ({"at_most": {"brand": 1}, "groups": {"brand": np.zeros(3, int)}}, "each of the 4 items"),
    ],
)
def test_rules_that_make_no_sense(rules: dict[str, object], message: str) -> None:
    toy = Toy(np.arange(4))
    toy.filters["new"] = np.ones(4, bool)
    with pytest.raises(ValueError, match=message):
        with_rules(toy, Requests(Histories.from_lists([[]])), **{"k": 3, **rules})  # type: ignore[arg-type]


def test_groups_may_be_lists() -> None:
    toy, groups = Toy(-np.arange(4)), {"brand": [0, 0, 1, -1]}
    requests = Requests(Histories.from_lists([[]]))
    answer = with_rules(toy, requests, 3, at_most={"brand": 1}, groups=groups)  # type: ignore[arg-type]
    assert answer.item_index.tolist() == [[0, 2, 3]]


def test_another_thread_may_ask_in_between() -> None:
    # The best eight are of one brand: it is full, and closed, when the others are asked for.
    brand = np.repeat([0, 1, 2], [8, 3, 3])
    requests = Requests(Histories.from_lists([[]]))

    def ask(model: Toy) -> list[int]:
        answer = with_rules(model, requests, 3, at_most={"brand": 1}, groups={"brand": brand})
        return answer.item_index[0].tolist()  # type: ignore[no-any-return]

    class Interrupted(Toy):
        """Somebody else asks, and is answered, each time before this answer is found."""

        inside = False

        def recommend(self, asked: Requests, k: int) -> Recommendations:
            if not self.inside:
                self.inside = True
                found.append(with_rules(self, requests, 2, at_most={"b": 1}, groups={"b": brand * 0}))
                self.inside = False
            return super().recommend(asked, k)

    found: list[Recommendations] = []
    model = Interrupted(-np.arange(NUM_ITEMS))
    assert ask(model) == [0, 8, 11]
    assert [one.item_index[0].tolist() for one in found] == [[0, -1]] * len(found)
    assert not model.filters
