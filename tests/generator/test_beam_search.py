from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generator.models import (
    TINY,
    Encoded,
    code_priors,
    encode_lists,
    exhaustive_scores,
    level_rivals,
    random_model,
    random_table,
    trie_rivals,
)
from torch import Tensor
from transformers import T5ForConditionalGeneration

from pressmark.generator.beam_search import Beams, Masks, SearchTrie, search
from pressmark.generator.item_head import TriePrior
from pressmark.generator.model import encoder_arguments, item_tokens
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.sids.edge_mask import dead_edges, edge_mask
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.table import SidTable
from pressmark.sids.trie import build_trie
from pressmark.sids.vocabulary import PAD, Vocabulary

few = settings(max_examples=25, deadline=None, derandomize=True)


@dataclasses.dataclass(frozen=True)
class Case:
    table: SidTable
    model: T5ForConditionalGeneration
    encoded: Encoded
    excluded: list[set[int]]
    filters: list[np.ndarray | None]
    filter_of: list[int]
    appended: int
    beam: int
    scores: Tensor | None

    def expected(self, normalizer: str) -> Tensor:
        """(B, leaves) scores of all SIDs."""
        labels, prior = self.leaf_tokens(), None
        if normalizer == "trie" and self.scores is not None:
            tokens = item_tokens(self.table)[:-1]
            prior = code_priors(self.scores, tokens, labels, Vocabulary(self.table.level_sizes).size)
        return exhaustive_scores(self.model, self.encoded, labels, self.rivals(normalizer), prior)

    def rivals(self, normalizer: str) -> Tensor | None:
        """What a code of each leaf competes with, see `exhaustive_scores`."""
        if normalizer == "trie":
            leaves = self.leaf_tokens()
            return trie_rivals(leaves, leaves, Vocabulary(self.table.level_sizes).size)
        return level_rivals(self.table) if normalizer == "level" else None

    def beams(
        self,
        find: Callable[..., Beams] = search,
        decoder_of: Callable[..., T5Decoder] = T5Decoder,
        **options: object,
    ) -> Beams:
        """The search's answer, leaves numbered in the order of their SIDs."""
        row = [(row, item) for row, items in enumerate(self.excluded) for item in sorted(items)]
        rows, items = np.array(row, np.int64).reshape(-1, 2).T
        sids, first = self.table.sids, len(self.table) - self.appended
        trie = LivingTrie(build_trie(sids, self.table.level_sizes, np.arange(first)))
        trie.insert(np.arange(first, len(sids)), sids[first:])
        masks = [None if one is None else edge_mask(trie, one) for one in self.filters]
        of_user = np.array(self.filter_of)
        if options.get("normalizer") == "trie" and self.scores is not None:
            options["prior"] = TriePrior(trie, sids)(self.scores.T)
        decoder = decoder_of(self.model, torch.float32)
        found = find(
            decoder,
            decoder.encode(self.encoded.input_ids, self.encoded.attention_mask),
            self.encoded.attention_mask,
            SearchTrie.of(trie),
            **{
                "beam": self.beam,
                "masks": Masks.of(masks, of_user),
                "dead": dead_edges(trie, rows, items, sids[items], masks, of_user),
                **options,
            },
        )
        number = np.full(trie.leaves()[0].max() + 2, -1)
        number[trie.leaves()[0]] = np.arange(len(trie.leaves()[0]))
        return dataclasses.replace(found, leaf=torch.from_numpy(number)[found.leaf])

    def gone(self, row: int) -> set[int]:
        """Items that a user must not get."""
        mask = self.filters[self.filter_of[row]]
        return self.excluded[row] | (set() if mask is None else set(np.flatnonzero(~mask).tolist()))

    def leaf_tokens(self) -> Tensor:
        """(leaves, L) sid_tokens of the trie's leaves."""
        sids = np.unique(self.table.sids, axis=0)
        return torch.from_numpy(Vocabulary(self.table.level_sizes).sid_tokens(sids))

    def live(self) -> Tensor:
        """(B, leaves) bool: leaves that still hold an item that the user has not excluded."""
        leaves, leaf = np.unique(self.table.sids, axis=0, return_inverse=True)
        live = torch.zeros((len(self.excluded), len(leaves)), dtype=torch.bool)
        for row in range(len(self.excluded)):
            gone = self.gone(row)
            live[row, [leaf[item] for item in range(len(self.table)) if item not in gone]] = True
        return live


@st.composite
def cases(draw: st.DrawFn, beams: tuple[int, ...] = (1, 2, 5, 12)) -> Case:
    shape = draw(
        st.sampled_from([(4, 4, 4), (1, 7), (300, 3), (6,), (2, 3, 2, 2, 3), (40, 2, 5), (3, 1, 260), (2,) * 8])
    )
    seed = draw(st.integers(0, 10_000))
    table = random_table(
        seed,
        draw(st.integers(1, 60)),
        shape,
        skew=draw(st.sampled_from([1.0, 3.0])),
        shared=draw(st.booleans()),
    )
    config = dataclasses.replace(
        TINY,
        history_input=draw(st.sampled_from(["tokens", "items", "causal"])),
        feed_forward=draw(st.sampled_from(["relu", "gated-gelu"])),
    )
    item = st.integers(0, len(table) - 1)
    histories = draw(st.lists(st.lists(item, max_size=6), min_size=1, max_size=4))
    excluded = [draw(st.sets(item)) for _ in histories]
    some = np.random.default_rng(seed).random(len(table)) < draw(st.sampled_from([0.1, 0.7]))
    filters = draw(st.sampled_from([[None], [some], [~some, None, some]]))
    filter_of = [draw(st.integers(0, len(filters) - 1)) for _ in histories]
    appended = draw(st.integers(0, len(table) // 2))
    return Case(
        table,
        random_model(seed, table, config),
        encode_lists(table, histories, config.history_input),
        excluded,
        filters,
        filter_of,
        appended,
        draw(st.sampled_from(beams)),
        torch.randn(len(histories), len(table), generator=torch.Generator().manual_seed(seed)) * 3
        if draw(st.booleans())
        else None,
    )


def hf_beams(case: Case, num_beams: int) -> tuple[Tensor, Tensor]:
    """(B, num_beams, L) tokens and (B, num_beams) scores of HF's generate with a dict of prefixes."""
    allowed: list[dict[tuple[int, ...], list[int]]] = []
    tokens = item_tokens(case.table)[:-1].tolist()
    for row in range(len(case.excluded)):
        gone = case.gone(row)
        children: dict[tuple[int, ...], set[int]] = {}
        for item, sid in enumerate(tokens):
            if item not in gone:
                for level, token in enumerate(sid):
                    children.setdefault(tuple(sid[:level]), set()).add(token)
        allowed.append({prefix: sorted(after) for prefix, after in children.items()})
    generated = case.model.generate(
        **encoder_arguments(case.model, case.encoded.input_ids),
        attention_mask=case.encoded.attention_mask,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        prefix_allowed_tokens_fn=lambda row, sent: allowed[row].get(tuple(sent[1:].tolist()), [PAD]),
        length_penalty=0.0,
        max_new_tokens=case.table.num_levels,
        early_stopping=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    num_users = len(case.excluded)
    sequences = generated.sequences[:, 1:].reshape(num_users, num_beams, -1)
    return sequences, generated.sequences_scores.reshape(num_users, num_beams)


@few
@given(cases(beams=(2, 5, 12)))  # with one beam HF gives no scores
def test_it_finds_what_hf_generate_finds(case: Case) -> None:
    beams = case.beams()
    leaf_tokens = case.leaf_tokens()
    # Behind the valid answers HF puts invalid ones and repeats; we have none.
    sequences, scores = hf_beams(case, case.beam)
    for row in range(len(case.excluded)):
        num = int(beams.num_valid[row])
        assert num == min(case.beam, int(case.live()[row].sum()))
        torch.testing.assert_close(beams.score[row, :num], scores[row, :num], atol=1e-4, rtol=0)
        assert leaf_tokens[beams.leaf[row, :num]].tolist() == sequences[row, :num].tolist()


@few
@given(cases(), st.sampled_from(["full", "level", "trie"]))
def test_a_beam_over_everything_ranks_the_catalog(case: Case, normalizer: str) -> None:
    beams = case.beams(beam=100, normalizer=normalizer)
    expected = case.expected(normalizer)
    if normalizer == "trie":
        torch.testing.assert_close(expected.exp().sum(1), torch.ones(len(expected)), atol=1e-4, rtol=0)
    expected[~case.live()] = -torch.inf
    assert torch.isneginf(beams.pruned).all()
    for row in range(len(case.excluded)):
        num = int(beams.num_valid[row])
        assert num == int(case.live()[row].sum())
        assert sorted(beams.leaf[row, :num].tolist()) == case.live()[row].nonzero()[:, 0].tolist()
        torch.testing.assert_close(
            beams.score[row, :num], expected[row, beams.leaf[row, :num]], atol=1e-4, rtol=0
        )
        assert (beams.score[row, :num].diff() <= 0).all()
        assert (beams.leaf[row, num:] == -1).all()
        assert torch.isneginf(beams.score[row, num:]).all()


@few
@given(cases(), st.sampled_from(["full", "trie"]))
def test_nothing_missed_scores_above_the_best_pruned(case: Case, normalizer: str) -> None:
    beams = case.beams(normalizer=normalizer)
    expected = case.expected(normalizer)
    for row, live in enumerate(case.live()):
        found = set(beams.leaf[row, : beams.num_valid[row]].tolist())
        missed = [leaf for leaf in live.nonzero()[:, 0].tolist() if leaf not in found]
        if missed:
            assert expected[row, missed].max() <= beams.pruned[row] + 1e-4
        else:
            # Whatever was pruned on the way, nothing valid was lost.
            assert beams.num_valid[row] == live.sum()


@few
@given(cases(beams=(2, 5, 12)))
def test_behind_the_trie_every_score_is_what_the_whole_catalog_says(case: Case) -> None:
    beams = case.beams(normalizer="trie")
    expected = case.expected("trie")
    for row in range(len(case.excluded)):
        num = int(beams.num_valid[row])
        torch.testing.assert_close(
            beams.score[row, :num], expected[row, beams.leaf[row, :num]], atol=1e-4, rtol=0
        )


def test_codes_that_are_certain_are_not_asked_for() -> None:
    sids = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 0, 0], [3, 1, 1]])
    table = SidTable(sids, (4, 2, 2), "books")
    model, encoded = random_model(1, table), encode_lists(table, [[1, 2]])
    asked: list[int] = []

    class Counting(T5Decoder):
        def step(self, tokens: Tensor, *rest: object) -> object:
            asked.append(tokens.numel())
            return super().step(tokens, *rest)  # type: ignore[arg-type]

    trie = SearchTrie.of(build_trie(sids, table.level_sizes))
    decoder = Counting(model)
    states = decoder.encode(encoded.input_ids, encoded.attention_mask)
    for normalizer in ("trie", "full"):
        search(decoder, states, encoded.attention_mask, trie, 5, normalizer=normalizer)  # type: ignore[arg-type]
    # Within the trie only the code behind 1 is open at the second level, and none at the third.
    assert asked == [1, 1, 1, 4, 5]


@few
@given(cases())
def test_bf16_stays_valid_and_close(case: Case) -> None:
    decoder = T5Decoder(case.model, torch.bfloat16)
    trie = SearchTrie.of(build_trie(case.table.sids, case.table.level_sizes))
    states = decoder.encode(case.encoded.input_ids, case.encoded.attention_mask)
    beams = search(decoder, states, case.encoded.attention_mask, trie, case.beam)
    expected = exhaustive_scores(case.model, case.encoded, case.leaf_tokens())
    assert beams.score.dtype == torch.float32
    for row in range(len(case.excluded)):
        num = int(beams.num_valid[row])
        assert num == min(case.beam, expected.shape[1])
        leaves = beams.leaf[row, :num]
        assert len(set(leaves.tolist())) == num
        assert torch.isfinite(beams.score[row, :num]).all()
        torch.testing.assert_close(beams.score[row, :num], expected[row, leaves], atol=0.5, rtol=0.05)


class FlatDecoder:
    """Finds everything equally likely."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, input_ids: Tensor, attention_mask: Tensor, content: Tensor | None = None) -> Tensor:
        return input_ids

    def cross_kv(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        return states

    def step(
        self, tokens: Tensor, cross_kv: Tensor, cache: None, parent: Tensor, rows: slice
    ) -> tuple[Tensor, None]:
        return torch.zeros((*tokens.shape, self.vocab_size))[..., rows], None


def test_of_equal_scores_the_lowest_sids_win() -> None:
    table = random_table(0, 200, (5, 40, 3))
    trie = SearchTrie.of(build_trie(table.sids, table.level_sizes))
    decoder = FlatDecoder(Vocabulary(table.level_sizes).size)
    inputs = torch.zeros((2, 1), dtype=torch.int64)
    beams = search(decoder, inputs, inputs + 1, trie, beam=7)
    assert beams.leaf.tolist() == [list(range(7))] * 2
    np.testing.assert_allclose(beams.score.numpy(), -3 * np.log(50), rtol=1e-6)
    # Something just as good was left out: no proof.
    assert not (beams.score[:, 0] > beams.pruned).any()
    level = search(decoder, inputs, inputs + 1, trie, beam=7, normalizer="level")
    np.testing.assert_allclose(level.score.numpy(), -np.log(5 * 40 * 3), rtol=1e-6)


def test_a_trie_without_items_gives_nothing() -> None:
    table = random_table(0, 20, (5, 4))
    trie = SearchTrie.of(build_trie(table.sids, table.level_sizes, np.array([], np.int64)))
    inputs = torch.zeros((2, 1), dtype=torch.int64)
    beams = search(FlatDecoder(11), inputs, inputs + 1, trie, beam=3)
    assert beams.num_valid.tolist() == [0, 0]
    assert beams.leaf.shape == (2, 0)


def test_bad_input() -> None:
    table = random_table(0, 20, (5, 4))
    trie = SearchTrie.of(build_trie(table.sids, table.level_sizes))
    inputs = torch.zeros((2, 1), dtype=torch.int64)
    with pytest.raises(ValueError, match="beam is 0"):
        search(FlatDecoder(11), inputs, inputs + 1, trie, beam=0)
    with pytest.raises(ValueError, match="a prior over a trie's edges needs 'trie'"):
        search(FlatDecoder(11), inputs, inputs + 1, trie, beam=1, prior=[torch.zeros(2, 5)])
    with pytest.raises(ValueError, match="normalizer is 'none'"):
        search(FlatDecoder(11), inputs, inputs + 1, trie, beam=1, normalizer="none")  # type: ignore[arg-type]
