from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tests.generator.models import (
    TINY,
    code_priors,
    encode_lists,
    exhaustive_scores,
    facts_of,
    random_model,
    random_table,
    trie_rivals,
)
from torch import Tensor
from transformers import LogitsProcessorList

from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.hf_generate import TrieBeamSearch, TrieLogitsProcessor
from pressmark.generator.item_head import TriePrior
from pressmark.generator.model import encoder_arguments
from pressmark.generator.recommend import GeneratorRecommender
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.trie import Trie, build_trie
from pressmark.sids.vocabulary import PAD, Vocabulary

TABLE = random_table(21, 90, (6, 300, 5), shared=True)
MODEL = random_model(21, TABLE)
ENCODED = encode_lists(TABLE, [[1, 2, 3], [], [5]])
ALLOWED = np.random.default_rng(0).random(len(TABLE)) < 0.3


def tries() -> list[tuple[Trie, np.ndarray | None, np.ndarray]]:
    """A trie, its filter and the items that are left: as built, filtered, changed."""
    built = build_trie(TABLE.sids, TABLE.level_sizes)
    living = LivingTrie(build_trie(TABLE.sids, TABLE.level_sizes, np.arange(40)))
    living.insert(np.arange(40, 90), TABLE.sids[40:])
    everything = np.arange(len(TABLE))
    return [
        (built, None, everything),
        (built, ALLOWED, np.flatnonzero(ALLOWED)),
        (living, ALLOWED, np.flatnonzero(ALLOWED)),
    ]


def generate(**options: Any) -> tuple[Tensor, Tensor]:
    found = MODEL.generate(
        input_ids=ENCODED.input_ids,
        attention_mask=ENCODED.attention_mask,
        max_new_tokens=TABLE.num_levels,
        return_dict_in_generate=True,
        output_scores=True,
        **{"length_penalty": 0.0, "num_beams": 8, "num_return_sequences": 8} | options,
    )
    return found.sequences, found.sequences_scores


def with_a_dict(items: np.ndarray) -> dict[str, Any]:
    children: dict[tuple[int, ...], set[int]] = {}
    for sid in Vocabulary(TABLE.level_sizes).sid_tokens(TABLE.sids[items]).tolist():
        for level, token in enumerate(sid):
            children.setdefault(tuple(sid[:level]), set()).add(token)
    return {"prefix_allowed_tokens_fn": lambda _, sent: sorted(children.get(tuple(sent[1:].tolist()), {PAD}))}


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_both_doors_lead_where_hf_goes_with_a_dict(which: int, penalty: float) -> None:
    trie, mask, items = tries()[which]
    sequences, scores = generate(length_penalty=penalty, **with_a_dict(items))
    processor = LogitsProcessorList([TrieLogitsProcessor(trie, mask)])
    for options in ({"custom_generate": TrieBeamSearch(trie, mask)}, {"logits_processor": processor}):
        found, values = generate(length_penalty=penalty, **options)
        assert found.tolist() == sequences.tolist()
        torch.testing.assert_close(values, scores, atol=1e-4, rtol=0)


def test_fewer_answers_than_beams_and_none_to_give() -> None:
    trie, mask, items = tries()[1]
    best, _ = generate(custom_generate=TrieBeamSearch(trie, mask))
    found = MODEL.generate(
        input_ids=ENCODED.input_ids,
        attention_mask=ENCODED.attention_mask,
        num_beams=8,
        num_return_sequences=2,
        custom_generate=TrieBeamSearch(trie, mask),
    )
    assert found.tolist() == best.reshape(3, 8, -1)[:, :2].flatten(0, 1).tolist()
    one = np.zeros(len(TABLE), bool)
    one[items[0]] = True
    found, scores = generate(custom_generate=TrieBeamSearch(trie, one))
    assert torch.isfinite(scores.reshape(3, 8)).sum(dim=1).tolist() == [1, 1, 1]
    assert (found.reshape(3, 8, -1)[:, 1:] == PAD).all()


def test_sampling_stays_inside_the_trie() -> None:
    trie, mask, items = tries()[2]
    torch.manual_seed(0)
    found = MODEL.generate(
        input_ids=ENCODED.input_ids.repeat(20, 1),
        attention_mask=ENCODED.attention_mask.repeat(20, 1),
        max_new_tokens=TABLE.num_levels,
        do_sample=True,
        num_beams=1,
        logits_processor=LogitsProcessorList([TrieLogitsProcessor(trie, mask)]),
    )
    valid = set(map(tuple, Vocabulary(TABLE.level_sizes).sid_tokens(TABLE.sids[items]).tolist()))
    drawn = set(map(tuple, found[:, 1:].tolist()))
    assert drawn <= valid
    assert len(drawn) > 5


def test_more_answers_than_beams_are_refused() -> None:
    trie = tries()[0][0]
    with pytest.raises(ValueError, match="num_return_sequences"):
        generate(custom_generate=TrieBeamSearch(trie), num_beams=2, num_return_sequences=3)


def test_a_trie_of_other_sids_is_refused() -> None:
    other = random_table(5, 60, (4, 4, 4))
    trie = build_trie(other.sids, other.level_sizes)
    message = r"the model has level_sizes \(6, 300, 5\), the trie \(4, 4, 4\)"
    with pytest.raises(ValueError, match=message):
        generate(custom_generate=TrieBeamSearch(trie))
    with pytest.raises(ValueError, match=message):
        TrieLogitsProcessor(trie, config=MODEL.config)
    large = build_trie(other.sids, (400, 4, 4))
    with pytest.raises(ValueError, match=r"the model has \d+ tokens, SIDs .* 410"):
        generate(logits_processor=LogitsProcessorList([TrieLogitsProcessor(large)]))


@pytest.mark.parametrize("which", range(3))
def test_a_filter_of_fewer_items_than_the_tries_is_refused(which: int) -> None:
    trie = tries()[which][0]
    for door in (TrieBeamSearch, TrieLogitsProcessor):
        with pytest.raises(ValueError, match="allowed is about 3 items"):
            door(trie, np.ones(3, bool))
        door(trie, np.ones(len(TABLE), bool))


def test_scores_that_are_nan_are_no_padding() -> None:
    model = random_model(21, TABLE)
    model.shared.weight.data[PAD] = torch.nan
    with pytest.raises(ValueError, match="the score at place 0 is nan"):
        model.generate(
            input_ids=ENCODED.input_ids,
            attention_mask=ENCODED.attention_mask,
            num_beams=8,
            custom_generate=TrieBeamSearch(tries()[0][0]),
        )


def test_a_living_trie_is_seen_as_it_is_at_the_call() -> None:
    living = LivingTrie(build_trie(TABLE.sids, TABLE.level_sizes))
    search, processor = TrieBeamSearch(living, ALLOWED), TrieLogitsProcessor(living, ALLOWED)
    doors = ({"custom_generate": search}, {"logits_processor": LogitsProcessorList([processor])})
    for kept in (np.arange(90), np.arange(0, 90, 3)):
        gone = np.setdiff1d(np.flatnonzero(living.holds(np.arange(90))), kept)
        living.withdraw(gone, TABLE.sids[gone])
        sequences, scores = generate(**with_a_dict(np.intersect1d(kept, np.flatnonzero(ALLOWED))))
        for options in doors:
            found, values = generate(**options)
            valid = torch.isfinite(values) & (values > -1e6)
            assert found[valid].tolist() == sequences[valid].tolist()
            torch.testing.assert_close(values[valid], scores[valid], atol=1e-4, rtol=0)
            assert valid.sum() > 0


def test_a_trie_without_items_pads() -> None:
    empty = build_trie(TABLE.sids, TABLE.level_sizes, np.array([], np.int64))
    found, scores = generate(custom_generate=TrieBeamSearch(empty))
    assert (found == PAD).all()
    assert torch.isneginf(scores).all()
    allowed = TrieLogitsProcessor(empty)(
        torch.zeros((2, 1), dtype=torch.int64), torch.zeros((2, MODEL.config.vocab_size))
    )
    assert torch.isfinite(allowed).sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("history_input", ["tokens", "causal"])
def test_both_doors_know_what_the_model_was_trained_by(which: int, history_input: str) -> None:
    config = dataclasses.replace(TINY, history_input=history_input, normalizer="trie")
    model, (trie, mask, items) = random_model(21, TABLE, config), tries()[which]
    encoded = encode_lists(TABLE, [[1, 2, 3], [], [5]], history_input)
    tokens = Vocabulary(TABLE.level_sizes).sid_tokens(TABLE.sids)
    scores = torch.randn(3, len(TABLE), generator=torch.Generator().manual_seed(0)) * 3
    prior = TriePrior(trie, TABLE.sids)(scores.T) if model.config.guided else None
    options = {
        **encoder_arguments(model, encoded.input_ids),
        "attention_mask": encoded.attention_mask,
        "max_new_tokens": TABLE.num_levels,
        "num_beams": 30,
        "num_return_sequences": 8,
        "length_penalty": 0.0,
        "output_scores": True,
        "return_dict_in_generate": True,
    }
    processor = LogitsProcessorList([TrieLogitsProcessor(trie, mask, "trie", prior)])
    theirs = model.generate(**options, logits_processor=processor)
    ours = model.generate(**options, custom_generate=TrieBeamSearch(trie, mask, prior=prior))
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, atol=1e-4, rtol=0)
    assert ours.sequences.tolist() == theirs.sequences.tolist()
    labels = torch.from_numpy(np.unique(tokens[items], axis=0))
    rivals = trie_rivals(labels, torch.from_numpy(tokens), model.config.vocab_size)
    started = None
    if prior is not None:
        started = code_priors(scores, torch.from_numpy(tokens), labels, model.config.vocab_size)
    best = exhaustive_scores(model, encoded, labels, rivals, started).max(1)
    nothing = LogitsProcessorList([TrieLogitsProcessor(trie, np.zeros(len(TABLE), bool), "trie")])
    none = model.generate(**options, logits_processor=nothing)
    assert not none.sequences_scores.isnan().any()
    assert (none.sequences.view(3, 8, -1)[:, 0] == PAD).all()
    torch.testing.assert_close(ours.sequences_scores.view(3, 8)[:, 0], best.values, atol=1e-4, rtol=0)
    assert ours.sequences.view(3, 8, -1)[:, 0, 1:].tolist() == labels[best.indices].tolist()


def test_both_doors_lead_where_the_recommender_leads() -> None:
    config = dataclasses.replace(TINY, history_input="causal", normalizer="trie")
    vectors = np.random.default_rng(4).normal(size=(len(TABLE), 9)).astype(np.float32)
    model = random_model(21, TABLE, config, vectors=vectors)
    assert isinstance(model, CausalT5)
    recommender = GeneratorRecommender(model, TABLE, beam=30, facts=facts_of(model, vectors))
    histories, trie = Histories.from_lists([[1, 2, 3], [], [5]]), recommender.trie
    expected = recommender.recommend(Requests(histories, mask_history=False), 6)
    arguments, prior = recommender.generate_arguments(model, histories)
    processor = LogitsProcessorList([TrieLogitsProcessor(trie, normalizer="trie", prior=prior)])
    for door in ({"custom_generate": TrieBeamSearch(trie, prior=prior)}, {"logits_processor": processor}):
        found = model.generate(
            **arguments,
            **door,
            max_new_tokens=TABLE.num_levels,
            num_beams=30,
            num_return_sequences=1,
            return_dict_in_generate=True,
            output_scores=True,
            length_penalty=0.0,
        )
        best = torch.from_numpy(Vocabulary(TABLE.level_sizes).sid_tokens(TABLE.sids[expected.item_index[:, 0]]))
        assert found.sequences[:, 1:].tolist() == best.tolist()
        np.testing.assert_allclose(found.sequences_scores, expected.scores[:, 0], atol=1e-4)
    with pytest.raises(ValueError, match="give the door a prior"):
        model.generate(**arguments, num_beams=3, custom_generate=TrieBeamSearch(trie))
    few = build_trie(TABLE.sids, TABLE.level_sizes, np.arange(20))
    for door in (
        {"custom_generate": TrieBeamSearch(few, prior=prior)},
        {"logits_processor": LogitsProcessorList([TrieLogitsProcessor(few, None, "trie", prior)])},
    ):
        with pytest.raises(ValueError, match="edges a level, the trie has"):
            model.generate(**arguments, **door, num_beams=3, max_new_tokens=3)
    with pytest.raises(ValueError, match="the prior is that of 3 users, the call has 2 rows"):
        two = {name: one[:2] for name, one in arguments.items()}
        model.generate(**two, num_beams=3, custom_generate=TrieBeamSearch(trie, prior=prior))
    with pytest.raises(ValueError, match="a prior over a trie's edges needs 'trie'"):
        TrieLogitsProcessor(trie, prior=prior)
    with pytest.raises(ValueError, match="reads its items' vectors"):
        encoder_arguments(model, torch.ones((1, 2, 3), dtype=torch.int64))
