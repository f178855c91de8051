"""The compiled kernels against torch's operations, which other devices use."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.generator.models import TINY, encode_lists, random_model, random_table
from tests.generator.test_beam_search import Case, cases, few

from pressmark.generator import beam_search, cpu_kernels
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.sids.trie import build_trie
from pressmark.sids.vocabulary import PAD

if TYPE_CHECKING:
    from collections.abc import Iterator


NAN, INF = torch.nan, torch.inf
# Two nodes, of two and three edges.
FIRST_EDGE, CODES = torch.tensor([0, 2, 5], dtype=torch.int32), torch.tensor([0, 1, 0, 1, 2], dtype=torch.uint8)


@contextmanager
def without_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam_search, "cpu_kernels", lambda device: None)
        yield


@few
@given(cases(), st.sampled_from(["full", "level", "trie"]))
def test_a_search_without_them_finds_the_same(case: Case, normalizer: str) -> None:
    found = case.beams(normalizer=normalizer)
    with without_kernels():
        plain = case.beams(normalizer=normalizer)
    assert torch.equal(found.num_valid, plain.num_valid)
    for row, num in enumerate(found.num_valid.tolist()):
        assert torch.equal(found.leaf[row, :num], plain.leaf[row, :num])
        assert torch.equal(found.codes[row, :num], plain.codes[row, :num])
    torch.testing.assert_close(found.score, plain.score, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.pruned, plain.pruned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.3)])
@pytest.mark.parametrize("num_beams", [2, 40])  # in bfloat16 many beams attend by products
def test_a_decoder_without_them_says_the_same(dtype: torch.dtype, close: float, num_beams: int) -> None:
    table = random_table(1, 30, (5, 4, 6))
    model = random_model(2, table, TINY)
    encoded = encode_lists(table, [list(range(25)), [], [3], [1, 2, 3, 4]])
    decoders = [T5Decoder(model, dtype)]
    with without_kernels():
        decoders.append(T5Decoder(model, dtype))
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.config.vocab_size, (3, 4, num_beams), generator=draw)
    parents = torch.randint(0, num_beams, (3, 4, num_beams), generator=draw)
    said = []
    for decoder in decoders:
        states = decoder.encode(encoded.input_ids, encoded.attention_mask)
        cross_kv = decoder.cross_kv(states, encoded.attention_mask)
        start = torch.full((4, 1), PAD)
        logits, cache = decoder.step(start, cross_kv, None, torch.zeros_like(start), slice(None))
        said.append([states[encoded.attention_mask.bool()].float(), logits])
        parent = torch.zeros((4, num_beams), dtype=torch.int64)
        for position in range(3):
            logits, cache = decoder.step(tokens[position], cross_kv, cache, parent, slice(None))
            said[-1].append(logits)
            parent = parents[position]
    for ours, plain in zip(*said, strict=True):
        torch.testing.assert_close(ours, plain, atol=close, rtol=close)


def test_softmax_is_torchs_rounded_once() -> None:
    scores = (torch.randn((3, 2, 5, 81), generator=torch.Generator().manual_seed(0)) * 6).bfloat16()
    for shape in ((3, 1, 1, 81), (1, 2, 5, 81), (3, 2, 1, 81)):
        bias = torch.randn(shape).bfloat16()
        bias[..., 0], bias[..., 1] = torch.finfo(torch.bfloat16).min, -torch.inf
        expected = (scores.float() + bias.float()).softmax(-1)
        found = cpu_kernels.softmax_(scores.clone(), bias)
        assert not found[..., :2].any()
        scores[1, 0, 2, 7] = torch.nan
        assert cpu_kernels.softmax_(scores.clone(), bias)[1, 0, 2].isnan().all()
        scores[1, 0, 2, 7] = 0.0
        torch.testing.assert_close(found.float(), expected, atol=0, rtol=2**-8)


def test_the_best_are_kept_in_their_order_and_a_nan_is_not_lost() -> None:
    offer = torch.tensor([[[-3.0, -1.0], [-1.0, -1.0]], [[-INF, NAN], [-2.0, -INF]], [[-INF] * 2] * 2])
    edge = torch.arange(12, dtype=torch.int32).view(3, 2, 2)
    codes, edge_code = torch.tensor([[[7], [8]]] * 3), torch.arange(100, 112, dtype=torch.uint8)
    node, now, score, parent, left = cpu_kernels.keep_best(offer, edge, codes, edge_code, None, 2)
    # Of three equal ones the first two; a NaN before all; where there is nothing, the first places.
    assert node.tolist() == [[1, 2], [5, 6], [8, 9]]
    assert parent.tolist() == [[0, 1], [0, 1], [0, 0]]
    assert now.tolist() == [[[7, 101], [8, 102]], [[7, 105], [8, 106]], [[7, 108], [7, 109]]]
    torch.testing.assert_close(score, torch.tensor([[-1.0, -1.0], [NAN, -2.0], [-INF, -INF]]), equal_nan=True)
    assert left.tolist() == [-1.0, -INF, -INF]
    *_, everything, whole = cpu_kernels.keep_best(offer, edge, codes, edge_code, None, 4)
    assert everything.tolist() == [[0, 0, 1, 1]] * 3
    assert whole.tolist() == [-INF] * 3


def offered(scores: list[list[float]], normalize: bool = True, width: int = 3) -> list[list[float]]:
    """What one user's two beams, on nodes of two and three edges, are offered; the second has - 1 so far."""
    node, so_far = torch.tensor([[0, 1]]), torch.tensor([[0.0, -1.0]])
    found = cpu_kernels.offers(
        node, so_far, FIRST_EDGE, CODES, 3, width, torch.tensor([scores]), None, normalize, None
    )
    return found[0][0].tolist()


def test_a_nan_makes_all_of_its_node_one_and_a_likely_code_is_never_above_one() -> None:
    first, second = offered([[1.0, NAN, 0.0], [5.0, 5.0, -INF]])
    assert np.isnan(first[:2]).all()
    assert first[2] == -INF
    assert second == pytest.approx([np.log(0.5) - 1, np.log(0.5) - 1, -INF])
    assert np.isnan(offered([[-INF] * 3] * 2)[1]).all()
    assert offered([[1e-7, -1.0, 0.0], [NAN, -2.0, 0.0]], normalize=False)[0][:2] == [0.0, -1.0]


def test_a_trie_that_grew_since_it_was_shown_overflows_nothing() -> None:
    assert offered([[0.0] * 3] * 2, width=2)[1] == pytest.approx([np.log(0.5) - 1] * 2)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scores": torch.zeros(1, 2, 2)}, "a decoder gave scores"),
        ({"scores": torch.zeros(1, 2, 3, dtype=torch.float64)}, "a decoder gave scores"),
        ({"scores": torch.zeros(1, 1, 3)}, "a decoder gave scores"),
        ({"prior": torch.zeros(1, 4)}, "a prior is"),
        ({"prior": torch.zeros(2, 5)}, "a prior is"),
        ({"masks": (torch.full((1, 1), 255, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))}, "filters"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], error: str) -> None:
    asked = {"scores": torch.zeros(1, 2, 3), "masks": None, "normalize": True, "prior": None} | change
    with pytest.raises(ValueError, match=error):
        cpu_kernels.offers(
            torch.tensor([[0, 1]]), torch.zeros(1, 2), FIRST_EDGE, CODES, num_codes=3, width=3, **asked
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_kernel_refuses_other_dtypes(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="the kernels compute in one of"):
        cpu_kernels.normed(torch.zeros((2, 4), dtype=dtype), 0.1, torch.zeros((2, 4), dtype=dtype))


def test_a_decoder_of_another_dtype_computes_by_torch() -> None:
    table = random_table(1, 30, (5, 4, 6))
    model, encoded = random_model(2, table, TINY), encode_lists(table, [[1, 2], [3]])
    trie = beam_search.SearchTrie.of(build_trie(table.sids, table.level_sizes))
    found = []
    for decoder in (T5Decoder(model, torch.float16), T5Decoder(model)):
        states = decoder.encode(encoded.input_ids, encoded.attention_mask)
        found.append(beam_search.search(decoder, states, encoded.attention_mask, trie, 3).score)
    torch.testing.assert_close(*found, atol=0.05, rtol=0)


@pytest.mark.parametrize("normalizer", ["full", "level", "trie"])
def test_wide_levels_logits_laid_out_otherwise_and_nobody_at_all(normalizer: str) -> None:
    sids = np.array([[0, 1], [69_999, 0], [69_999, 1], [256, 1]])
    trie = beam_search.SearchTrie.of(build_trie(sids, (70_000, 2)))

    class Turned:
        """Likes high tokens; its logits are not contiguous."""

        def cross_kv(self, states: torch.Tensor, attention_mask: torch.Tensor) -> None:
            return None

        def step(
            self, tokens: torch.Tensor, cross_kv: None, cache: None, parent: torch.Tensor, rows: slice
        ) -> tuple[torch.Tensor, None]:
            logits = torch.arange(70_004.0)[rows] / 1e4
            return logits[:, None].repeat(len(tokens), 1, tokens.shape[1]).transpose(1, 2), None

    for num_users in (2, 0):
        found = beam_search.search(
            Turned(),  # type: ignore[arg-type]
            torch.zeros(num_users, 1, 1),
            torch.ones(num_users, 1),
            trie,
            4,
            normalizer=normalizer,  # type: ignore[arg-type]
        )
        assert found.codes.tolist() == [sids[[2, 1, 3, 0]].tolist()] * num_users


def test_edges_that_store_their_child_lead_to_it() -> None:
    offer, edge = torch.tensor([[[-1.0, -2.0, -3.0]]]), torch.tensor([[[3, 4, 5]]], dtype=torch.int32)
    codes, edge_code = (
        torch.zeros((1, 1, 0), dtype=torch.int64),
        torch.tensor([0] * 5 + [-1], dtype=torch.int16),
    )
    child = torch.tensor([40, 50], dtype=torch.int32)
    node, now, *_ = cpu_kernels.keep_best(offer, edge, codes, edge_code, (4, child), 3)
    assert node.tolist() == [[3, 40, 50]]
    assert now[..., 0].tolist() == [[0, 0, 65535]]
