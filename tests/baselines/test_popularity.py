from __future__ import annotations

import numpy as np
import pytest
from tests.contract.recommender_contract import check_recommender

from pressmark.baselines.popularity import DAY, Config, Popularity, count_items, recent_counts
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests


def test_counts_rank_and_equal_counts_go_by_item_index() -> None:
    train = Histories.from_lists([[3, 1, 3], [1, 0], [4]])
    counts = count_items(train, 6)
    assert counts.tolist() == [1, 2, 0, 2, 1, 0]
    answer = Popularity(counts).recommend(Requests(Histories.from_lists([[], [3, 0]])), 6)
    assert answer.item_index.tolist() == [[1, 3, 0, 4, 2, 5], [1, 4, 2, 5, -1, -1]]
    assert answer.scores[0].tolist() == [2, 2, 1, 1, 0, 0]


def test_an_empty_training_set_still_ranks_everything() -> None:
    answer = Popularity(count_items(Histories.from_lists([]), 3)).recommend(
        Requests(Histories.from_lists([[]])), 3
    )
    assert answer.item_index.tolist() == [[0, 1, 2]]


def test_a_purchase_counts_half_a_half_life_later() -> None:
    past = np.array([0, 1, 1, 2]), np.array([0, 30, 60, np.nan]) * DAY
    assert recent_counts(*past, 4, 30).tolist() == [0.25, 1.5, 0, 0]
    assert recent_counts(*past, 4, 0).tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("wrong", [(), (-1.0,), (float("nan"),)])
def test_bad_half_lives_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="half_lives"):
        Config(half_lives=wrong)


def test_contract() -> None:
    counts = np.random.default_rng(0).integers(0, 6, 40).astype(np.float32)
    check_recommender(Popularity(counts), 40)
