from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.contract.recommender_contract import check_recommender
from tests.generator.models import TINY, facts_of, random_model, random_table

from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.recommend import GeneratorRecommender


@pytest.mark.parametrize("history_input", ["tokens", "items", "causal"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_beam_over_everything_keeps_the_contract(history_input: str, shared: bool) -> None:
    table = random_table(11, 40, (4, 5, 3), shared=shared)
    model = random_model(11, table, dataclasses.replace(TINY, history_input=history_input))
    check_recommender(GeneratorRecommender(model, table), len(table))


def test_a_narrow_beam_keeps_it_too() -> None:
    table = random_table(12, 90, (7, 5, 300))
    recommender = GeneratorRecommender(random_model(12, table), table, beam=4, batch_size=7)
    check_recommender(recommender, len(table), exhaustive=False)


@pytest.mark.parametrize("shared", [False, True])
def test_a_decoder_that_starts_from_the_item_head_keeps_it(shared: bool) -> None:
    table = random_table(13, 40, (4, 5, 3), shared=shared)
    vectors = np.random.default_rng(1).normal(size=(len(table), 6)).astype(np.float32)
    config = dataclasses.replace(TINY, history_input="causal", normalizer="trie")
    model = random_model(13, table, config, vectors=vectors)
    assert isinstance(model, CausalT5)
    check_recommender(GeneratorRecommender(model, table, facts=facts_of(model, vectors)), len(table))
