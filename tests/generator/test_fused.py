"""The GPU's kernels, in Triton's interpreter: they must answer as the search that defines the answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generator.models import TINY, encode_lists, random_model, random_table
from tests.generator.test_beam_search import Case, cases

from pressmark.generator.beam_search import Beams, SearchTrie
from pressmark.generator.beam_search import search as plain_search
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.sids.trie import build_trie

pytest.importorskip("triton")

from pressmark.generator import fused, kernels
from pressmark.generator.fused import FusedDecoder


def agree(found: Beams, wanted: Beams) -> None:
    assert torch.equal(found.num_valid, wanted.num_valid)
    valid = wanted.score > -torch.inf
    torch.testing.assert_close(found.score, wanted.score, atol=1e-4, rtol=0)
    assert torch.equal(found.leaf, wanted.leaf)
    assert torch.equal(found.codes[valid], wanted.codes[valid])
    torch.testing.assert_close(found.pruned, wanted.pruned, atol=1e-4, rtol=0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases(), st.sampled_from(["full", "level", "trie"]))
def test_answers_are_those_of_the_plain_search(case: Case, normalizer: str) -> None:
    found = case.beams(fused.search, FusedDecoder, normalizer=normalizer)
    agree(found, case.beams(normalizer=normalizer))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(cases(beams=(40,)))
def test_equal_scores_stand_in_the_order_of_sids(case: Case) -> None:
    # All codes are alike: every SID has the score of every other.
    with torch.no_grad():
        case.model.lm_head.weight.zero_()
    agree(case.beams(fused.search, FusedDecoder), case.beams())


@pytest.mark.parametrize("history_input", ["tokens", "items", "causal"])
@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_states_are_those_of_the_plain_encoder(history_input: str, feed_forward: str) -> None:
    table = random_table(0, 30, (4, 4, 4))
    config = dataclasses.replace(TINY, history_input=history_input, feed_forward=feed_forward)  # type: ignore[arg-type]
    model = random_model(0, table, config)
    encoded = encode_lists(table, [[0, 1, 2, 3, 4, 5], [], [7]], config.history_input)
    states = [
        one.encode(encoded.input_ids, encoded.attention_mask)
        for one in (T5Decoder(model), FusedDecoder(model, torch.float32))
    ]
    counts = encoded.attention_mask != 0
    torch.testing.assert_close(states[1][counts], states[0][counts], atol=1e-5, rtol=1e-5)


def test_what_the_kernels_are_not_made_for_goes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(0, 300, (300, 3))
    model = random_model(0, table)
    encoded = encode_lists(table, [[1, 2], [3]])
    decoder, trie = FusedDecoder(model, torch.float32), SearchTrie.of(build_trie(table.sids, (300, 3)))
    states = decoder.encode(encoded.input_ids, encoded.attention_mask)
    assert decoder.fits(trie, 12, states.shape[1])
    assert not decoder.fits(trie, 12, fused.MOST_POSITIONS + 1)
    assert not decoder.fits(trie, fused.MOST_OFFERS // 128, states.shape[1])
    assert not decoder.fits(SearchTrie.of(build_trie(table.sids[:1], (300, 3))), 2000, states.shape[1])
    monkeypatch.setattr(kernels, "decoder_step", None)
    monkeypatch.setattr(fused, "MOST_OFFERS", 100)
    arguments = decoder, states, encoded.attention_mask, trie, 12
    agree(fused.search(*arguments), plain_search(*arguments))


def test_nothing_is_found_in_an_empty_trie() -> None:
    table = random_table(0, 30, (4, 4))
    model = random_model(0, table)
    encoded = encode_lists(table, [[1], []])
    decoder = FusedDecoder(model, torch.float32)
    states = decoder.encode(encoded.input_ids, encoded.attention_mask)
    trie = SearchTrie.of(build_trie(table.sids, (4, 4), np.array([], np.int64)))
    found = fused.search(decoder, states, encoded.attention_mask, trie, 5)
    assert found.num_valid.tolist() == [0, 0]


@pytest.mark.parametrize("wrong", [{"beam": 0}, {"normalizer": "none"}, {"prior": []}])
def test_bad_arguments_are_refused_as_by_the_plain_search(wrong: dict[str, object]) -> None:
    table = random_table(0, 30, (4, 4))
    decoder = FusedDecoder(random_model(0, table), torch.float32)
    encoded = encode_lists(table, [[1]])
    states = decoder.encode(encoded.input_ids, encoded.attention_mask)
    trie = SearchTrie.of(build_trie(table.sids, (4, 4)))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fused.search(decoder, states, encoded.attention_mask, trie, **{"beam": 5, **wrong})  # type: ignore[arg-type]


def test_without_a_trie_every_code_follows_every_other() -> None:
    class Free(SearchTrie):
        constrains = False

    table = random_table(0, 5, (4, 4, 4))
    decoder = FusedDecoder(random_model(0, table), torch.float32)
    encoded = encode_lists(table, [[1, 2]])
    states = decoder.encode(encoded.input_ids, encoded.attention_mask)
    every = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    full = SearchTrie.of(build_trie(every, (4, 4, 4)))
    free = Free(**vars(full))
    arguments = decoder, states, encoded.attention_mask
    assert torch.equal(fused.search(*arguments, free, 6).codes, fused.search(*arguments, full, 6).codes)


@pytest.mark.parametrize(("activation", "width"), [("silu", 16), ("relu", 160)])
def test_models_that_the_kernels_are_not_made_for_go_the_plain_way(activation: str, width: int) -> None:
    table = random_table(0, 30, (4, 4))
    gated = activation != "relu"
    config = dataclasses.replace(TINY, d_model=width, feed_forward="gated-gelu" if gated else "relu")
    model = random_model(0, table, config)
    if gated:
        model.config.dense_act_fn = activation
    decoder, plain = FusedDecoder(model, torch.float32), T5Decoder(model)
    encoded = encode_lists(table, [[1, 2], []])
    trie = SearchTrie.of(build_trie(table.sids, (4, 4)))
    states = decoder.encode(encoded.input_ids, encoded.attention_mask)
    assert torch.equal(states, plain.encode(encoded.input_ids, encoded.attention_mask))
    agree(
        fused.search(decoder, states, encoded.attention_mask, trie, 5),
        plain_search(plain, states, encoded.attention_mask, trie, 5),
    )
