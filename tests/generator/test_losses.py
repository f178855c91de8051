from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.generator.models import TINY, encode_lists, exhaustive_scores, random_model, random_table
from torch.nn import functional as F

from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.losses import CodeLoss, ItemLoss
from pressmark.generator.model import item_tokens

TABLE = random_table(8, 50, (5, 6, 7), skew=2.0)
TOKENS = item_tokens(TABLE)
LABELS = TOKENS[:-1]
ITEMS = np.arange(len(TABLE))


def logits() -> torch.Tensor:
    return torch.randn(len(TABLE), 3, 20, generator=torch.Generator().manual_seed(0)) * 3


def losses(normalizer: str, items: np.ndarray = ITEMS) -> torch.Tensor:
    some = logits()[items]
    loss = CodeLoss(TABLE, items, normalizer)  # type: ignore[arg-type]
    return loss(lambda level, rows: some[:, level, rows], LABELS[items], torch.from_numpy(items))


def test_full_and_level_are_cross_entropies() -> None:
    expected = F.cross_entropy(logits().flatten(0, 1), LABELS.flatten(), reduction="none").view(-1, 3)
    torch.testing.assert_close(losses("full"), expected)
    for level, (first, size) in enumerate([(2, 5), (7, 6), (13, 7)]):
        own = F.cross_entropy(
            logits()[:, level, first : first + size], LABELS[:, level] - first, reduction="none"
        )
        torch.testing.assert_close(losses("level")[:, level], own)


@pytest.mark.parametrize("items", [ITEMS, ITEMS[::2]])
def test_behind_the_trie_a_code_competes_with_its_siblings(items: np.ndarray) -> None:
    found = losses("trie", items)
    for row, item in enumerate(items):
        sid = TABLE.sids[item]
        for level in range(3):
            same = (TABLE.sids[items, :level] == sid[:level]).all(1)
            codes = sorted(set(LABELS[items[same], level].tolist()))
            scores = logits()[item, level, codes]
            expected = scores.logsumexp(0) - scores[codes.index(int(LABELS[item, level]))]
            torch.testing.assert_close(found[row, level], expected)


def test_behind_the_trie_all_items_together_are_certain() -> None:
    model = random_model(8, TABLE, dataclasses.replace(TINY, normalizer="trie"))
    encoded = encode_lists(TABLE, [[4, 7]])
    with torch.no_grad():
        spelled = model(
            input_ids=encoded.input_ids.expand(len(TABLE), -1),
            attention_mask=encoded.attention_mask.expand(len(TABLE), -1),
            labels=LABELS,
        ).logits
    loss = CodeLoss(TABLE, ITEMS, "trie")
    terms = loss(lambda level, rows: spelled[:, level, rows], LABELS, torch.from_numpy(ITEMS))
    assert (-terms.sum(1)).exp().sum().item() == pytest.approx(1, abs=1e-5)
    # Unlike what a vocabulary that knows no items says of them.
    assert exhaustive_scores(model, encoded, LABELS).exp().sum().item() < 0.7


def causal_model() -> CausalT5:
    model = random_model(8, TABLE, dataclasses.replace(TINY, history_input="causal"))
    assert isinstance(model, CausalT5)
    return model


def test_the_item_loss_is_a_softmax_over_the_items() -> None:
    model, items = causal_model(), ITEMS[5:]
    torch.nn.init.normal_(model.item_vectors.weight)
    states, target = torch.randn(6, 16), torch.tensor([5, 9, 9, 20, 21, 30])
    vectors = model.item_vectors.weight[LABELS].sum(1)[items]
    expected = F.cross_entropy(states @ model.item_query.weight.T @ vectors.T, target - 5, reduction="none")
    torch.testing.assert_close(ItemLoss(TOKENS, items, 0)(model, states, target), expected)
    torch.testing.assert_close(ItemLoss(TOKENS, items, 99)(model, states, target), expected)


def test_drawn_items_stand_for_all() -> None:
    model = causal_model()
    torch.manual_seed(1)
    states, target = torch.randn(6, 16), torch.arange(6)
    torch.nn.init.normal_(model.item_query.weight, std=0.1)
    torch.nn.init.normal_(model.item_vectors.weight, std=0.3)
    exact = ItemLoss(TOKENS, ITEMS, 0)(model, states, target)
    torch.manual_seed(0)
    some = torch.stack([ItemLoss(TOKENS, ITEMS, 30)(model, states, target) for _ in range(400)]).mean(0)
    # Jensen: the mean of logarithms lies a little below.
    torch.testing.assert_close(some, exact, atol=0.05, rtol=0.02)
    torch.manual_seed(0)
    one = ItemLoss(TOKENS, ITEMS, 30)(model, states, target)
    torch.manual_seed(0)
    assert torch.equal(one, ItemLoss(TOKENS, ITEMS, 30)(model, states, target))
