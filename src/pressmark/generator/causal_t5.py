"""A T5 whose encoder only looks back: one pass over a user's sequence trains every next item in it.

A history's states are then the first states of every longer history of that user, so nothing is encoded twice,
and all next items are decoded at once, each attending to the states before it. Weights and sums are T5's. Three
things are added: the encoder's causal mask, a bias of cross-attention for how recent an item is (T5's knows no
positions), and an item head that tells whole items apart, see `item_head`.

Source: SASRec's encoder (Kang and McAuley 2018) under TIGER's decoder (Rajput et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import T5Config, T5ForConditionalGeneration
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from pressmark.generator.dropout import drop
from pressmark.generator.item_head import ItemHead
from pressmark.generator.rms_norm import rms_norm
from pressmark.sids.vocabulary import PAD

ROWS = 128
"""Decoder rows of a training step come in multiples of this."""


class CausalT5(T5ForConditionalGeneration):
    """T5 with a causal encoder over one position an item.

    `generate`, `save_pretrained` and `from_pretrained` are Hugging Face's. The encoder reads the token of an
    empty history first and then the items, oldest first, padded on the right. What they say is the decoder's
    alone: the item head's share is added over a trie, see `beam_search.search` and `hf_generate`.

    Args:
        config: A T5's, with `history_length` beside; `vector_dim`, the width of the content vectors that items
            are read with, 0 for none; `num_identities`, `identity_dropout`, `num_words`, `word_dropout` and
            `word_rate`, see `ItemHead`; `words`, how many of a text are read; and
            `guided`, whether answers start from the item head's masses.

    Attributes:
        recency: (history_length + 1, H) bias of cross-attention, a row for each number of newer positions.
        item_head: Scores of whole items.
        checkpointing: Hold one layer's activations at a time in training.
    """

    checkpointing = False

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.recency = nn.Embedding(config.history_length + 1, config.num_heads)
        self.item_head = ItemHead(
            config.vocab_size,
            config.d_model,
            getattr(config, "vector_dim", 0),
            config.history_length,
            getattr(config, "num_identities", 0),
            getattr(config, "identity_dropout", 0.0),
            getattr(config, "num_words", 0),
            getattr(config, "word_dropout", 0.0),
            getattr(config, "word_rate", 1.0),
        )
        for module in (self.recency, self.item_head):
            self._init_weights(module)
        # `generate` calls the encoder by itself, with a mask of positions that is not causal.
        self.encoder.register_forward_pre_hook(_look_back, with_kwargs=True)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # T5's own parts come before these are there.
        if module is getattr(self, "recency", None):
            init.zeros_(self.recency.weight)
        elif isinstance(module, ItemHead):
            if module.read is not None:
                init.normal_(module.read.weight)
            if module.identity is not None:
                init.zeros_(module.identity.weight)
            if module.words is not None:
                init.zeros_(module.words.vectors.weight)
            # With text, codes add nothing at first; without, they are all there is.
            init.normal_(module.codes.weight, std=0.0 if module.read is not None else 0.02)
            init.zeros_(module.query.weight)
            init.copy_(module.age, -torch.arange(len(module.age), dtype=torch.float32))
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: Tensor | None = None,
        next_items: Tensor | None = None,
        needed: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple[Tensor, Tensor]:
        """T5's forward pass; with `next_items` that of `spell`, through whatever wraps the model."""
        if next_items is not None:
            assert inputs_embeds is not None
            return self.spell(inputs_embeds, next_items, needed)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds
            )
        states = encoder_outputs[0]
        if attention_mask is None:
            attention_mask = states.new_ones(states.shape[:2])
        bias = recency_bias(self.recency.weight, attention_mask)
        bias = bias.masked_fill(attention_mask[:, None, None] == 0, torch.finfo(bias.dtype).min)
        labels = kwargs.pop("labels", None)
        if labels is not None and kwargs.get("decoder_input_ids") is None:
            kwargs["decoder_input_ids"] = self._shift_right(labels)
        encoded = BaseModelOutput(last_hidden_state=states)
        as_tuple = kwargs.pop("return_dict", None) is False
        out = super().forward(encoder_outputs=encoded, attention_mask=bias, return_dict=True, **kwargs)
        if labels is not None:
            loss = F.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
            out = Seq2SeqLMOutput(**{"loss": loss, **out})
        return out.to_tuple() if as_tuple else out

    def spell(
        self, inputs_embeds: Tensor, next_items: Tensor, needed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encodes sequences once and decodes the items that follow their last T positions.

        Args:
            inputs_embeds: (B, S, D), right-padded; what stands behind a position never reaches it.
            next_items: (B, T, L) int64 sid_tokens; target t follows position S - T + t.
            needed: (R,) int64 places among the B * T * L of the codes that are to be told, ascending; with one,
                all before it. None is all.

        Returns:
            hidden: (B, T, L, D) decoder states, ready for the output head; zeros where they are not needed.
            states: (B, T, D) encoder states of the last T positions.
        """
        states = self._encode(inputs_embeds)
        num_targets, num_levels = next_items.shape[1:]
        grid = _Grid.of(next_items.shape, needed)
        before = F.pad(next_items[..., :-1], (1, 0), value=PAD)
        hidden = self._drop(F.embedding(grid.rows(before[..., None])[:, 0], self.shared.weight))  # (R, D)
        own = self._self_bias(self.decoder, num_levels)  # (1, H, L, L)
        cross = self._cross_bias(num_targets, states.shape[1], num_levels)  # (1, H, T * L, S)
        for parts in _parts(self.decoder):
            hidden = self._held(self._decoder_layer, parts, hidden, states, own, cross, grid)
        hidden = self._drop(self._final_norm(self.decoder, hidden))
        if self.config.scale_decoder_outputs:
            hidden = hidden * self.config.d_model**-0.5
        return grid.full(hidden).view(*next_items.shape, -1), states[:, -num_targets:]

    def _encode(self, inputs_embeds: Tensor) -> Tensor:
        """(B, S, D) as `encoder` gives them, faster to train."""
        grid = _Grid.of(inputs_embeds.shape[:2], None)
        hidden = self._drop(grid.rows(inputs_embeds))  # (B * S, D)
        bias = self._self_bias(self.encoder, inputs_embeds.shape[1])
        for parts in _parts(self.encoder):
            hidden = self._held(self._encoder_layer, parts, hidden, bias, grid)
        return self._drop(self._final_norm(self.encoder, hidden)).view(inputs_embeds.shape)

    def _held(self, layer: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """What a layer makes of its arguments; its activations are held, or computed again on the way back."""
        if not (self.checkpointing and self.training):
            return layer(*arguments)
        again: Tensor = checkpoint(layer, *arguments, use_reentrant=False)
        return again

    def _encoder_layer(self, parts: Any, hidden: Tensor, bias: Tensor, grid: _Grid) -> Tensor:
        attention, feed_forward = parts
        hidden = hidden + self._drop(self._attend(attention, hidden, bias, grid))
        return hidden + self._drop(self._feed_forward(feed_forward, hidden))

    def _decoder_layer(
        self, parts: Any, hidden: Tensor, states: Tensor, own: Tensor, cross: Tensor, grid: _Grid
    ) -> Tensor:
        own_part, part, feed_forward = parts
        hidden = hidden + self._drop(self._attend(own_part, hidden, own, grid))
        queries = rms_norm(hidden, part.layer_norm.weight, self.config.layer_norm_epsilon)
        attention = part.EncDecAttention
        query = grid.full(F.linear(queries, attention.q.weight))
        both = F.linear(states, torch.cat([attention.k.weight, attention.v.weight]))
        query = query.view(len(states), -1, query.shape[2])
        mixed = _mix(cross, *self._heads(query, 1), *self._heads(both, 2))
        hidden = hidden + self._drop(F.linear(grid.rows(mixed), attention.o.weight))
        return hidden + self._drop(self._feed_forward(feed_forward, hidden))

    def _attend(self, part: Any, hidden: Tensor, bias: Tensor, grid: _Grid) -> Tensor:
        attention = part.SelfAttention
        values = rms_norm(hidden, part.layer_norm.weight, self.config.layer_norm_epsilon)
        into = torch.cat([attention.q.weight, attention.k.weight, attention.v.weight])
        mixed = _mix(bias, *self._heads(grid.full(F.linear(values, into)), 3))
        return F.linear(grid.rows(mixed), attention.o.weight)

    def _feed_forward(self, part: Any, hidden: Tensor) -> Tensor:
        values = rms_norm(hidden, part.layer_norm.weight, self.config.layer_norm_epsilon)
        dense = part.DenseReluDense
        if self.config.is_gated_act:
            inside = dense.act(F.linear(values, dense.wi_0.weight)) * F.linear(values, dense.wi_1.weight)
        else:
            inside = dense.act(F.linear(values, dense.wi.weight))
        return F.linear(self._drop(inside), dense.wo.weight)

    def _final_norm(self, stack: Any, hidden: Tensor) -> Tensor:
        return rms_norm(hidden, stack.final_layer_norm.weight, self.config.layer_norm_epsilon)

    def _drop(self, values: Tensor) -> Tensor:
        return drop(values, self.config.dropout_rate) if self.training else values

    def _heads(self, values: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, S, parts * inner) -> so many (B, H, S, d_kv)."""
        split = values.view(*values.shape[:2], parts, self.config.num_heads, -1)
        return split.permute(2, 0, 3, 1, 4).unbind()

    def _self_bias(self, stack: Any, width: int) -> Tensor:
        """(1, H, S, S): T5's for the distance, -inf for what is ahead."""
        bias = stack.block[0].layer[0].SelfAttention.compute_bias(width, width)
        return bias + _ahead(width, width, bias)

    def _cross_bias(self, num_targets: int, width: int, num_levels: int) -> Tensor:
        """(1, H, T * L, S): how recent a position is for each target, -inf for what is ahead of it."""
        weight = self.recency.weight
        position = torch.arange(width, device=weight.device)
        newer = (position[-num_targets:, None] - position).clamp_min(0)  # (T, S)
        bias = F.embedding(newer, weight).permute(2, 0, 1) + _ahead(num_targets, width, weight)
        return bias.repeat_interleave(num_levels, dim=1)[None]


def _parts(stack: Any) -> list[Any]:
    """The residual parts of each layer."""
    return [block.layer for block in stack.block]


@dataclass(frozen=True)
class _Grid:
    """Rows of a batch, and the grid that attention wants them in: sequences of equal length.

    Attributes:
        shape: Of the grid, the positions last.
        index: (R,) int64 places of the rows in the flat grid; None where every place has one.
    """

    shape: Sequence[int]
    index: Tensor | None

    @classmethod
    def of(cls, shape: Sequence[int], index: Tensor | None) -> _Grid:
        """The grid of the flat places `index`; of all where it is None.

        Rows come in multiples of `ROWS`, so that a library that compiles its products for their shapes meets
        few: the last place, which is behind the grid, stands for none.
        """
        if index is None:
            return cls(shape, None)
        return cls(shape, F.pad(index, (0, -len(index) % ROWS), value=math.prod(shape)))

    def full(self, rows: Tensor) -> Tensor:
        """(R, W) -> (sequences, positions, W), zeros where there is no row."""
        if self.index is not None:
            empty = rows.new_zeros((math.prod(self.shape) + 1, rows.shape[1]))
            rows = empty.index_copy(0, self.index, rows)[:-1]
        return rows.view(-1, self.shape[-1], rows.shape[1])

    def rows(self, grid: Tensor) -> Tensor:
        """(..., W) -> (R, W)."""
        flat = grid.reshape(-1, grid.shape[-1])
        return flat if self.index is None else flat.index_select(0, self.index.clamp_max(len(flat) - 1))


def recency_bias(recency: Tensor, attention_mask: Tensor) -> Tensor:
    """Bias of cross-attention for the number of newer positions.

    Args:
        recency: (history_length + 1, H).
        attention_mask: (B, S), nonzero where a position counts; those come first.

    Returns:
        (B, H, 1, S); anything where no position counts.

    Raises:
        ValueError: If there are more positions than the model was built for.
    """
    if attention_mask.shape[1] > len(recency):
        raise ValueError(
            f"a history of {attention_mask.shape[1] - 1} items is longer than history_length "
            f"({len(recency) - 1}), which this model was built for; give it the newest ones."
        )
    counts = (attention_mask != 0).long()
    newer = counts.sum(1, keepdim=True) - counts.cumsum(1)
    return recency[newer].permute(0, 2, 1)[:, :, None]


def _ahead(num_queries: int, num_keys: int, like: Tensor) -> Tensor:
    """(queries, keys), 0 for keys up to the query, -inf ahead; the last query stands at the last key."""
    nothing = torch.full((num_queries, num_keys), -torch.inf, dtype=like.dtype, device=like.device)
    return nothing.triu(num_keys - num_queries + 1)


def _mix(bias: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as T5 has it, unscaled: (B, H, Q, d_kv) -> (B, Q, inner).

    Written out: the bias is learned, for which torch has no fused attention on a CPU.
    """
    weights = (query @ key.transpose(-1, -2) + bias).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def _look_back(encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Makes an encoder's mask of positions (B, S) causal."""
    inputs = kwargs.get("inputs_embeds")
    if inputs is None:
        inputs = args[0] if args else kwargs["input_ids"]
    if len(args) > 1:
        kwargs, args = {**kwargs, "attention_mask": args[1]}, args[:1]
    mask = kwargs.get("attention_mask")
    if mask is None or mask.ndim == 2:
        weight = next(encoder.parameters())
        width = inputs.shape[1]
        lowest = torch.finfo(weight.dtype).min
        causal = _ahead(width, width, weight).clamp_min(lowest)[None, None]  # (1, 1, S, S)
        if mask is not None:
            causal = causal.expand(len(mask), -1, -1, -1)
            causal = causal.masked_fill(mask[:, None, None] == 0, lowest)
        kwargs = {**kwargs, "attention_mask": causal}
    return args, kwargs
