from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.generator.models import TINY, encode_lists, exhaustive_scores, random_model, random_table
from torch.nn import functional as F

from pressmark.generator.item_head import ItemHead, TriePrior, unit
from pressmark.generator.losses import CodeLoss, ItemLoss
from pressmark.generator.model import item_tokens
from pressmark.sids.trie import build_trie

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


def head() -> ItemHead:
    torch.manual_seed(0)
    found = ItemHead(20, 16, 0, 6)
    torch.nn.init.normal_(found.codes.weight, std=0.3)
    return found


@pytest.mark.parametrize("items", [ITEMS, ITEMS[::2]])
@pytest.mark.parametrize("shared", [False, True])
def test_a_decoder_that_says_nothing_says_what_the_item_head_says(items: np.ndarray, shared: bool) -> None:
    """Through the trie a distribution over items is one over SIDs: the codes' losses sum to the item's."""
    table = random_table(8, 50, (5, 6, 7), skew=2.0, shared=shared)
    loss = CodeLoss(table, items, "trie")
    assert sorted(loss.prior.items.tolist()) == items.tolist()
    scores = torch.randn(len(items), len(items), generator=torch.Generator().manual_seed(1)) * 4
    scores.requires_grad_()
    target = torch.from_numpy(items)
    bias = torch.randn(len(items)) * 2
    prior, item_loss = loss.prior(scores, torch.eye(len(items)), bias, loss.nodes[target], target)
    labels = item_tokens(table)[target]
    silent = torch.zeros(len(items), 20)
    terms = loss(lambda level, rows: silent[:, rows], labels, target, prior)
    gained = scores + bias[:, None]
    expected = F.cross_entropy(gained.T, loss.prior.place[target], reduction="none")
    torch.testing.assert_close(item_loss, expected)
    sids = table.sids[loss.prior.items.numpy()]
    same = torch.from_numpy((sids[:, None] == table.sids[items]).all(2))
    of_sid = gained.logsumexp(0) - gained.masked_fill(~same, -torch.inf).logsumexp(0)
    torch.testing.assert_close(terms.sum(1), of_sid, atol=1e-5, rtol=1e-5)
    # And every edge along the way stands where the whole trie's masses put it.
    whole = TriePrior(build_trie(table.sids, table.level_sizes, items), sids)(gained)
    for level, own in enumerate(prior):
        edge, closed = loss.trie.edges(level, loss.nodes[target, level, None], None)
        among = whole[level].gather(1, edge[:, 0].long()).masked_fill(closed[:, 0], -torch.inf).log_softmax(1)
        found = own.masked_fill(closed[:, 0], -torch.inf).log_softmax(1)
        torch.testing.assert_close(found, among, atol=1e-5, rtol=1e-5)
    (terms.sum() + item_loss.sum()).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    # A softmax's gradient sums to nothing.
    torch.testing.assert_close(scores.grad.sum(0), torch.zeros(len(items)), atol=1e-4, rtol=0)


BIAS = torch.linspace(-1, 1, len(TABLE))


def test_the_item_loss_is_a_softmax_over_the_items() -> None:
    model, items = head(), ITEMS[5:]
    queries, target = torch.randn(6, 16), torch.tensor([5, 9, 9, 20, 21, 30])
    content = torch.randn(len(TABLE) + 1, 16)
    for text in (None, content):
        vectors = unit(model.codes.weight[LABELS].sum(1) + (0 if text is None else text[:-1]))
        expected = F.cross_entropy(queries @ vectors[items].T + BIAS[items], target - 5, reduction="none")
        torch.testing.assert_close(ItemLoss(TOKENS, text, items, BIAS, 0)(model, queries, target), expected)
        torch.testing.assert_close(ItemLoss(TOKENS, text, items, BIAS, 99)(model, queries, target), expected)


def test_drawn_items_stand_for_all() -> None:
    model = head()
    queries, target = torch.randn(6, 16) * 0.4, torch.arange(6)
    exact = ItemLoss(TOKENS, None, ITEMS, BIAS, 0)(model, queries, target)
    torch.manual_seed(0)
    some = torch.stack(
        [ItemLoss(TOKENS, None, ITEMS, BIAS, 30)(model, queries, target) for _ in range(400)]
    ).mean(0)
    # Jensen: the mean of logarithms lies a little below.
    torch.testing.assert_close(some, exact, atol=0.05, rtol=0.02)
    torch.manual_seed(0)
    one = ItemLoss(TOKENS, None, ITEMS, BIAS, 30)(model, queries, target)
    torch.manual_seed(0)
    assert torch.equal(one, ItemLoss(TOKENS, None, ITEMS, BIAS, 30)(model, queries, target))
