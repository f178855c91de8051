from __future__ import annotations

from math import log

import numpy as np
import pytest
from tests.contract.recommender_contract import check_recommender

from pressmark.baselines.bm25 import Config, fit
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests

TEXTS = ["red tea", "Green tea, tea!", "red socks", "", "blue jar"]
SOLD = np.array([0, 3, 1, 5, 3], np.float32)
ALL = np.ones(5, bool)


def test_weights_by_hand() -> None:
    model = fit(TEXTS, ALL, SOLD, 0.0, Config(k1=1.2, b=0.75))
    # Of 5 texts 2 hold "tea"; 9 words in all. Text 1: 3 words, "tea" twice.
    rarity = log(1 + (5 - 2 + 0.5) / (2 + 0.5))
    slack = 1.2 * (0.25 + 0.75 * 3 / (9 / 5))
    scores = model.scores(Histories.from_lists([[0]]))[0]
    assert scores[1] == pytest.approx(rarity * 2 * 2.2 / (2 + slack), rel=1e-6)
    assert scores[3] == scores[4] == 0
    # "red" alone: text 2 is as long as text 0.
    assert scores[2] == pytest.approx(rarity * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / (9 / 5))), rel=1e-6)


def test_the_newest_item_asks_loudest() -> None:
    near = fit(TEXTS, ALL, SOLD, 0.0, Config()).scores(Histories.from_lists([[4, 2], [2]]))
    np.testing.assert_array_equal(near[0], near[1])
    both = fit(TEXTS, ALL, SOLD, 0.5, Config()).scores(Histories.from_lists([[4, 2]]))[0]
    alone = fit(TEXTS, ALL, SOLD, 0.5, Config()).scores(Histories.from_lists([[4], [2]]))
    np.testing.assert_allclose(both, 0.5 * alone[0] + alone[1], rtol=1e-6)


def test_a_history_without_words_is_answered_by_popularity() -> None:
    answer = fit(TEXTS, ALL, SOLD, 0.5, Config()).recommend(
        Requests(Histories.from_lists([[], [3]]), mask_history=False), 5
    )
    assert answer.item_index.tolist() == [[3, 1, 4, 2, 0]] * 2


def test_hidden_texts_change_no_statistic_and_are_found_all_the_same() -> None:
    seen = np.array([True, True, True, True, False])
    one = fit(TEXTS, seen, SOLD, 0.0, Config())
    other = fit([*TEXTS[:4], "tea tea tea unheard"], seen, SOLD, 0.0, Config())
    np.testing.assert_array_equal(one.weights[:4].toarray(), other.weights[:4].toarray())
    assert other.scores(Histories.from_lists([[0]]))[0, 4] > 0
    assert one.words[4].nnz == 0  # "blue" and "jar" stand nowhere that may be looked at


def test_a_catalog_without_words() -> None:
    model = fit(["", " . "], np.ones(2, bool), SOLD[:2], 0.0, Config())
    assert model.scores(Histories.from_lists([[0]])).tolist() == [[0, 3]]


@pytest.mark.parametrize("wrong", [{"decays": ()}, {"decays": (2.0,)}, {"k1": -1.0}, {"b": 1.1}])
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"bm25.*{next(iter(wrong))}"):
        Config(**wrong)  # type: ignore[arg-type]


def test_contract() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 30, rng.integers(0, 8))) for _ in range(40)]
    for decay in (0.0, 0.5, 1.0):
        check_recommender(fit(texts, np.ones(40, bool), SOLD.repeat(8), decay, Config()), 40)
