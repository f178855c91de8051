from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from tests.contract.recommender_contract import check_recommender

from pressmark.baselines.cooccurrence import Config, Cooccurrence, likeness
from pressmark.baselines.popularity import count_items
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests

TRAIN = Histories.from_lists([[0, 1, 2], [1, 0], [2, 2], [4]])


def test_likeness_by_hand() -> None:
    # Sales: 2, 2, 3, 0, 1. Adjacent: 0-1 twice, 1-2 once; an item is not like itself.
    near = likeness(TRAIN, 5, 1, 0.0).toarray()
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = 2 / sqrt(2 * 2)
    expected[1, 2] = expected[2, 1] = 1 / sqrt(2 * 3)
    np.testing.assert_allclose(near, expected, rtol=1e-6)
    for window in (2, 0, 9):
        whole = likeness(TRAIN, 5, window, 0.0).toarray()
        assert whole[0, 2] == whole[2, 0] == pytest.approx(1 / sqrt(2 * 3))
    assert likeness(TRAIN, 5, 1, 5.0).toarray()[0, 1] == pytest.approx(2 / sqrt(2 * 2 + 5))


def test_sequences_do_not_run_into_each_other() -> None:
    apart = likeness(Histories.from_lists([[0], [1], [2]]), 3, 0, 0.0)
    assert apart.nnz == 0


def test_what_is_like_nothing_stands_behind_by_popularity() -> None:
    model = Cooccurrence(likeness(TRAIN, 5, 1, 1.0), count_items(TRAIN, 5), 0.5)
    answer = model.recommend(Requests(Histories.from_lists([[1], []])), 5)
    assert answer.item_index.tolist() == [[0, 2, 4, 3, -1], [2, 0, 1, 4, 3]]
    assert answer.scores[0, 1] > 0 > answer.scores[0, 2]


@pytest.mark.parametrize("wrong", [{"decays": ()}, {"windows": ()}, {"windows": (-1,)}, {"shrinkage": -1.0}])
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"cooccurrence.*{next(iter(wrong))}"):
        Config(**wrong)  # type: ignore[arg-type]


def test_contract() -> None:
    rng = np.random.default_rng(0)
    train = Histories.from_lists([rng.integers(0, 30, 6) for _ in range(50)])
    for decay in (0.0, 0.5, 1.0):
        model = Cooccurrence(likeness(train, 40, 2, 1.0), count_items(train, 40), decay)
        check_recommender(model, 40)
