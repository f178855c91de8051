from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tests.generator.models import (
    TINY,
    encode_lists,
    exhaustive_scores,
    facts_of,
    random_model,
    random_table,
)

from pressmark.generator.model import item_tokens
from pressmark.generator.recommend import KNOWN_MASKS, GeneratorRecommender
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests
from pressmark.sids.table import SidTable

# Items 0 and 3 share a SID, and so do 1, 2 and 4.
SHARED = SidTable(np.array([[1, 0], [0, 2], [0, 2], [1, 0], [0, 2], [1, 1]]), (2, 3), "books")


def test_items_of_one_sid_stand_together_in_item_order() -> None:
    model = random_model(1, SHARED)
    answer = GeneratorRecommender(model, SHARED).recommend(Requests(Histories.from_lists([[], [2, 5]])), 6)
    scores = exhaustive_scores(model, encode_lists(SHARED, [[], [2, 5]]), item_tokens(SHARED)[:-1]).numpy()
    expected = sorted(range(6), key=lambda item: (-round(float(scores[0, item]), 4), item))
    assert answer.item_index[0].tolist() == expected
    assert answer.num_valid.tolist() == [6, 4]
    # Excluding item 2 leaves its fellows 1 and 4; excluding 5 empties its leaf.
    assert set(answer.item_index[1, :4].tolist()) == {0, 1, 3, 4}
    np.testing.assert_allclose(answer.scores[0], scores[0, expected], atol=1e-4)
    assert answer.exact is not None
    assert answer.exact.all()


def test_the_whole_history_is_excluded_and_the_newest_is_read() -> None:
    table = random_table(2, 80, (5, 6, 7))
    model = random_model(2, table)  # reads 6 items
    recommender = GeneratorRecommender(model, table, beam=100)
    long = list(range(30))
    answer = recommender.recommend(Requests(Histories.from_lists([long])), 100)
    assert sorted(answer.item_index[0, : answer.num_valid[0]].tolist()) == list(range(30, len(table)))
    newest = recommender.recommend(Requests(Histories.from_lists([long[-6:]]), mask_history=False), 100)
    scores = dict(zip(newest.item_index[0], newest.scores[0], strict=True))
    np.testing.assert_allclose(
        answer.scores[0, :40], [scores[item] for item in answer.item_index[0, :40]], atol=1e-4
    )


def test_exact_tells_proven_answers() -> None:
    table = random_table(3, 150, (12, 12, 12))
    model = random_model(3, table)
    histories = Histories.from_lists([[item % len(table), 2 * item % len(table)] for item in range(40)])
    requests = Requests(histories, mask_history=False)
    truth = GeneratorRecommender(model, table, beam=len(table)).recommend(requests, 3)
    assert truth.exact is not None
    assert truth.exact.all()
    narrow = GeneratorRecommender(model, table, beam=20).recommend(requests, 3)
    right = (narrow.item_index == truth.item_index).all(axis=1)
    assert narrow.exact is not None
    assert right[narrow.exact].all()
    # The check bites: some are proven, and some are not.
    assert 0 < narrow.exact.sum() < len(requests)


def test_a_wide_answer_raises_the_beam() -> None:
    table = random_table(4, 60, (8, 9))
    recommender = GeneratorRecommender(random_model(4, table), table, beam=2)
    assert recommender.recommend(Requests(Histories.from_lists([[1]])), 20).num_valid.tolist() == [20]


def test_batches_do_not_mix_requests_up() -> None:
    table = random_table(5, 60, (8, 9))
    model = random_model(5, table)
    rng = np.random.default_rng(0)
    histories = Histories.from_lists([rng.integers(0, 40, rng.integers(0, 12)) for _ in range(23)])
    small = GeneratorRecommender(model, table, beam=9, batch_size=4).recommend(Requests(histories), 5)
    large = GeneratorRecommender(model, table, beam=9, batch_size=64).recommend(Requests(histories), 5)
    np.testing.assert_array_equal(small.item_index, large.item_index)
    np.testing.assert_allclose(small.scores, large.scores, atol=1e-4)


def test_a_filter_may_change_under_its_name() -> None:
    table = random_table(6, 60, (8, 9))
    recommender = GeneratorRecommender(random_model(6, table), table)
    mask = np.zeros(len(table), bool)
    mask[[3, 5]] = True
    recommender.filters["stock"] = mask
    requests = Requests(Histories.from_lists([[]]), filter="stock")
    assert set(recommender.recommend(requests, 4).item_index[0].tolist()) == {3, 5, -1}
    mask[5] = False
    assert recommender.recommend(requests, 4).item_index[0].tolist() == [3, -1, -1, -1]


def test_threads_may_ask_at_once_for_more_filters_than_are_kept() -> None:
    table = random_table(7, 60, (8, 9))
    recommender = GeneratorRecommender(random_model(7, table), table)
    for item in range(len(table)):
        for copy in "ab":
            recommender.filters[f"{copy}{item}"] = np.arange(len(table)) == item
    names = sorted(recommender.filters, key=lambda name: name[::-1])
    assert len(names) > KNOWN_MASKS

    def ask(name: str) -> int:
        requests = Requests(Histories.from_lists([[]]), filter=name)
        return int(recommender.recommend(requests, 1).item_index[0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, names)) == [int(name[1:]) for name in names]


@pytest.mark.parametrize("mask", [np.ones(3, bool), np.ones(60)])
def test_a_filter_of_another_catalog_is_refused(mask: np.ndarray) -> None:
    table = random_table(6, 60, (8, 9))
    recommender = GeneratorRecommender(random_model(6, table), table)
    recommender.filters["stock"] = mask
    with pytest.raises(ValueError, match=f"'stock' has the shape .* of the {len(table)} items"):
        recommender.recommend(Requests(Histories.from_lists([[]]), filter="stock"), 4)


def test_bf16_answers_are_valid() -> None:
    table = random_table(7, 60, (8, 9))
    config = dataclasses.replace(TINY, history_input="items")
    recommender = GeneratorRecommender(random_model(7, table, config), table, dtype=torch.bfloat16)
    answer = recommender.recommend(Requests(Histories.from_lists([[1, 2], []])), len(table))
    assert answer.num_valid.tolist() == [len(table) - 2, len(table)]


@pytest.mark.parametrize(("beam", "batch_size"), [(0, 4), (4, 0)])
def test_bad_sizes(beam: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        GeneratorRecommender(random_model(1, SHARED), SHARED, beam=beam, batch_size=batch_size)


def test_a_weight_that_is_nan_is_refused() -> None:
    table = random_table(2, 80, (5, 6, 7))
    model = random_model(2, table)
    model.shared.weight.data[1] = torch.nan
    with pytest.raises(ValueError, match=r"weight shared\.weight holds NaN"):
        GeneratorRecommender(model, table)


def test_scores_that_are_nan_are_no_empty_answer() -> None:
    table = random_table(2, 80, (5, 6, 7))
    vectors = np.random.default_rng(0).normal(size=(len(table), 6)).astype(np.float32)
    config = dataclasses.replace(TINY, history_input="causal", normalizer="trie")
    model = random_model(2, table, config, vectors=vectors)
    facts = facts_of(model, vectors)
    assert facts.content is not None
    facts.content[7] = torch.nan
    recommender = GeneratorRecommender(model, table, facts=facts)
    with pytest.raises(ValueError, match="request 0: the score at place 0 is nan"):
        recommender.recommend(Requests(Histories.from_lists([[1, 2], []])), 5)


def test_a_table_of_other_codebooks_is_refused() -> None:
    table = random_table(2, 80, (5, 6, 7))
    model = random_model(2, table)
    with pytest.raises(ValueError, match="codebooks books, the SID table is of codebooks others"):
        GeneratorRecommender(model, dataclasses.replace(table, codebook_fingerprint="others"))
    with pytest.raises(ValueError, match=r"level_sizes \(5, 6, 7\), the SID table \(5, 6, 8\)"):
        GeneratorRecommender(model, dataclasses.replace(table, level_sizes=(5, 6, 8)))
