from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.generator.models import random_table
from torch.nn import functional as F

from pressmark.generator.item_head import SHARPNESS, ItemHead, TriePrior, unit
from pressmark.generator.model import item_tokens
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.trie import build_trie

TABLE = random_table(3, 40, (6, 7, 5), shared=True)
VECTORS = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32)
VECTORS[7] = 0


def head() -> ItemHead:
    torch.manual_seed(0)
    found = ItemHead(20, 8, 10, 4)
    found.start_from(VECTORS[:30])
    torch.nn.init.zeros_(found.codes.weight)
    torch.nn.init.zeros_(found.query.weight)
    return found


def test_content_is_the_text_along_its_axes() -> None:
    wide = ItemHead(20, 12, 10, 4)
    wide.start_from(VECTORS)
    centred = VECTORS - VECTORS.mean(0)
    found = wide.content(VECTORS).numpy()
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    expected[7] = 0  # no text, no content
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    assert head().content(VECTORS).shape == (40, 8)
    with pytest.raises(ValueError, match=r"shape \(40, 3\); it must be \(items, 10\)"):
        wide.content(VECTORS[:, :3])


def test_a_fresh_head_ranks_by_how_alike_the_texts_are() -> None:
    model = head()
    with torch.no_grad():
        model.age.copy_(torch.tensor([1.0, 0.5, -2.0, 3.0]))
    content = F.pad(model.content(VECTORS), (0, 0, 0, 1))
    histories = torch.tensor([[3, 9, 11], [5, -1, -1], [-1, -1, -1]])
    tokens = F.pad(item_tokens(TABLE)[histories], (0, 0, 1, 0))
    items = model.items(tokens, F.pad(content[histories], (0, 0, 1, 0)))
    states = torch.randn(3, 1, 8)
    found = model.queries(states, items, torch.tensor([[3], [1], [0]]))[:, 0]
    weights = model.age[:3].softmax(0)
    mean = weights @ unit(content[[11, 9, 3]])
    torch.testing.assert_close(found, SHARPNESS * unit(torch.stack([mean, unit(content[5]), torch.zeros(8)])))
    # What the encoder adds comes on top, and every position has the query of its own history.
    torch.nn.init.normal_(model.query.weight)
    every = model.queries(states.expand(-1, 4, -1), items, torch.arange(4)[None])
    moved = model.queries(states, items, torch.tensor([[3], [1], [0]]))[:, 0]
    torch.testing.assert_close(every[[0, 1, 2], [3, 1, 0]], moved)
    plain = torch.stack([mean, unit(content[5]), torch.zeros(8)])
    torch.testing.assert_close(moved, SHARPNESS * unit(plain + model.query(states[:, 0])))


def test_an_identity_is_added_where_there_is_one_and_at_times_left_out_in_training() -> None:
    model = ItemHead(20, 8, 10, 4, num_items=5, identity_dropout=0.25)
    torch.nn.init.normal_(model.identity.weight)  # type: ignore[union-attr]
    own = model.identity.weight.detach()  # type: ignore[union-attr]
    content = torch.randn(2, 4, 8)
    # No item, and items that came after training, are their text alone.
    item_index = torch.tensor([[0, 4, -1, 5], [2, 2, 3, 90]])
    with torch.no_grad():
        found = model.eval().known(content, item_index) - content
        expected = torch.stack([own[0], own[4], 0 * own[0], 0 * own[0], own[2], own[2], own[3], 0 * own[0]])
        torch.testing.assert_close(found, expected.view(2, 4, 8))
        kept = (model.train().known(torch.zeros(4000, 8), torch.full((4000,), 3)) != 0).all(1)
        assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
        assert torch.equal(ItemHead(20, 8, 10, 4).known(content, item_index), content)


def test_vectors_come_to_length_1_and_nothing_stays_nothing() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.01, 0.0]], requires_grad=True)
    found = unit(vectors)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0, 0], [0.0995, 0]]), atol=2e-4, rtol=1e-3)
    found.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().max() <= 10 + 1e-5


def test_masses_of_a_living_trie_are_those_of_a_fresh_one() -> None:
    living = LivingTrie(build_trie(TABLE.sids, TABLE.level_sizes, np.arange(25)))
    living.insert(np.arange(25, 40), TABLE.sids[25:])
    living.withdraw(np.arange(3, 9), TABLE.sids[3:9])
    kept = np.concatenate([np.arange(3), np.arange(9, 40)])
    scores = torch.randn(len(kept), 2) * 5
    fresh = build_trie(TABLE.sids, TABLE.level_sizes, kept)
    sids = TABLE.sids[kept]
    for trie in (living, fresh):
        found = TriePrior(trie, sids)(scores)
        for level, edges in enumerate(trie.walk(sids).T):
            same = (sids[:, None, : level + 1] == sids[:, : level + 1]).all(2)
            mass = torch.stack([scores[same[row]].logsumexp(0) for row in range(len(sids))])
            own = found[level][:, edges].T
            torch.testing.assert_close(own - own[0], mass - mass[0], atol=1e-4, rtol=1e-4)


def test_what_lies_far_below_the_best_item_is_told_apart() -> None:
    trie = build_trie(np.array([[0, 0], [1, 0], [1, 1]]), (2, 2))
    found = TriePrior(trie, np.array([[0, 0], [1, 0], [1, 1]]))(torch.tensor([[0.0], [-300.0], [-310.0]]))
    torch.testing.assert_close(found[0][0], torch.tensor([0.0, -300.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1][0], torch.tensor([0.0, -300.0, -310.0]), atol=1e-3, rtol=0)


def test_a_trie_without_items_has_no_masses() -> None:
    empty = build_trie(TABLE.sids, TABLE.level_sizes, np.array([], np.int64))
    found = TriePrior(empty, TABLE.sids[:0])(torch.zeros(0, 3))
    assert [one.shape for one in found] == [(3, 0)] * 3
