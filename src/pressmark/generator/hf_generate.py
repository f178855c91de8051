"""Pressmark's decoding for people who stay inside Hugging Face's `generate`.

Two doors, for generators from scratch: a backbone's vocabulary is numbered otherwise.

`TrieBeamSearch` puts Pressmark's loop in the place of HF's:

    model.generate(input_ids, num_beams=50, custom_generate=TrieBeamSearch(trie))

`TrieLogitsProcessor` keeps HF's loop (sampling, other stopping rules, several calls) inside the trie:

    inside = TrieLogitsProcessor(trie, config=model.config)
    model.generate(input_ids, num_beams=50, logits_processor=LogitsProcessorList([inside]))

Both see a living trie as it is at the call. A model whose decoder starts from its item head wants that head's
prior for the users of the call, from `GeneratorRecommender.generate_arguments`:

    arguments, prior = recommender.generate_arguments(model, histories)
    model.generate(**arguments, num_beams=50, custom_generate=TrieBeamSearch(recommender.trie, prior=prior))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, LogitsProcessor, PretrainedConfig, T5ForConditionalGeneration
from transformers.generation import GenerateBeamEncoderDecoderOutput

from pressmark.generator.beam_search import Masks, SearchTrie, search
from pressmark.generator.model import PROMPT, normalizer_of
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.recommender import check_scores
from pressmark.sids.edge_mask import edge_mask
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.trie import Trie
from pressmark.sids.vocabulary import PAD, Vocabulary


class _Shown:
    """A trie and the items allowed in it as tensors, made again when the trie has changed."""

    def __init__(self, trie: Trie, allowed: np.ndarray | None) -> None:
        self.trie, self.allowed = trie, None if allowed is None else np.asarray(allowed)
        if self.allowed is not None:
            every = np.arange(len(self.allowed))
            known = trie.holds(every) if isinstance(trie, LivingTrie) else np.isin(every, trie.item_order)
            if known.sum() < trie.num_items:
                raise ValueError(
                    f"allowed is about {len(every)} items, the trie holds items behind those: give it a bool "
                    "for each item of the catalog."
                )
        self._key: tuple[torch.device, int] | None = None

    def on(self, device: torch.device, num_rows: int) -> tuple[SearchTrie, Masks | None]:
        """The trie, and the mask for so many rows."""
        key = device, self.trie.version if isinstance(self.trie, LivingTrie) else 0
        if key != self._key:
            self._key, self._trie = key, SearchTrie.of(self.trie, device)
            self._mask = None if self.allowed is None else edge_mask(self.trie, self.allowed)
        return self._trie, Masks.of([self._mask], np.zeros(num_rows, np.int64), device)


class TrieBeamSearch:
    """A decoding loop for `generate(custom_generate=...)`: exact beam search over the SIDs of a trie.

    Scores by what the model was trained by, see `config.ModelConfig.normalizer`. Reads `num_beams`,
    `num_return_sequences`, `length_penalty` and `return_dict_in_generate`; processors, sampling and stopping
    rules have no say. Where a user has fewer SIDs than were asked for, the rest of the sequences are padding
    with a score of -inf.

    Args:
        trie: The valid SIDs.
        allowed: (items,) bool by item_index, those that may be the answer; None is all. Items that a living
            trie gets later are none of them.
        dtype: Of the decoder, see `T5Decoder`. It copies the weights at each call.
        prior: For each level (B, E_l) logits of the edges for the users of a call, see `beam_search.search`.
    """

    def __init__(
        self,
        trie: Trie,
        allowed: np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
        prior: Sequence[Tensor] | None = None,
    ) -> None:
        self.num_levels, self.dtype, self.prior = trie.num_levels, dtype, prior
        self.offsets = torch.from_numpy(Vocabulary(trie.level_sizes).offsets)
        self._shown = _Shown(trie, allowed)

    def __call__(
        self,
        model: T5ForConditionalGeneration,
        input_ids: Tensor,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> GenerateBeamEncoderDecoderOutput | Tensor:
        """What `generate` calls: (B * num_return_sequences, 1 + L) int64 sequences, best first a user."""
        if getattr(model.config, "history_input", None) == PROMPT:
            raise ValueError(
                "this door is for generators from scratch; a backbone numbers its tokens otherwise. Ask a "
                "GeneratorRecommender, or use prefix_allowed_tokens_fn."
            )
        _check_sids(model.config, self._shown.trie)
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
        if getattr(model.config, "guided", False):
            _check_prior(self.prior, len(mask), self._shown.trie)
        trie, masks = self._shown.on(states.device, len(mask))
        decoder, normalizer = T5Decoder(model, self.dtype), normalizer_of(model)
        states = states.to(self.dtype)
        beams = search(decoder, states, mask, trie, num_beams, masks, normalizer=normalizer, prior=self.prior)
        check_scores(beams.score.cpu().numpy())
        missing = (0, max(0, num_answers - beams.leaf.shape[1]))
        leaf = F.pad(beams.leaf[:, :num_answers], missing, value=-1)
        score = F.pad(beams.score[:, :num_answers], missing, value=-torch.inf)
        codes = F.pad(beams.codes[:, :num_answers], (0, 0, *missing))
        tokens = torch.where(leaf[..., None] < 0, PAD, codes + self.offsets.to(codes.device))
        sequences = F.pad(tokens.flatten(0, 1), (1, 0), value=PAD)
        if not generation_config.return_dict_in_generate:
            return sequences
        penalty = self.num_levels ** (generation_config.length_penalty or 0.0)
        return GenerateBeamEncoderDecoderOutput(
            sequences=cast(torch.LongTensor, sequences),
            sequences_scores=cast(torch.FloatTensor, score.flatten() / penalty),
        )


def _check_sids(config: Any, trie: Trie) -> None:
    """A trie is one of the SIDs that a model spells."""
    sizes = getattr(config, "level_sizes", None)
    if sizes is not None and tuple(sizes) != tuple(trie.level_sizes):
        raise ValueError(
            f"the model has level_sizes {tuple(sizes)}, the trie {tuple(trie.level_sizes)}: give a trie of the "
            "SIDs that the model was trained on."
        )


def _check_prior(prior: Sequence[Tensor] | None, num_rows: int, trie: Trie, of_rows: bool = False) -> None:
    """A prior is that of the users of the call, in their order."""
    if prior is None:
        raise ValueError(
            "this model's decoder starts from its item head: give the door a prior, from "
            "GeneratorRecommender.generate_arguments."
        )
    num_users = len(prior[0])
    if num_rows % num_users if of_rows else num_rows != num_users:
        raise ValueError(f"the prior is that of {num_users} users, the call has {num_rows} rows.")
    edges = [one.shape[1] for one in prior], [len(one) for one in trie.edge_code]
    if edges[0] != edges[1]:
        raise ValueError(
            f"the prior is about {edges[0]} edges a level, the trie has {edges[1]}: give both of one "
            "recommender, and the prior as of its last change."
        )


class TrieLogitsProcessor(LogitsProcessor):
    """Sets the scores of tokens that lead out of the trie to -inf.

    In beam search HF normalises before it asks processors, so scores are those of the whole vocabulary unless
    told otherwise. A row that has no SID left to spell may only pad.

    Args:
        trie: The valid SIDs.
        allowed: (items,) bool by item_index, those that may be the answer; None is all. Items that a living
            trie gets later are none of them.
        normalizer: Of the scores that come out: "full", or "trie" for a model that was trained by it.
        prior: For each level (B, E_l) logits of the edges for the users of a call; with "trie" alone. A model
            that was trained `guided` gives other answers without.
        config: The model's; a trie of other level sizes is then refused. The scores alone do not tell.
    """

    def __init__(
        self,
        trie: Trie,
        allowed: np.ndarray | None = None,
        normalizer: Literal["full", "trie"] = "full",
        prior: Sequence[Tensor] | None = None,
        config: PretrainedConfig | None = None,
    ) -> None:
        _check_sids(config, trie)
        if prior is not None and normalizer != "trie":
            raise ValueError(f"normalizer is {normalizer!r}; a prior over a trie's edges needs 'trie'.")
        self.prior = prior
        if normalizer not in ("full", "trie"):
            raise ValueError(f"normalizer is {normalizer!r}; it must be 'full' or 'trie'.")
        self.num_levels, self._shown, self.normalizer = trie.num_levels, _Shown(trie, allowed), normalizer

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(R, 1 + t) int64 tokens so far, the start token first, and (R, V) scores -> (R, V) scores."""
        size = Vocabulary(self._shown.trie.level_sizes).size
        if scores.shape[1] < size:
            raise ValueError(
                f"the model has {scores.shape[1]} tokens, SIDs of the trie's level_sizes "
                f"{tuple(self._shown.trie.level_sizes)} {size}: give a trie of the SIDs that the model was "
                "trained on."
            )
        trie, masks = self._shown.on(scores.device, len(scores))
        node = torch.full((len(scores),), trie.root, device=scores.device)
        inside = torch.full(node.shape, trie.num_items > 0, device=scores.device)
        level = input_ids.shape[1] - 1
        for passed in range(min(level, self.num_levels) if trie.num_items else 0):
            node, found = trie.find(passed, node, input_ids[:, passed + 1] - trie.rows[passed].start)
            inside &= found
        allowed = torch.full_like(scores, -torch.inf)
        if level < self.num_levels and trie.num_items:
            rows = trie.rows[level]
            edge, closed = trie.edges(level, node[:, None], None)
            closed |= ~inside[:, None, None]
            code = trie.code(level, edge)[:, 0]
            if self.normalizer == "trie":
                known = scores[:, rows].gather(1, code)
                if self.prior is not None:
                    # Each user stands in as many rows as there are beams.
                    _check_prior(self.prior, len(scores), self._shown.trie, of_rows=True)
                    own = self.prior[level].repeat_interleave(len(scores) // len(self.prior[level]), 0)
                    known += own.gather(1, edge[:, 0].long())
                known.masked_fill_(closed[:, 0], -torch.inf)
                total = known.logsumexp(1, keepdim=True)
                known -= total.masked_fill(torch.isneginf(total), 0.0)
                # Behind a node's last edge it stands again, closed: the best of them is the one that counts.
                wide = torch.full_like(scores[:, rows], -torch.inf).scatter_reduce_(1, code, known, "amax")
                scores = scores.index_copy(1, torch.arange(rows.start, rows.stop, device=scores.device), wide)
            if masks is not None:
                closed |= ~masks.live(level, edge)
            open_ = torch.zeros((len(scores), rows.stop - rows.start), device=scores.device)
            open_.scatter_reduce_(1, code, (~closed[:, 0]).float(), "amax")
            allowed[:, rows] = torch.where(open_ > 0, scores[:, rows], -torch.inf)
        nothing = torch.isneginf(allowed).all(dim=1)
        allowed[:, PAD] = torch.where(nothing, scores[:, PAD], -torch.inf)
        return allowed
