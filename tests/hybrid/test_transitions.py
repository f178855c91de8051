from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from pressmark.baselines.cooccurrence import FOLLOWING, transitions
from pressmark.hybrid.transitions import DECAY, ONCE, count_transitions
from pressmark.interactions.histories import Histories

TRAIN = Histories.from_lists([[0, 1, 2], [1, 0], [2, 2], [3]])
NOBODY = csr_matrix((5, 5), dtype=np.float32)


def test_what_follows_by_hand() -> None:
    # 0 is followed by 1 at once and by 2 one later; 1 by 2 and by 0; 2 by itself alone, 3 and 4 by nothing.
    found = transitions(TRAIN, 5).toarray()
    expected = np.zeros((5, 5))
    expected[0, [1, 2]] = [2 / 3, 1 / 3]
    expected[1, [2, 0]] = 1 / 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_far_apart_is_not_one_after_the_other() -> None:
    found = transitions(Histories.from_lists([range(FOLLOWING + 2)]), FOLLOWING + 2)
    assert found[0, FOLLOWING] > 0
    assert found[0, FOLLOWING + 1] == 0
    assert found[1, 0] == 0


@pytest.mark.parametrize("rows", [[], [[1]], [[], [1], [2]]])
def test_sequences_of_one_have_no_transition(rows: list[list[int]]) -> None:
    assert transitions(Histories.from_lists(rows), 3).nnz == 0


def test_a_history_is_a_mixture_of_its_items() -> None:
    model, chain = count_transitions(TRAIN, 5, NOBODY), transitions(TRAIN, 5).toarray()
    histories = Histories.from_lists([[0, 1], [1], [3], []])
    share = np.array([2, 2, 3, 1, 0]) + ONCE
    share /= share.sum()
    expected = np.stack([(DECAY * chain[0] + chain[1]) / (1 + DECAY), chain[1], chain[3], np.zeros(5)])
    np.testing.assert_allclose(model.scores(histories), np.log(expected + share), rtol=1e-5)


def test_a_product_without_purchases_is_seen_through_its_neighbours() -> None:
    neighbours = NOBODY.tolil()
    neighbours[4, [1, 2]] = [0.25, 0.75]
    neighbours[0, 1] = 1.0  # it sells: what its neighbours do is not asked
    plain, seen = (count_transitions(TRAIN, 5, csr_matrix(one)) for one in (NOBODY, neighbours))
    histories = Histories.from_lists([[0, 1], [1]])
    chances = [np.exp(one.scores(histories)) for one in (plain, seen)]
    np.testing.assert_allclose(chances[1][:, :4], chances[0][:, :4], rtol=1e-5)
    np.testing.assert_allclose(chances[1][:, 4], chances[0] @ [0, 0.25, 0.75, 0, 0], rtol=1e-5)
