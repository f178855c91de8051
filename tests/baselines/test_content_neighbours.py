from __future__ import annotations

import numpy as np
import pytest
from tests.cases import cases
from tests.contract.recommender_contract import check_recommender

from pressmark.baselines.content_neighbours import (
    Config,
    ContentNeighbours,
    choose_decay,
    decayed_mean,
)
from pressmark.catalog.embeddings import unit_rows
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests

# Five items in the plane; item 4 has no text.
VECTORS = unit_rows(np.array([[1, 0], [0, 2], [1, 1], [-3, 0], [0, 0]], np.float32))
POPULARITY = np.array([0, 3, 1, 5, 3], np.float32)


def test_decayed_mean_by_hand() -> None:
    histories = Histories.from_lists([[0, 1, 3], [0, 0], [4], []])
    before = histories.values.copy()
    found = decayed_mean(histories, VECTORS, 0.5)
    # [0.25 * (1, 0) + 0.5 * (0, 1) + (-1, 0), 0.5 * (1, 0) + (1, 0), 0, 0]
    assert found.tolist() == [[-0.75, 0.5], [1.5, 0], [0, 0], [0, 0]]
    assert decayed_mean(histories, VECTORS, 0.0)[0].tolist() == [-1, 0]
    assert decayed_mean(histories, VECTORS, 1.0)[0].tolist() == [0, 1]
    np.testing.assert_array_equal(histories.values, before)


def test_cosines_to_the_last_item() -> None:
    answer = ContentNeighbours(VECTORS, POPULARITY, 0.0).recommend(Requests(Histories.from_lists([[3, 0]])), 5)
    # Item 2 at 45 degrees; 1 (at a right angle) and 4 (no text) both score 0; 0 and 3 are in the history.
    assert answer.item_index.tolist() == [[2, 1, 4, -1, -1]]
    np.testing.assert_allclose(answer.scores[0, :3], [np.sqrt(0.5), 0, 0], atol=1e-7)


def test_a_history_that_says_nothing_is_answered_by_popularity() -> None:
    model = ContentNeighbours(VECTORS, POPULARITY, 0.5)
    requests = Requests(Histories.from_lists([[], [4]]), mask_history=False)
    assert model.recommend(requests, 5).item_index.tolist() == [[3, 1, 4, 2, 0]] * 2


def test_the_decay_is_chosen_on_validation() -> None:
    # Newest item 3, before it 0: only a mean that still feels item 0 puts item 1 or 2 first.
    valid = cases([[0, 0, 3]] * 3, [2, 2, 2])
    best, ndcg = choose_decay(VECTORS, POPULARITY, valid, (0.0, 0.9))
    assert best == 0.9
    # Decay 0.9: (0.81 + 0.9 - 1, 0) points to item 0's side: 2 is first. Decay 0: 1 and 4 score 0, 2 below.
    assert ndcg == {0.0: pytest.approx(1 / np.log2(4)), 0.9: pytest.approx(1.0)}


def test_a_target_in_its_own_history_counts_as_missed() -> None:
    _, ndcg = choose_decay(VECTORS, POPULARITY, cases([[2], [0]], [2, 2]), (0.0,))
    assert ndcg == {0.0: pytest.approx(0.5)}


def test_the_choice_looks_at_no_more_cases_than_it_may() -> None:
    valid = cases([[0], [3], [0]], [2, 2, 2])
    _, ndcg = choose_decay(VECTORS, POPULARITY, valid, (0.0,), max_cases=2)
    assert ndcg == {0.0: pytest.approx(1.0)}


@pytest.mark.parametrize("decays", [(), (1.2,), (-0.1, 0.5), (float("nan"),)])
def test_bad_decays_are_refused(decays: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="decays"):
        Config(decays=decays)


def test_contract() -> None:
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng.standard_normal((40, 6)))
    vectors[[3, 17]] = 0
    vectors[9] = vectors[30]
    for decay in (0.0, 0.5, 1.0):
        check_recommender(ContentNeighbours(vectors, rng.integers(0, 9, 40).astype(np.float32), decay), 40)
