"""Pressmark's decoding for people who stay inside Hugging Face's `generate`.

Two doors. `TrieBeamSearch` replaces the decoding loop and is as fast as Pressmark's own:

    model.generate(input_ids, num_beams=50, custom_generate=TrieBeamSearch(trie))

`TrieLogitsProcessor` keeps HF's loop (sampling, other stopping rules, several calls) inside the trie:

    model.generate(input_ids, num_beams=50, logits_processor=LogitsProcessorList([TrieLogitsProcessor(trie)]))
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, T5ForConditionalGeneration
from transformers.generation import GenerateBeamEncoderDecoderOutput

from pressmark.generator.beam_search import Masks, SearchTrie, search
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.sids.edge_mask import EdgeMask
from pressmark.sids.trie import Trie
from pressmark.sids.vocabulary import PAD, Vocabulary


class TrieBeamSearch:
    """A decoding loop for `generate(custom_generate=...)`: exact beam search over the SIDs of a trie.

    Reads `num_beams`, `num_return_sequences`, `length_penalty` and `return_dict_in_generate`; processors,
    sampling and stopping rules have no say. Where a user has fewer SIDs than were asked for, the rest of the
    sequences are padding with a score of -inf.

    Args:
        trie: The valid SIDs.
        mask: Items that may be the answer; None is all.
        dtype: Of the decoder, see `T5Decoder`.
    """

    def __init__(self, trie: Trie, mask: EdgeMask | None = None, dtype: torch.dtype = torch.float32) -> None:
        self.trie, self.mask, self.dtype = trie, mask, dtype

    def __call__(
        self,
        model: T5ForConditionalGeneration,
        input_ids: Tensor,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> GenerateBeamEncoderDecoderOutput | Tensor:
        """What `generate` calls: (B * num_return_sequences, 1 + L) int64 sequences, best first a user."""
        num_beams = generation_config.num_beams or 1
        num_answers = generation_config.num_return_sequences or 1
        if num_answers > num_beams:
            raise ValueError(f"num_return_sequences ({num_answers}) must be at most num_beams ({num_beams}).")
        # `generate` has repeated what belongs to a user once a beam. These two are no parameters of their own:
        # it would hand them over as they came, and encode without a mask.
        users = slice(None, None, max(num_beams, num_answers))
        states = model_kwargs["encoder_outputs"].last_hidden_state[users]
        mask = model_kwargs.get("attention_mask")
        mask = states.new_ones(states.shape[:2]) if mask is None else mask[users]
        decoder = _Encoded(model, states, self.dtype)
        shown = SearchTrie.of(self.trie, model.device)
        masks = Masks.of([self.mask], np.zeros(len(mask), np.int64), model.device)
        beams = search(decoder, mask, mask, shown, num_beams, masks)
        leaf, score = beams.leaf[:, :num_answers], beams.score[:, :num_answers]
        missing = (0, num_answers - leaf.shape[1])
        leaf = torch.nn.functional.pad(leaf, missing, value=-1)
        score = torch.nn.functional.pad(score, missing, value=-torch.inf)
        sequences = torch.cat([input_ids.new_full((leaf.numel(), 1), PAD), self._tokens(leaf.flatten())], dim=1)
        if not generation_config.return_dict_in_generate:
            return sequences
        penalty = self.trie.num_levels ** (generation_config.length_penalty or 0.0)
        return GenerateBeamEncoderDecoderOutput(
            sequences=cast(torch.LongTensor, sequences),
            sequences_scores=cast(torch.FloatTensor, score.flatten() / penalty),
        )

    def _tokens(self, leaf: Tensor) -> Tensor:
        """(n, L) int64 sid_tokens of (n,) leaves, PAD for -1."""
        found = leaf.cpu().numpy()
        leaves, sids = self.trie.leaves()
        order = np.argsort(leaves)
        place = order[np.searchsorted(leaves[order], np.maximum(found, 0)).clip(max=len(leaves) - 1)]
        tokens = Vocabulary(self.trie.level_sizes).sid_tokens(sids[place])
        return torch.from_numpy(np.where(found[:, None] < 0, PAD, tokens)).to(leaf.device)


class _Encoded(T5Decoder):
    """A decoder for histories that `generate` has encoded already."""

    def __init__(self, model: T5ForConditionalGeneration, states: Tensor, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        self.states = states.to(dtype)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The states, whatever the ids."""
        return self.states


class TrieLogitsProcessor(LogitsProcessor):
    """Sets the scores of tokens that lead out of the trie to -inf.

    In beam search HF normalises before it asks processors, so scores are those of the whole vocabulary. A row
    that has no SID left to spell may only pad.

    Args:
        trie: The valid SIDs.
        mask: Items that may be the answer; None is all.
    """

    def __init__(self, trie: Trie, mask: EdgeMask | None = None) -> None:
        self.trie, self.mask = trie, mask
        self._shown: SearchTrie | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(R, 1 + t) int64 tokens so far, the start token first, and (R, V) scores -> (R, V) scores."""
        device = scores.device
        trie = SearchTrie.of(self.trie, device)
        masks = Masks.of([self.mask], np.zeros(len(scores), np.int64), device)
        node = torch.full((len(scores),), self.trie.root, device=device)
        inside = torch.ones(len(scores), dtype=torch.bool, device=device)
        level = input_ids.shape[1] - 1
        for passed in range(min(level, self.trie.num_levels)):
            node, found = trie.find(passed, node, input_ids[:, passed + 1] - trie.rows[passed].start)
            inside &= found
        allowed = torch.full_like(scores, -torch.inf)
        if level < self.trie.num_levels:
            rows = trie.rows[level]
            edge, closed = trie.edges(level, node[:, None], masks)
            closed |= ~inside[:, None, None]
            open_ = torch.zeros((len(scores), rows.stop - rows.start), device=device)
            open_.scatter_reduce_(1, trie.code(level, edge)[:, 0], (~closed[:, 0]).float(), "amax")
            allowed[:, rows] = torch.where(open_ > 0, scores[:, rows], -torch.inf)
        nothing = torch.isneginf(allowed).all(dim=1)
        allowed[:, PAD] = torch.where(nothing, scores[:, PAD], -torch.inf)
        return allowed
