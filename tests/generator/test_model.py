from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.generator.models import TINY, encode_lists, random_model, random_table

from pressmark.files import read_json, write_json
from pressmark.generator.config import ModelConfig
from pressmark.generator.model import (
    ItemFacts,
    build_model,
    embed,
    encoder_arguments,
    item_tokens,
    load_model,
    start_from_codebooks,
)
from pressmark.sids.table import SidTable
from pressmark.sids.vocabulary import EOS, PAD, Vocabulary

TABLE = random_table(0, 9, (3, 4))


def test_the_default_is_tigers_size() -> None:
    model = build_model(ModelConfig(), random_table(0, 50, (256,) * 4), history_length=20)
    config = model.config
    assert (config.num_layers, config.num_decoder_layers, config.num_heads, config.d_kv) == (4, 4, 6, 64)
    assert (config.d_model, config.d_ff, config.dropout_rate, config.vocab_size) == (128, 1024, 0.1, 1026)
    assert 4.0e6 < model.num_parameters() < 5.5e6
    assert not model.generation_config.do_sample
    assert model.generation_config.length_penalty == 0.0
    assert model.generation_config.max_new_tokens == 4


def test_a_decoder_of_its_own_depth() -> None:
    model = build_model(dataclasses.replace(TINY, num_layers=1, num_decoder_layers=3), TABLE, 5)
    assert (len(model.encoder.block), len(model.decoder.block)) == (1, 3)
    assert len(build_model(dataclasses.replace(TINY, num_layers=1), TABLE, 5).decoder.block) == 1


def test_histories_spelled_as_tokens() -> None:
    sid = item_tokens(TABLE)[:-1].tolist()
    encoded = encode_lists(TABLE, [[4, 7], [], [2]])
    assert encoded.input_ids.tolist() == [
        [*sid[4], *sid[7], EOS],
        [EOS, PAD, PAD, PAD, PAD],
        [*sid[2], EOS, PAD, PAD],
    ]
    assert encoded.attention_mask.tolist() == [[1] * 5, [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_histories_spelled_as_items() -> None:
    sid = item_tokens(TABLE)[:-1].tolist()
    encoded = encode_lists(TABLE, [[4, 7], []], "items")
    newest = Vocabulary(TABLE.level_sizes).size
    end, nothing = [EOS, PAD, PAD], [PAD, PAD, PAD]
    assert encoded.input_ids.tolist() == [
        [[*sid[4], newest + 1], [*sid[7], newest], end],
        [end, nothing, nothing],
    ]
    assert encoded.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_an_item_is_the_sum_of_its_tokens_without_padding() -> None:
    weight = torch.tensor([[100.0], [1.0], [20.0], [3.0]])
    assert embed(weight, torch.tensor([[[2, 3], [1, 0]]])).tolist() == [[[23.0], [1.0]]]
    assert embed(weight, torch.tensor([[2, 0]])).tolist() == [[[20.0], [100.0]]]


@pytest.mark.parametrize("history_input", ["tokens", "items", "causal"])
def test_a_saved_model_is_the_same_model(tmp_path: Path, history_input: str) -> None:
    config = dataclasses.replace(TINY, history_input=history_input)
    model = random_model(3, TABLE, config)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, TABLE)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Tied before, tied after: training on must move all three alike.
    assert loaded.lm_head.weight is loaded.shared.weight is loaded.encoder.embed_tokens.weight
    assert loaded.config.history_length == 6
    assert loaded.config.history_input == history_input
    assert not loaded.training
    encoded = encode_lists(TABLE, [[1, 2], []], history_input)
    arguments = encoder_arguments(model, encoded.input_ids)
    labels = item_tokens(TABLE)[[3, 4]]
    with torch.no_grad():
        logits = [
            one(**arguments, attention_mask=encoded.attention_mask, labels=labels).logits
            for one in (model, loaded)
        ]
    assert torch.equal(*logits)


def test_a_beam_of_one_can_be_saved_too(tmp_path: Path) -> None:
    build_model(TINY, TABLE, 5, beam=1).save_pretrained(tmp_path)
    assert load_model(tmp_path, TABLE).generation_config.num_beams == 1


def test_token_vectors_start_from_codebook_entries() -> None:
    rng = np.random.default_rng(0)
    narrow = [rng.normal(3.0, 5.0, size=(size, 4)).astype(np.float32) for size in TABLE.level_sizes]
    narrow[1][:] = 0.0  # a suffix level: nothing to start from
    model = build_model(TINY, TABLE, 5)
    before = model.shared.weight.detach().clone()
    start_from_codebooks(model, narrow)
    weight = model.shared.weight.detach()
    started = weight[2:5, :4].numpy()
    np.testing.assert_allclose(started.mean(0), 0.0, atol=1e-6)
    assert started.std() == pytest.approx(1.0, abs=1e-5)
    assert np.corrcoef(started.ravel(), (narrow[0] - narrow[0].mean(0)).ravel())[0, 1] > 0.9999
    weight[2:5, :4] = before[2:5, :4]
    assert torch.equal(weight, before)  # special tokens, other columns and the suffix level stay


def test_wide_codebook_entries_keep_their_geometry() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(6, 40))
    wide = [(rng.normal(size=(size, 6)) @ plane).astype(np.float32) for size in TABLE.level_sizes]
    model = build_model(TINY, TABLE, 5)  # d_model 16
    start_from_codebooks(model, wide)
    first = 2
    for book in wide:
        got = model.shared.weight.detach()[first : first + len(book), :7].numpy()
        centred = book - book.mean(0)
        # Seven entries span at most seven axes, so all inner products survive, up to the common scale.
        scale = np.square(centred).sum() / np.square(got).sum()
        np.testing.assert_allclose(got @ got.T * scale, centred @ centred.T, rtol=1e-3, atol=1e-3)
        first += len(book)


def test_a_model_of_other_codebooks_is_refused(tmp_path: Path) -> None:
    random_model(3, TABLE).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="codebooks books, the SID table is of codebooks others"):
        load_model(tmp_path, SidTable(TABLE.sids, TABLE.level_sizes, "others"))
    with pytest.raises(ValueError, match="level_sizes"):
        load_model(tmp_path, SidTable(TABLE.sids, (3, 5), "books"))
    later = SidTable(TABLE.sids[:4], TABLE.level_sizes, "books", version=7)
    assert load_model(tmp_path, later).config.vocab_size == 9


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Run train_generator first"):
        load_model(tmp_path, TABLE)


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    random_model(3, TABLE, TINY).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", config | {"history_input": "causal"})
    with pytest.raises(ValueError, match=r"lacks item_head\.age; another version of Pressmark saved it"):
        load_model(tmp_path, TABLE)


def test_what_nobody_could_buy_is_taken_for_middling() -> None:
    facts = ItemFacts.of(None, np.array([0, 1, 7, 0, 3]))
    typical = (np.log(2) + np.log(8) + np.log(4)) / 3
    expected = [typical, np.log(2), np.log(8), typical, np.log(4)]
    np.testing.assert_allclose(facts.log_count, expected, rtol=1e-6)
    np.testing.assert_allclose(facts.then(None, 2).log_count, [*expected, typical, typical], rtol=1e-6)
    assert ItemFacts.of(None, np.zeros(3, np.int64)).log_count.tolist() == [0, 0, 0]


def test_a_generator_of_another_format_is_refused(tmp_path: Path) -> None:
    table = random_table(0, 20, (4, 4))
    model = build_model(dataclasses.replace(TINY, history_input="causal", normalizer="trie"), table, 4)
    model.config.format = 1
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another version of Pressmark saved it"):
        load_model(tmp_path, table)


def test_what_no_model_can_be() -> None:
    with pytest.raises(ValueError, match=r"identity_dropout is 1\.5; it must be from 0 to 1"):
        ModelConfig(identity_dropout=1.5)
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"popularity_prior is .*; it must be 0 or above"):
            ModelConfig(popularity_prior=wrong)
