from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.generator.models import TINY, encode_lists, random_model, random_table
from torch.nn import functional as F

from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.config import Config
from pressmark.generator.losses import CodeLoss
from pressmark.generator.model import build_model, embed, encoder_arguments, item_tokens
from pressmark.generator.recommend import GeneratorRecommender
from pressmark.generator.rms_norm import rms_norm
from pressmark.generator.samples import Collator, windows
from pressmark.generator.train import GeneratorTask
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests
from pressmark.sids.vocabulary import PAD

CAUSAL = dataclasses.replace(TINY, history_input="causal", dropout=0.0)
TABLE = random_table(3, 40, (6, 7, 5))
TOKENS = item_tokens(TABLE)[:-1]
VECTORS = np.random.default_rng(3).normal(size=(len(TABLE), 10)).astype(np.float32)
SEQUENCES = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7]]


def causal_model(vectors: np.ndarray | None = None, **changes: object) -> CausalT5:
    model = random_model(3, TABLE, dataclasses.replace(CAUSAL, **changes), 6, vectors)
    assert isinstance(model, CausalT5)
    return model


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
@pytest.mark.parametrize("empty_histories", [True, False])
@pytest.mark.parametrize("reads", [True, False])
def test_one_pass_says_what_every_prefix_says_through_hf(
    feed_forward: str, empty_histories: bool, reads: bool
) -> None:
    model = causal_model(VECTORS if reads else None, feed_forward=feed_forward, num_decoder_layers=3)
    vectors = model.item_head.items(TOKENS, model.item_head.content(VECTORS)).detach() if reads else None
    samples = windows(Histories.from_lists(SEQUENCES), 6, empty_histories, repeat_targets=True)
    batch = Collator(samples, TABLE, "causal")(np.arange(3))
    assert batch.next_items is not None
    assert batch.read is not None
    given = None if vectors is None else F.pad(vectors, (0, 0, 0, 1))[batch.read]
    counted = batch.next_items[..., 0] != PAD
    with torch.no_grad():
        arguments = encoder_arguments(model, batch.input_ids, given)
        hidden, states = model(**arguments, next_items=batch.next_items)
        found = F.linear(hidden[counted], model.shared.weight)
        expected, encoded = [], []
        for sequence in SEQUENCES:
            for place in range(0 if empty_histories else 1, len(sequence)):
                inputs = encode_lists(TABLE, [sequence[:place]], "causal", vectors)
                arguments = encoder_arguments(model, inputs.input_ids, inputs.vectors)
                out = model(
                    **arguments,
                    attention_mask=inputs.attention_mask,
                    labels=encode_lists(TABLE, [[sequence[place]]], "tokens").input_ids[:, :-1],
                )
                expected.append(out.logits[0])
                encoded.append(out.encoder_last_hidden_state[0, -1])
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(states[counted], torch.stack(encoded), atol=2e-5, rtol=1e-5)


def task_of(**changes: object) -> GeneratorTask:
    """A task over `SEQUENCES` that has collated a batch."""
    samples = windows(Histories.from_lists(SEQUENCES), 6, True, True)
    cases = Cases(*(np.empty(0) for _ in range(2)), Histories.from_lists([]), *(np.empty(0) for _ in range(2)))
    config = Config(model=dataclasses.replace(CAUSAL, **changes), history_length=6)
    content = changes.get("content")
    model = causal_model(VECTORS) if content else None
    found = GeneratorTask(
        samples, cases, TABLE, np.arange(len(TABLE)), config, 0, model and model.item_head.content(VECTORS)
    )
    found.collate(np.arange(1), torch.device("cpu"))
    return found


def test_what_need_not_be_told_changes_nothing_else() -> None:
    model = causal_model()
    loss, samples = (
        CodeLoss(TABLE, np.arange(len(TABLE)), "trie"),
        windows(Histories.from_lists(SEQUENCES), 6, False, True),
    )
    batch = Collator(samples, TABLE, "causal", needed=loss.needed)(np.arange(3))
    assert batch.next_items is not None
    assert batch.told is not None
    needed = torch.zeros(batch.next_items.numel(), dtype=torch.bool)
    needed[batch.told] = True
    needed = needed.view(batch.next_items.shape)
    is_target = batch.next_items[..., 0] != PAD
    assert not needed[~is_target].any()
    assert 0.3 < needed[is_target].float().mean() < 0.95
    embedded = embed(model.shared.weight, batch.input_ids)
    with torch.no_grad():
        whole, states = model(inputs_embeds=embedded, next_items=batch.next_items)
        some, same = model(inputs_embeds=embedded, next_items=batch.next_items, needed=batch.told)
    torch.testing.assert_close(some[needed], whole[needed], atol=1e-5, rtol=1e-5)
    assert some[~needed].abs().max() == 0
    torch.testing.assert_close(same, states, atol=0, rtol=0)
    terms = task_of(normalizer="trie").losses(model, batch)[0]
    plain = task_of(normalizer="level").losses(model, batch)[0]
    assert (terms <= plain + 1e-5).all()
    siblings = np.array(
        [[(TABLE.sids[:, :level] == sid[:level]).all(1).sum() for level in range(3)] for sid in TABLE.sids]
    )
    alone = torch.from_numpy(siblings == 1)[batch.item_index]
    assert alone.any()
    assert terms[alone].abs().max() == 0


def test_padding_and_what_comes_later_change_nothing() -> None:
    model = causal_model()
    with torch.no_grad():
        alone = encode_lists(TABLE, [[1, 2]], "causal")
        both = encode_lists(TABLE, [[1, 2], [1, 2, 3, 4]], "causal")
        states = [
            model.encoder(**encoder_arguments(model, one.input_ids), attention_mask=mask)[0]
            for one, mask in ((alone, alone.attention_mask), (both, both.attention_mask), (both, None))
        ]
    for padded in states[1:]:
        for row in range(2):
            torch.testing.assert_close(padded[row, :3], states[0][0], atol=1e-6, rtol=1e-5)


def test_a_loss_is_minus_the_score_that_the_recommender_gives() -> None:
    """Identities, popularity and batches filled up in training, against answers over the whole catalog."""
    shape = dataclasses.replace(CAUSAL, normalizer="trie", dropout=0.0)
    model = random_model(1, TABLE, shape, 6, VECTORS)
    assert isinstance(model, CausalT5)
    assert model.item_head.identity is not None
    rng = np.random.default_rng(1)
    # What nobody bought is no rival in training; here everything was.
    every = [[*range(first, first + 6)] for first in range(0, len(TABLE), 6)]
    histories = Histories.from_lists([*(rng.integers(0, len(TABLE), 5).tolist() for _ in range(9)), *every])
    assert len(np.unique(histories.values)) == len(TABLE)
    samples = windows(histories, 6, False, True)
    nobody = Cases(*(np.empty(0) for _ in range(2)), Histories.from_lists([]), *(np.empty(0) for _ in range(2)))
    content = model.item_head.content(VECTORS)
    config = Config(model=shape, history_length=6)
    task = GeneratorTask(samples, nobody, TABLE, np.unique(histories.values), config, 0, content)
    batch = task.collate(np.arange(len(samples)), torch.device("cpu"))
    with torch.no_grad():
        terms, _ = task.losses(model, batch)
    sequences = [histories[row].tolist() for row in range(len(histories))]
    places = [(one, place) for one in sequences for place in range(1, len(one))]
    before = Histories.from_lists([one[:place] for one, place in places])
    target = np.array([one[place] for one, place in places])
    assert batch.item_index.tolist() == target.tolist()
    recommender = GeneratorRecommender(
        model, TABLE, beam=2 * len(TABLE), facts=task.facts, popularity_discount=0
    )
    answer = recommender.recommend(Requests(before, mask_history=False), len(TABLE))
    scores = answer.scores[answer.item_index == target[:, None]]
    np.testing.assert_allclose(-terms.sum(1).numpy(), scores, atol=1e-4)


def test_gradients_reach_every_weight() -> None:
    model, task = causal_model(VECTORS, normalizer="trie").train(), task_of(normalizer="trie", content=True)
    loss, parts = task.loss(model, task.collate(np.arange(3), torch.device("cpu")))
    loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert "item_loss" in parts
    # Without text, and without a guide.
    model, task = (
        causal_model(normalizer="trie", guided=False).train(),
        task_of(normalizer="trie", guided=False),
    )
    loss, _ = task.loss(model, task.collate(np.arange(3), torch.device("cpu")))
    loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_a_fresh_model_has_t5s_spread_and_small_weights_beside() -> None:
    wide = dataclasses.replace(CAUSAL, d_model=64, d_ff=64)
    model, plain = (
        build_model(dataclasses.replace(wide, history_input=one), TABLE, 6) for one in ("causal", "tokens")
    )
    own = model.state_dict()
    for name, weight in plain.state_dict().items():
        assert own[name].float().std() == pytest.approx(float(weight.std()), rel=0.3, abs=1e-6)
    assert isinstance(model, CausalT5)
    assert model.recency.weight.abs().max() == 0
    assert 0.01 < model.item_head.codes.weight.std() < 0.03
    assert model.item_head.query.weight.abs().max() == 0
    assert model.item_head.age.tolist() == [0, -1, -2, -3, -4, -5]
    vectors = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32)
    reads = build_model(wide, TABLE, 6, vectors=vectors)
    assert isinstance(reads, CausalT5)
    assert reads.item_head.codes.weight.abs().max() == 0
    assert reads.item_head.read is not None
    assert 0.9 < reads.item_head.read.weight.std() < 1.1


def test_the_norms_gradient_is_autograds() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, dtype=torch.float64, requires_grad=True)
    plain = weight * values * torch.rsqrt(values.square().mean(-1, keepdim=True) + 1e-2)
    torch.testing.assert_close(rms_norm(values, weight, 1e-2), plain, atol=1e-6, rtol=1e-6)
    seed = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (values, weight), seed)
    found = torch.autograd.grad(rms_norm(values, weight, 1e-2), (values, weight), seed)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_hugging_faces_habits() -> None:
    model = causal_model()
    inputs = encode_lists(TABLE, [[1, 2]], "causal")
    arguments = encoder_arguments(model, inputs.input_ids)
    labels = encode_lists(TABLE, [[3]], "tokens").input_ids[:, :-1]
    with torch.no_grad():
        out = model(**arguments, labels=labels)
        assert torch.equal(model(**arguments, labels=labels, return_dict=False)[1], out.logits)
        expected = torch.nn.functional.cross_entropy(out.logits[0], labels[0])
        torch.testing.assert_close(out.loss, expected)
        ids = torch.tensor([[1, 5, 9]])
        assert torch.equal(model.encoder(ids)[0], model.encoder(input_ids=ids)[0])
        late = model.encoder(torch.tensor([[1, 5, 2]]))[0]
        torch.testing.assert_close(late[:, :2], model.encoder(ids)[0][:, :2])
        with pytest.raises(ValueError, match=r"8 items is longer than history_length \(6\)"):
            too_long = encode_lists(TABLE, [list(range(8))], "causal")
            model(**encoder_arguments(model, too_long.input_ids), labels=labels)


def test_a_plain_t5s_folder_gets_a_fresh_item_head(tmp_path: Path) -> None:
    plain = random_model(3, TABLE, TINY, history_length=6)
    plain.save_pretrained(tmp_path)
    model = CausalT5.from_pretrained(tmp_path, local_files_only=True)
    assert model.recency.weight.abs().max() == 0
    assert model.item_head.codes.weight.std() < 0.03
    assert model.item_head.age.tolist() == [0, -1, -2, -3, -4, -5]
    assert model.item_head.query.weight.abs().max() == 0
    torch.testing.assert_close(model.shared.weight, plain.shared.weight)
