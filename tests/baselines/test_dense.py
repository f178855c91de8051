from __future__ import annotations

import numpy as np
import pytest
from tests.cases import cases

from pressmark.baselines import dense
from pressmark.baselines.popularity import Popularity
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    model = Popularity(rng.integers(0, 5, 30).astype(np.float32))
    requests = Requests(Histories.from_lists([rng.integers(0, 30, size).tolist() for size in range(11)]))
    whole = model.recommend(requests, 7)
    monkeypatch.setattr(dense, "SCORES_AT_ONCE", 4 * 30 + 1)
    chunked = model.recommend(requests, 7)
    np.testing.assert_array_equal(whole.item_index, chunked.item_index)
    np.testing.assert_array_equal(whole.scores, chunked.scores)
    np.testing.assert_array_equal(whole.num_valid, chunked.num_valid)


def test_a_catalog_larger_than_a_chunk_is_answered_one_request_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dense, "SCORES_AT_ONCE", 2)
    answer = Popularity(np.arange(5, dtype=np.float32)).recommend(Requests(Histories.from_lists([[4], []])), 2)
    assert answer.item_index.tolist() == [[3, 2], [4, 3]]


def test_a_model_that_is_nan_but_at_the_target_is_not_chosen() -> None:
    def score(histories: Histories) -> np.ndarray:
        return np.array([[np.nan, 0.0, np.nan, np.nan]], np.float32).repeat(len(histories), 0)

    with pytest.raises(ValueError, match="place 2 is nan"):
        dense.choose({"broken": score}, 4, cases([[0]], [1]), 10)
