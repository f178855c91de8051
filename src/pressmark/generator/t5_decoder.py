"""T5's forward pass for decoding, over the weights of a `T5ForConditionalGeneration`.

The sums are T5's; the shapes are not. HF repeats every user's cross-attention keys and values once a beam and
re-orders them at every step. Here a user's beams are query positions of one attention over one copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration
from transformers.activations import ACT2FN

from pressmark.generator import beam_search
from pressmark.generator.causal_t5 import CausalT5, recency_bias
from pressmark.generator.model import embed


@dataclass(frozen=True)
class _Part:
    """One residual part of a layer: a product into it, a product out of it.

    The norm before it only scales columns of `into`, so its weights are multiplied in once, and so is the root
    of the width (see `_norm`).
    """

    into: Tensor  # (D, width): queries, keys and values; or queries alone; or feed-forward, the gate first
    out: Tensor  # (width, D)


@dataclass(frozen=True)
class _Layer:
    attention: _Part
    cross: _Part | None
    feed_forward: _Part


@dataclass(frozen=True)
class Past:
    """What self-attention looks back at. A beam's past stays where it was computed; its rows say where.

    Attributes:
        positions: For each position before, each layer's queries, keys and values (rows, 3 * H * d_kv).
        rows: (positions, R) int64 the row there of each beam's ancestor. As a step leaves it, without the
            newest position: its rows are the beams themselves.
    """

    positions: list[list[Tensor]]
    rows: Tensor

    def of(self, parent: Tensor) -> Past:
        """The past of beams that go on from `parent` (B, M), each a number among its user's beams."""
        if not self.positions:
            return self
        num_users, num_before = len(parent), len(self.positions[-1][0]) // len(parent)
        kernels = beam_search.cpu_kernels(parent.device)
        if kernels is not None:
            return Past(self.positions, kernels.ancestors(self.rows, parent, num_before))
        user = torch.arange(0, num_users * num_before, num_before, device=parent.device)
        row = (parent + user[:, None]).flatten()
        return Past(self.positions, torch.cat([self.rows.index_select(1, row), row[None]]))


@dataclass(frozen=True)
class CrossKV:
    """What cross-attention looks at.

    Attributes:
        pairs: For each layer keys and values, (B, H, S, d_kv) each.
        mask: (B, 1 or H, 1, S), added to attention scores.
    """

    pairs: list[tuple[Tensor, ...]]
    mask: Tensor


MANY_ROWS = 32
"""From so many queries on, attention in bfloat16 on a CPU is two products and a sum: torch's own makes little
use of the units that multiply in it. Scores are rounded to bfloat16 then, as Hugging Face's are."""


class T5Decoder:
    """Encodes histories and decodes beams; see `beam_search.Decoder` for the protocol.

    Holds copies of the weights as they are now: build it anew after training further.

    Args:
        model: The model, tied or not, relu or gated.
        dtype: Of weights and activations. Scores leave in float32.
    """

    def __init__(self, model: T5ForConditionalGeneration, dtype: torch.dtype = torch.float32) -> None:
        config = model.config
        self.dtype, self.device = dtype, model.device
        self.num_heads, self.inner = config.num_heads, config.num_heads * config.d_kv
        self.least_square = config.layer_norm_epsilon * config.d_model
        self.least_length = torch.tensor(self.least_square**0.5, device=self.device)
        kernels = beam_search.cpu_kernels(self.device)
        self.kernels = kernels if kernels is not None and dtype in kernels.DTYPES else None
        self.norm_dtype = None if dtype == torch.float32 else torch.float32
        self.activation = torch.relu_ if config.dense_act_fn == "relu" else ACT2FN[config.dense_act_fn]
        self.gated = config.is_gated_act
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        weights = {name: one.detach() for name, one in model.state_dict().items()}
        self.recency, self.read = None, None
        if isinstance(model, CausalT5):
            self.recency = self._copy(weights["recency.weight"])
            if model.item_head.read is not None:
                self.read = self._copy(weights["item_head.read.weight"].T)
        self.embedding = self._copy(weights["shared.weight"])
        # Scale and norm go into the head once instead of into every hidden state.
        self.root = config.d_model**0.5
        scale = self.root * (config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0)
        norm = weights["decoder.final_layer_norm.weight"]
        # Weights stand as (in, out), rows contiguous: on a CPU narrow products are up to twice as fast so.
        self.head = self._copy(weights["lm_head.weight"] * norm * scale)  # (V, D): rows are picked from it
        self.encoder_norm = self._copy(weights["encoder.final_layer_norm.weight"] * self.root)
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        self.encoder_bias = self._copy(weights[f"encoder.{bias}"])  # (buckets, H)
        self.decoder_bias = self._copy(weights[f"decoder.{bias}"])
        self._encoder_biases: dict[int, Tensor] = {}
        self._decoder_biases: dict[int, Tensor] = {}
        num_decoder_layers = config.num_decoder_layers or config.num_layers
        self.encoder_layers = [self._layer(weights, f"encoder.block.{n}") for n in range(config.num_layers)]
        self.decoder_layers = [self._layer(weights, f"decoder.block.{n}") for n in range(num_decoder_layers)]
        cross = [f"decoder.block.{n}.layer.1.EncDecAttention" for n in range(num_decoder_layers)]
        # For each layer (D, 2 * inner): keys and values.
        self.cross_into = [
            self._copy(torch.cat([weights[f"{one}.{which}.weight"] for which in "kv"]).T) for one in cross
        ]

    def _copy(self, weight: Tensor) -> Tensor:
        return weight.to(self.dtype, copy=True, memory_format=torch.contiguous_format)

    def _layer(self, weights: Mapping[str, Tensor], block: str) -> _Layer:
        def part(number: int, kind: str, into: Sequence[str], out: str) -> _Part:
            prefix = f"{block}.layer.{number}"
            joined = torch.cat([weights[f"{prefix}.{kind}.{name}.weight"] for name in into])
            joined = joined * weights[f"{prefix}.layer_norm.weight"] * self.root
            return _Part(self._copy(joined.T), self._copy(weights[f"{prefix}.{kind}.{out}.weight"].T))

        is_decoder = block.startswith("decoder")
        wi = ["wi_0", "wi_1"] if self.gated else ["wi"]
        return _Layer(
            part(0, "SelfAttention", "qkv", "o"),
            part(1, "EncDecAttention", "q", "o") if is_decoder else None,
            part(2 if is_decoder else 1, "DenseReluDense", wi, "wo"),
        )

    def encode(self, input_ids: Tensor, attention_mask: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Encodes each history once.

        Args:
            input_ids: (B, S) or (B, S, L) int64 from `model.history_tokens`.
            attention_mask: (B, S), nonzero where a position counts; at least one a row.
            vectors: (B, S, D) of the items, for a model that reads them; zeros where there is none.

        Returns:
            (B, S, D).
        """
        num_rows, width = attention_mask.shape
        hidden = embed(self.embedding, input_ids).flatten(0, 1)  # (B * S, D)
        if self.read is not None:
            assert vectors is not None
            hidden = hidden.addmm(vectors.to(self.dtype).flatten(0, 1), self.read)
        bias = self._encoder_bias(width) + self._mask(attention_mask)  # (B, H, S, S)
        room = torch.empty_like(hidden)
        for layer in self.encoder_layers:
            both = self._norm(hidden, room).mm(layer.attention.into)
            query, key, value = both.view(num_rows, width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            hidden.addmm_(self._attend(query, key, value, bias), layer.attention.out)
            self._feed_forward(hidden, layer.feed_forward, room)
        return (self._norm(hidden, room) * self.encoder_norm).view(num_rows, width, -1)

    def cross_kv(self, states: Tensor, attention_mask: Tensor) -> CrossKV:
        """What all layers' cross-attention looks at, once a user.

        Args:
            states: (B, S, D).
            attention_mask: (B, S) as in `encode`.
        """
        num_rows, width, _ = states.shape
        flat = states.flatten(0, 1)
        both = [flat.mm(into).view(num_rows, width, 2, self.num_heads, -1) for into in self.cross_into]
        pairs = [one.permute(2, 0, 3, 1, 4).unbind() for one in both]
        mask = self._mask(attention_mask)
        if self.recency is not None:
            mask = mask + recency_bias(self.recency, attention_mask)
        return CrossKV(pairs, mask)

    def step(
        self, tokens: Tensor, cross_kv: CrossKV, cache: Past | None, parent: Tensor, rows: slice
    ) -> tuple[Tensor, Past]:
        """One decoder position for every beam.

        Args:
            tokens: (B, M) int64, the newest token of each of a user's M beams.
            cross_kv: From `cross_kv`.
            cache: What the step before returned; None at the first.
            parent: (B, M) int64, which of the user's beams of that step each of these goes on from.
            rows: Tokens to score.

        Returns:
            logits: (B, M, len(rows)) float32.
            cache: This position too.
        """
        num_rows, num_beams = tokens.shape
        hidden = F.embedding(tokens.flatten(), self.embedding)  # (R, D), R = B * M
        past = (cache or Past([], parent.new_empty((0, len(hidden))))).of(parent)
        bias = self._decoder_bias(len(past.rows) + 1)  # (positions, H)
        newest, room = [], torch.empty_like(hidden)
        for number, (layer, (key, value)) in enumerate(zip(self.decoder_layers, cross_kv.pairs, strict=True)):
            assert layer.cross is not None
            both = self._norm(hidden, room).mm(layer.attention.into)
            before = [position[number] for position in past.positions]
            hidden.addmm_(self._attend_past(both, before, past.rows, bias), layer.attention.out)
            newest.append(both)
            query = self._norm(hidden, room).mm(layer.cross.into).view(num_rows, num_beams, self.num_heads, -1)
            hidden.addmm_(self._attend(query.transpose(1, 2), key, value, cross_kv.mask), layer.cross.out)
            self._feed_forward(hidden, layer.feed_forward, room)
        logits = F.linear(self._norm(hidden, room), self.head[rows])
        if self.dtype != torch.float32:
            logits = logits.float()
        logits = logits.view(num_rows, num_beams, -1)
        cache = Past([*past.positions, newest], past.rows)
        return logits, cache

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Attention of queries (B, H, M, d_kv) to (B, H, S, d_kv), bias added to scores: (B * M, inner)."""
        if self.kernels is not None and self.dtype == torch.bfloat16 and query[:, 0, :, 0].numel() >= MANY_ROWS:
            scores = query.flatten(0, 1).bmm(key.flatten(0, 1).mT).view(*query.shape[:3], -1)
            weights = self.kernels.softmax_(scores, bias)
            mixed = weights.flatten(0, 1).bmm(value.flatten(0, 1)).view(query.shape)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        return mixed.transpose(1, 2).reshape(-1, self.inner)

    def _attend_past(self, own: Tensor, before: list[Tensor], rows: Tensor, bias: Tensor) -> Tensor:
        """Self-attention of one position over its past and itself.

        A SID has few positions: sums beat a batch of R * H tiny matrix products.

        Args:
            own: (R, 3 * H * d_kv) this position's queries, keys and values.
            before: For each position before the same, (rows, 3 * H * d_kv).
            rows: (positions, R) int64 the row there of each beam's ancestor.
            bias: (positions + 1, H).

        Returns:
            (R, inner).
        """
        if not before:
            return own[:, 2 * self.inner :]
        if self.kernels is not None:
            return self.kernels.attend_past(own, before, rows, bias)
        query, newest = own[:, : self.inner], own[:, self.inner :]
        past = [one[:, self.inner :].index_select(0, row) for one, row in zip(before, rows, strict=True)]
        both = torch.stack([*past, newest], dim=1).unflatten(2, (2, self.num_heads, -1))
        key, value = both.unbind(2)  # (R, positions + 1, H, d_kv)
        scores = torch.linalg.vecdot(key, query.view_as(key[:, :1])) + bias  # (R, positions + 1, H)
        weights = scores.float().softmax(dim=1).to(self.dtype)[..., None]
        return (weights * value).sum(1).flatten(1)

    def _feed_forward(self, hidden: Tensor, part: _Part, room: Tensor) -> None:
        """Adds the feed-forward part to (R, D) `hidden`, in place."""
        inside = self._norm(hidden, room).mm(part.into)
        if self.gated:
            gate, value = inside.chunk(2, dim=-1)
            inside = self.activation(gate).mul_(value)
        else:
            inside = self.activation(inside)
        hidden.addmm_(inside, part.out)

    def _norm(self, hidden: Tensor, room: Tensor) -> Tensor:
        """Rows (R, D) normed. A kernel writes them into `room`: the same memory at every layer."""
        # T5's norm, h / sqrt(|h|^2 / D + eps), without the root of D, which the weights have taken in: no mean,
        # no bias, and the length in float32 whatever the dtype.
        if self.kernels is not None:
            return self.kernels.normed(hidden, self.least_square, room)
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=self.norm_dtype)
        return hidden / torch.hypot(length, self.least_length).to(self.dtype)

    def _encoder_bias(self, width: int) -> Tensor:
        """(H, S, S) of S positions, kept from call to call."""
        if width not in self._encoder_biases:
            position = torch.arange(width, device=self.device)
            bucket = self._bucket(position - position[:, None], two_sided=True)
            bias = self.encoder_bias[bucket].permute(2, 0, 1).contiguous()
            if self.recency is not None:
                bias = bias.masked_fill_(position > position[:, None], -torch.inf)
            self._encoder_biases[width] = bias
        return self._encoder_biases[width]

    def _decoder_bias(self, num_positions: int) -> Tensor:
        """(positions, H) of the newest position with each up to itself, kept from call to call."""
        if num_positions not in self._decoder_biases:
            behind = torch.arange(1 - num_positions, 1, device=self.device)
            self._decoder_biases[num_positions] = self.decoder_bias[self._bucket(behind, two_sided=False)]
        return self._decoder_biases[num_positions]

    def _bucket(self, distance: Tensor, two_sided: bool) -> Tensor:
        """T5's buckets of (key position - query position): exact when near, logarithmic when far.

        Two-sided, the upper half is for keys ahead; one-sided there are none ahead.
        Source: Raffel et al. 2020, section 2.1.
        """
        num_buckets = self.num_buckets // 2 if two_sided else self.num_buckets
        ahead = (distance > 0).long() * num_buckets if two_sided else 0
        far = distance.abs()
        num_exact = num_buckets // 2
        log_share = torch.log(far.clamp_min(1) / num_exact) / math.log(self.max_distance / num_exact)
        coarse = num_exact + (log_share * (num_buckets - num_exact)).long()
        return ahead + torch.where(far < num_exact, far, coarse.clamp_max(num_buckets - 1))

    def _mask(self, attention_mask: Tensor) -> Tensor:
        """(B, 1, 1, S) added to attention scores."""
        lowest = torch.finfo(self.dtype).min
        mask = torch.zeros(attention_mask.shape, dtype=self.dtype, device=attention_mask.device)
        return mask.masked_fill_(attention_mask == 0, lowest)[:, None, None]
