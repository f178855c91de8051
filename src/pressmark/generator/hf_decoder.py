"""Any Hugging Face encoder-decoder behind the beam search's protocol, asked in sid_tokens."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from pressmark.generator.beam_search import Decoder
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.sids.vocabulary import NUM_SPECIAL, PAD, Vocabulary

OWN_DECODER = ("t5", "mt5")
"""Architectures that `T5Decoder` computes too, faster."""


@dataclass(frozen=True)
class Read:
    """What cross-attention looks at, once a user.

    Attributes:
        states: (B, S, D).
        attention_mask: (B, S).
    """

    states: Tensor
    attention_mask: Tensor


class HfDecoder:
    """Encodes prompts and decodes beams by a model's own forward pass and its cache.

    Keys and values of cross-attention are computed once a user, at the first step, and copied to a user's beams
    at each. It computes the scores of the whole vocabulary whatever rows are wanted: slower than `T5Decoder`,
    and right for every encoder-decoder that keeps an `EncoderDecoderCache`.

    Args:
        model: In evaluation mode. Held, not copied, where its dtype is `dtype`.
        dtype: Of weights and activations. Scores leave in float32.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> None:
        same = next(model.parameters()).dtype == dtype
        self.model: Any = model if same else nn.Module.to(copy.deepcopy(model), dtype)
        self.model.eval()
        self.dtype = dtype

    def encode(self, input_ids: Tensor, attention_mask: Tensor, content: Tensor | None = None) -> Tensor:
        """(B, S) prompts -> (B, S, D) states."""
        with torch.no_grad():
            encoder = self.model.get_encoder()
            return encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def cross_kv(self, states: Tensor, attention_mask: Tensor) -> Read:
        """See `beam_search.Decoder`."""
        return Read(states, attention_mask)

    def step(
        self, tokens: Tensor, cross_kv: Read, cache: Caches | None, parent: Tensor, rows: slice
    ) -> tuple[Tensor, Caches]:
        """See `beam_search.Decoder`; the cache that is given is used up."""
        num_users, num_beams = tokens.shape
        user = torch.arange(num_users, device=tokens.device)
        states, mask = cross_kv.states, cross_kv.attention_mask
        if cache is None:
            assert num_beams == 1
            crossed: Any = DynamicCache()
            past = EncoderDecoderCache(DynamicCache(), crossed)
        else:
            own, crossed = cache
            before = own.layers[0].keys.shape[0] // num_users
            own.batch_select_indices((parent + before * user[:, None]).flatten())
            beam = user.repeat_interleave(num_beams)
            past = EncoderDecoderCache(own, _repeated(crossed, beam))
            # Only their shapes are asked for: the keys and values are there.
            states, mask = states[:, :1, :1].expand_as(states)[beam], mask[beam]
        with torch.no_grad():
            out = self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                decoder_input_ids=tokens.flatten()[:, None],
                past_key_values=past,
                use_cache=True,
            )
        logits = out.logits[:, -1].float().view(num_users, num_beams, -1)[..., rows]
        return logits, (past.self_attention_cache, crossed)


Caches = tuple[Any, Any]
"""Of self-attention, a row a beam, and of cross-attention, a row a user."""


def _repeated(cache: Any, beam: Tensor) -> DynamicCache:
    """Keys and values of users for their beams: (R,) int64 the user of each."""
    return DynamicCache([(layer.keys[beam], layer.values[beam]) for layer in cache.layers])


class Renumbered:
    """A decoder of another vocabulary, asked in sid_tokens.

    With all rows asked for, sid_tokens stand where `Vocabulary` has them and the rest of the vocabulary before
    and behind: what they compete with is the same, and nobody asks where it stands.

    Args:
        decoder: Of the backbone's vocabulary.
        first_sid: There, code 0 of level 0; the other codes follow.
        start: There, the token that a decoder starts from.
        level_sizes: Of the SIDs.
    """

    def __init__(self, decoder: Decoder, first_sid: int, start: int, level_sizes: tuple[int, ...]) -> None:
        self.decoder, self.start = decoder, start
        self.shift = first_sid - NUM_SPECIAL
        self.num_sids = Vocabulary(level_sizes).size - NUM_SPECIAL

    def encode(self, input_ids: Tensor, attention_mask: Tensor, content: Tensor | None = None) -> Tensor:
        """See `beam_search.Decoder`; prompts are in the backbone's vocabulary already."""
        return self.decoder.encode(input_ids, attention_mask)

    def cross_kv(self, states: Tensor, attention_mask: Tensor) -> Any:
        """See `beam_search.Decoder`."""
        return self.decoder.cross_kv(states, attention_mask)

    def step(
        self, tokens: Tensor, cross_kv: Any, cache: Any, parent: Tensor, rows: slice
    ) -> tuple[Tensor, Any]:
        """See `beam_search.Decoder`."""
        own = torch.where(tokens == PAD, self.start, tokens + self.shift)
        if rows.stop is not None:
            wanted = slice(rows.start + self.shift, rows.stop + self.shift)
            return self.decoder.step(own, cross_kv, cache, parent, wanted)
        logits, cache = self.decoder.step(own, cross_kv, cache, parent, slice(None))
        first = self.shift + NUM_SPECIAL
        end = first + self.num_sids
        order = [(0, NUM_SPECIAL), (first, end), (NUM_SPECIAL, first), (end, logits.shape[2])]
        return torch.cat([logits[..., start:stop] for start, stop in order], 2), cache


def decoder_of(model: Any, dtype: torch.dtype = torch.float32) -> Renumbered:
    """The decoder of a backbone with sid_tokens, see `backbone`."""
    config = model.config
    inner = (T5Decoder if config.model_type in OWN_DECODER else HfDecoder)(model, dtype)
    return Renumbered(inner, config.first_sid, config.start_token, tuple(config.level_sizes))
