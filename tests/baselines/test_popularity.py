from __future__ import annotations

import numpy as np
from tests.contract.recommender_contract import check_recommender

from pressmark.baselines.popularity import Popularity, count_items
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


def test_contract() -> None:
    counts = np.random.default_rng(0).integers(0, 6, 40).astype(np.float32)
    check_recommender(Popularity(counts), 40)
