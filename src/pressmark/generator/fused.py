"""Beam search on a GPU in about forty launches, and as one CUDA graph.

The answers are those of `beam_search.search`, which is the definition; here a level is two kernels, see
`kernels`, and the encoder five a layer. Models, tries and requests that the kernels are not made for go the
plain way: `fits` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from pressmark.generator import kernels
from pressmark.generator.beam_search import Beams, Masks, SearchTrie, check_search
from pressmark.generator.beam_search import search as plain_search
from pressmark.generator.config import Normalizer
from pressmark.generator.model import embed
from pressmark.generator.t5_decoder import T5Decoder, recency_bias
from pressmark.sids.edge_mask import DeadEdges
from pressmark.sids.vocabulary import PAD

Result = TypeVar("Result")

MOST_OFFERS = 32_768
"""Beams times edges of a node that one program chooses among, both filled up to powers of two."""
MOST_POSITIONS = 256
"""Encoder positions whose scores fit beside a tile of beams."""
CLOSED = -1e4
"""A score whose exponential is 0 beside any other."""
MOST_BEAMS = 1024
"""That the last level puts in order by comparing each with each."""
SHARED_MEMORY = 220 * 2**10
"""Bytes that a program may have: the tiles are cut for Hopper, and smaller GPUs go the plain way."""
CHOOSE_WARPS = 16
"""Of the program that keeps a user's best, at most."""
ENCODER_ROWS = 64
"""That one program of the encoder's feed-forward part takes."""
MOST_WIDTH = 128
"""Of the model: a tile of hidden states stays in registers."""


@dataclass(frozen=True)
class Tiles:
    """How work is cut. Those of `FusedDecoder.tiles_of` were the fastest of a dozen tried, see eval/LOG.md.

    Attributes:
        beams: Beams of a user that one program carries through the decoder; `warps` of that program.
        columns: Of the feed-forward part and of the output head at a time.
        stages: Loads in flight in self-attention, in cross-attention, and of those columns.
    """

    beams: int
    warps: int
    columns: int
    stages: tuple[int, int, int]


class FusedDecoder(T5Decoder):
    """`T5Decoder` on a GPU, by fewer kernels. Weights are copied as they are now.

    Args:
        model: See `T5Decoder`.
        dtype: Of weights and of what is multiplied; sums are float32.
    """

    def __init__(self, model: T5ForConditionalGeneration, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(model, dtype)
        self.width, self.head_width = model.config.d_model, model.config.d_kv
        self.feed_width, self.least = model.config.d_ff, float(self.least_length) ** 2
        layers = self.decoder_layers
        self.stacked = [
            torch.stack([getattr(getattr(one, part), side) for one in layers])  # (layers, in, out)
            for part in ("attention", "feed_forward")
            for side in ("into", "out")
        ]
        # What a head asks of a key, x Wq (s Wk)^T, is x (s Wk Wq^T)^T, and what it adds, w (s Wv) Wo, is
        # w (s Wv Wo): with both products in the keys and values, a beam's part of cross-attention is two
        # products instead of four. (D, layers * 2 * H * D), made of the model's own weights.
        into = (
            torch.cat(self.cross_into, dim=1)
            .float()
            .view(self.width, len(layers), 2, self.num_heads, self.head_width)
        )
        joined = torch.empty(self.width, len(layers), 2, self.num_heads, self.width, device=self.device)
        for number, layer in enumerate(layers):
            assert layer.cross is not None
            asked = layer.cross.into.float().view(self.width, self.num_heads, self.head_width)
            given = layer.cross.out.float().view(self.num_heads, self.head_width, self.width)
            joined[:, number, 0] = torch.einsum("dhk,ehk->dhe", into[:, number, 0], asked)
            joined[:, number, 1] = torch.einsum("dhk,hke->dhe", into[:, number, 1], given)
        self.joined = joined.flatten(1).to(dtype)
        self._padded_biases: dict[int, Tensor] = {}
        known = model.config.dense_act_fn == ("gelu_new" if self.gated else "relu")
        # Float32 products have no tensor cores: compiled, they are minutes of machine code.
        on_gpu = self.device.type == "cuda"
        slow = on_gpu and (dtype == torch.float32 or _shared_memory(self.device) < SHARED_MEMORY)
        self.suits = known and self.width <= MOST_WIDTH and not slow

    def fits(self, trie: SearchTrie, beam: int, num_positions: int) -> bool:
        """Whether the kernels take this search; `beam_search.search` takes any."""
        most = max((_filled(beam, 1) * _filled(width, 1) for width in trie.width), default=0)
        small = beam <= MOST_BEAMS and most <= MOST_OFFERS and num_positions <= MOST_POSITIONS
        return self.suits and small and bool(trie.num_items)

    @property
    def shape(self) -> dict[str, int | bool | str]:
        """What kernels are compiled for."""
        return {
            "D": self.width,
            "DP": _filled(self.width),
            "F": self.feed_width,
            "GATED": self.gated,
            "PRECISION": "ieee" if self.dtype == torch.float32 else "tf32",
        }

    @property
    def heads(self) -> dict[str, int]:
        """The same of attention."""
        return {"H": self.num_heads, "K": self.head_width, "KP": _filled(self.head_width)}

    @torch.inference_mode()
    def encode(self, input_ids: Tensor, attention_mask: Tensor, vectors: Tensor | None = None) -> Tensor:
        """See `T5Decoder.encode`."""
        num_rows, width = attention_mask.shape
        if not self.suits or width > MOST_POSITIONS:
            return super().encode(input_ids, attention_mask, vectors)
        mask = self._mask(attention_mask)  # (B, 1, 1, S)
        hidden = embed(self.embedding, input_ids).flatten(0, 1).contiguous()  # (B * S, D)
        if self.read is not None:
            assert vectors is not None
            hidden = hidden.addmm(vectors.to(self.dtype).flatten(0, 1), self.read)
        bias = self._padded_bias(width)
        normed, mixed = torch.empty_like(hidden), hidden.new_empty((len(hidden), self.inner))
        for layer in self.encoder_layers:
            self._normed(hidden, normed)
            both = normed.mm(layer.attention.into)
            sizes = self.heads | {"QP": min(128, _filled(width)), "SP": _filled(width)}
            kernels.encoder_attention[num_rows, self.num_heads, -(-width // sizes["QP"])](
                both, bias, mask, mixed, width, **sizes, PRECISION=self.shape["PRECISION"], num_warps=4
            )
            hidden.addmm_(mixed, layer.attention.out)
            kernels.feed_forward[(-(-len(hidden) // ENCODER_ROWS),)](
                hidden,
                layer.feed_forward.into,
                layer.feed_forward.out,
                len(hidden),
                self.least,
                **self.shape,
                FP=min(64, _filled(self.feed_width)),
                T=ENCODER_ROWS,
            )
        return self._normed(hidden, normed, self.encoder_norm).view(num_rows, width, -1)

    def _normed(self, hidden: Tensor, out: Tensor, weight: Tensor | None = None) -> Tensor:
        sizes = {"D": self.width, "DP": _filled(self.width), "T": 16, "WEIGHTED": weight is not None}
        grid = (-(-len(hidden) // 16),)
        kernels.norm[grid](hidden, weight, out, len(hidden), self.least, **sizes)
        return out

    def _padded_bias(self, width: int) -> Tensor:
        """(H, SP, SP) of S positions and -inf behind them, kept from call to call."""
        if width not in self._padded_biases:
            bias = self._encoder_bias(width)
            # Finite, as the kernel adds the mask, which alone is as low as a number can be.
            bias = bias.clamp_min(CLOSED)
            more = _filled(width) - width
            self._padded_biases[width] = F.pad(F.pad(bias, (0, more), value=-torch.inf), (0, 0, 0, more))
        return self._padded_biases[width]

    def bias_of_positions(self, attention_mask: Tensor) -> Tensor:
        """(B, 1 or H, S) what cross-attention adds to its scores."""
        mask = self._mask(attention_mask)
        if self.recency is not None:
            mask = mask + recency_bias(self.recency, attention_mask)
        return mask[:, :, 0].contiguous()

    def tiles_of(self, num_users: int, num_beams: int, num_positions: int) -> Tiles:
        """Small tiles for small batches: what matters there is that all of the GPU works."""
        if num_beams == 1 or num_users * -(-num_beams // 16) <= 256:
            # Keys and values of many positions leave no room for the next ones.
            return Tiles(16, 4, 128, (3, 3, 3)) if num_positions <= 128 else Tiles(16, 4, 64, (2, 1, 2))
        return Tiles(min(64, _filled(num_beams)), 4, 64, (1, 1, 3))


@torch.inference_mode()
def search(
    decoder: FusedDecoder,
    states: Tensor,
    attention_mask: Tensor,
    trie: SearchTrie,
    beam: int,
    masks: Masks | None = None,
    dead: Sequence[DeadEdges] | None = None,
    normalizer: Normalizer = "full",
    prior: Sequence[Tensor] | None = None,
) -> Beams:
    """`beam_search.search`, with the same arguments, errors and answers; scores rounded in another order."""
    if not decoder.fits(trie, beam, states.shape[1]):
        return plain_search(decoder, states, attention_mask, trie, beam, masks, dead, normalizer, prior)
    check_search(beam, normalizer, prior)
    num_users, width, _ = states.shape
    num_levels, device = len(trie.rows), states.device
    now = _Beams.start(num_users, trie, device)
    cross_kv = states.flatten(0, 1).mm(decoder.joined)  # (B * S, layers * 2 * H * D)
    cross_bias = decoder.bias_of_positions(attention_mask)
    most_rows = num_users * min(beam, max(len(codes) for codes in trie.edge_code))
    cache = states.new_empty((num_levels, len(decoder.decoder_layers), most_rows, 2 * decoder.inner))
    num_tokens = len(decoder.embedding)
    for level in range(num_levels):
        rows = trie.rows[level]
        first, end = (0, num_tokens) if normalizer == "full" else (rows.start, rows.stop)
        num_rows, num_codes = num_users * now.num, rows.stop - rows.start
        scores = torch.empty((num_rows, num_codes), device=device)
        sums = torch.empty(num_rows, device=device)
        tiles = decoder.tiles_of(num_users, now.num, width)
        kernels.decoder_step[num_users, -(-now.num // tiles.beams)](
            now.tokens,
            decoder.embedding,
            *decoder.stacked,
            decoder.head,
            decoder._decoder_bias(level + 1),
            cross_kv,
            cross_bias,
            cross_bias.stride(0),
            cross_bias.stride(1) if cross_bias.shape[1] > 1 else 0,
            cache,
            cache.stride(0),
            cache.stride(1),
            now.ancestor,
            now.ancestor.shape[1],
            scores,
            sums,
            now.num,
            width,
            rows.start,
            decoder.least,
            BEFORE=level,
            **decoder.shape,
            **decoder.heads,
            FP=min(tiles.columns, _filled(decoder.feed_width)),
            SELF_STAGES=tiles.stages[0],
            CROSS_STAGES=tiles.stages[1],
            STAGES=tiles.stages[2],
            LAYERS=len(decoder.decoder_layers),
            SP=_filled(width),
            PP=_filled(level, 1),
            T=tiles.beams,
            CODES=num_codes,
            BEGIN=first,
            END=end,
            VP=tiles.columns,
            NORMALIZE=normalizer != "trie",
            num_warps=tiles.warps,
        )
        own = None if prior is None else prior[level].contiguous()
        closed = None if dead is None else _edges_of(dead[level], num_users, trie.first_edge[level])
        now = _keep_best(trie, level, now, beam, scores, sums, masks, closed, normalizer, own)
    shape = (num_users, now.num)
    score = now.score.view(shape)
    return Beams(
        now.node.view(shape), now.codes.view(*shape, -1), score, (score > -torch.inf).sum(1), now.pruned
    )


@dataclass(frozen=True)
class _Beams:
    """Where the beams stand: R = B * num rows, see `kernels.keep_best`."""

    num: int
    node: Tensor
    score: Tensor
    tokens: Tensor
    codes: Tensor
    ancestor: Tensor
    pruned: Tensor

    @classmethod
    def start(cls, num_users: int, trie: SearchTrie, device: torch.device) -> _Beams:
        """One beam a user, at the root."""
        node = torch.full((num_users,), trie.root, device=device)
        tokens, codes = torch.full_like(node, PAD), node.new_zeros((num_users, len(trie.rows)))
        pruned = torch.full((num_users,), -torch.inf, device=device)
        return cls(1, node, torch.zeros_like(pruned), tokens, codes, node.new_zeros((1, 1)).int(), pruned)

    def then(self, level: int, num: int) -> _Beams:
        """Room for `num` beams a user behind codes of `level`."""
        num_users = len(self.pruned)
        node = self.node.new_empty(num_users * num)
        return _Beams(
            num,
            node,
            torch.empty_like(node, dtype=torch.float32),
            torch.empty_like(node),
            node.new_empty((len(node), self.codes.shape[1])),
            torch.empty((level + 1, len(node)), dtype=torch.int32, device=node.device),
            torch.empty_like(self.pruned),
        )


def _keep_best(
    trie: SearchTrie,
    level: int,
    now: _Beams,
    beam: int,
    scores: Tensor,
    sums: Tensor,
    masks: Masks | None,
    closed: Tensor | None,
    normalizer: Normalizer,
    prior: Tensor | None,
) -> _Beams:
    codes, width = trie.edge_code[level], trie.width[level]
    new = now.then(level, min(beam, len(codes), now.num * width))
    tail, copied = trie.copies[level] if trie.copies else (0, codes[:0])
    places = _filled(now.num, 1) * _filled(width, 1)
    kernels.keep_best[(len(now.pruned),)](
        scores,
        sums,
        now.node,
        now.score,
        now.codes,
        now.ancestor,
        now.pruned,
        codes,
        trie.first_edge[level],
        copied,
        tail,
        len(copied),
        prior,
        None if masks is None else masks.bits[level],
        0 if masks is None else masks.bits[level].shape[1],
        None if masks is None else masks.of_user,
        closed,
        torch.empty_like(new.score),
        torch.empty_like(new.node, dtype=torch.int32),
        new.node,
        new.score,
        new.codes,
        new.tokens,
        new.ancestor,
        new.pruned,
        now.num,
        new.num,
        len(codes),
        width,
        trie.rows[level].start,
        now.ancestor.shape[1],
        new.ancestor.shape[1],
        LEVEL=level,
        LEVELS=len(trie.rows),
        CODES=scores.shape[1],
        MP=_filled(now.num, 1),
        WP=_filled(width, 1),
        NP=_filled(new.num, 1),
        TRIE=trie.constrains,
        NORMALIZE=normalizer != "trie",
        WITHIN=normalizer == "trie",
        WIDE_CODES=codes.dtype == torch.int16,
        COPIES=len(copied) > 0,
        PRIOR=prior is not None,
        FILTER=masks is not None,
        DEAD=0 if closed is None else closed.shape[1],
        num_warps=max(1, min(CHOOSE_WARPS, places // 32)),
    )
    return new


def _edges_of(dead: DeadEdges, num_users: int, first_edge: Tensor) -> Tensor | None:
    """(B, n) int32 edges closed for each user, -1 up to a power of two; None where there are none."""
    if not len(dead.row):
        return None
    order = np.argsort(dead.row, kind="stable")
    row = dead.row[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    parent, slot = (np.zeros((num_users, _filled(int(place.max()) + 1)), np.int64) for _ in range(2))
    slot -= 1
    parent[row, place], slot[row, place] = dead.parent[order], dead.slot[order]
    parents, slots = (torch.from_numpy(one).to(first_edge.device, non_blocking=True) for one in (parent, slot))
    return torch.where(slots < 0, -1, first_edge[parents] + slots).int()


def _filled(number: int, least: int = 16) -> int:
    """The power of two from `least` on that `number` fits in; matrix products want 16 at least."""
    return max(least, triton.next_power_of_2(number))


def _shared_memory(device: torch.device) -> int:
    """Bytes that a program may have; 0 where only NVIDIA's cards say."""
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0))


class Graph:
    """`encode` and `search` of one shape, recorded once: a call costs the GPU's time and no Python a level.

    The trie, the filters and the beam are those of the recording: record anew after a change.

    Args:
        decoder: The model.
        trie: The valid SIDs.
        beam: Beams a user.
        input_ids: (B, S) or (B, S, L) int64, as `encode` takes them; any of that shape.
        attention_mask: (B, S).
        vectors: (B, S, D), for a model that reads them.
        masks: Filters of the users.
        normalizer: See `beam_search.search`.
    """

    def __init__(
        self,
        decoder: FusedDecoder,
        trie: SearchTrie,
        beam: int,
        input_ids: Tensor,
        attention_mask: Tensor,
        vectors: Tensor | None = None,
        masks: Masks | None = None,
        normalizer: Normalizer = "full",
    ) -> None:
        self._inputs = [None if one is None else one.clone() for one in (input_ids, attention_mask, vectors)]
        ids, mask, read = self._inputs
        assert ids is not None
        assert mask is not None

        def run() -> Beams:
            states = decoder.encode(ids, mask, read)
            return search(decoder, states, mask, trie, beam, masks, None, normalizer)

        self._graph, self._beams = record(run)

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, vectors: Tensor | None = None) -> Beams:
        """The beams of other histories of the same shape; they are overwritten by the next call.

        Raises:
            ValueError: If the shapes are not those of the recording.
        """
        given = input_ids, attention_mask, vectors
        shapes = [[None if one is None else tuple(one.shape) for one in side] for side in (self._inputs, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the graph was recorded for inputs of the shapes {shapes[0]}; got {shapes[1]}.")
        for kept, one in zip(self._inputs, given, strict=True):
            if kept is not None and one is not None:
                kept.copy_(one, non_blocking=True)
        self._graph.replay()
        return self._beams


def record(run: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
    """What a call launches, to be replayed, and what it gave: a replay writes there again."""
    # What is compiled or kept at a first call must not be part of the recording.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result
