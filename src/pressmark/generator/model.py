"""The generator: a T5 from scratch over sid_tokens, and how a history enters it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from pressmark.catalog.lexicon import Lexicon
from pressmark.files import read_tensors, write_tensors
from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.config import HistoryInput, ModelConfig, Normalizer
from pressmark.sids.table import SidTable
from pressmark.sids.vocabulary import EOS, PAD, Vocabulary

ITEMS = "items.safetensors"
"""Beside a generator's weights: what it knows of the items it was trained on, see `ItemFacts`."""

FORMAT = 2
"""Goes up when saved weights come to mean something else: in 2 the item head's scores are cosines."""


PROMPT = "prompt"
"""The `history_input` that a saved backbone has in place of those."""


def build_model(
    config: ModelConfig,
    table: SidTable,
    history_length: int,
    beam: int = 50,
    vectors: np.ndarray | None = None,
    lexicon: Lexicon | None = None,
) -> T5ForConditionalGeneration:
    """A T5 with fresh weights for the SIDs of `table`.

    One matrix serves as encoder input, decoder input and output head. transformers 5 ties them whatever the
    configuration says, and breaks all three apart on loading if forced; tied also means the original T5's
    output scale d_model ** -0.5. What the model was built for is kept in its config.json.

    Args:
        config: Size.
        table: SIDs that it will spell.
        history_length: Items of history that it reads, at most.
        beam: Beams that it recommends with unless told otherwise.
        vectors: (n, vector_dim) float32 content vectors of the items that may be fitted to; None is none, and
            the model then reads none.
        lexicon: Of the words of their texts; None is none.

    Returns:
        The model, in training mode; a `CausalT5` where the history's input is "causal". It spells exactly L
        sid_tokens: labels carry no EOS, since every SID is as long as the others.

    Source: TIGER (Rajput et al. 2023), section 4.1 for the size.
    """
    vocabulary = Vocabulary(table.level_sizes)
    reads = vectors is not None and reads_content(config)
    num_words = len(lexicon.words) if lexicon is not None and reads else 0
    built_for: dict[str, Any] = {
        "format": FORMAT,
        "decoder_start_token_id": PAD,
        "level_sizes": list(table.level_sizes),
        "codebook_fingerprint": table.codebook_fingerprint,
        "history_length": history_length,
        "history_input": config.history_input,
        "guided": config.guided and config.history_input == "causal" and config.normalizer == "trie",
        "normalizer": config.normalizer,
        "popularity_prior": config.popularity_prior,
        "popularity_discount": 0.0,
        "vector_dim": vectors.shape[1] if vectors is not None and reads else 0,
        "num_identities": len(table) if reads and config.identity_dropout < 1 else 0,
        "identity_dropout": config.identity_dropout,
        "words": config.words if num_words else 0,
        "num_words": num_words,
        "word_dropout": config.word_dropout,
        "word_rate": config.word_rate,
    }
    t5 = T5Config(
        # T5's cross-attention knows no positions: without recency tokens a decoder cannot tell the last item.
        vocab_size=vocabulary.size + (history_length if config.history_input == "items" else 0),
        d_model=config.d_model,
        d_kv=config.d_kv,
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers or config.num_layers,
        num_heads=config.num_heads,
        dropout_rate=config.dropout,
        feed_forward_proj=config.feed_forward,
        pad_token_id=PAD,
        eos_token_id=EOS,
        **built_for,
    )
    model = (CausalT5 if config.history_input == "causal" else T5ForConditionalGeneration)(t5)
    if isinstance(model, CausalT5) and t5.vector_dim:
        assert vectors is not None
        model.item_head.start_from(vectors)
        if model.item_head.words is not None and lexicon is not None:
            model.item_head.words.start_from(lexicon.rarity)
    # For people who stay inside `generate`: beam search that sums log-probabilities and never samples.
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=beam,
        # Without beams there is nothing to normalise, and transformers refuses to save the setting.
        length_penalty=0.0 if beam > 1 else 1.0,
        max_new_tokens=table.num_levels,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    return model.train()


def reads_content(config: ModelConfig) -> bool:
    """Whether a model of this configuration wants content vectors."""
    return config.content and config.history_input == "causal"


@torch.no_grad()
def start_from_codebooks(model: T5ForConditionalGeneration, codebooks: Sequence[np.ndarray]) -> None:
    """Sets every sid_token's vector to its codebook entry, centred and scaled to unit variance a level.

    Entries wider than d_model are projected to their common principal axes; where they are narrower, the rest
    of a vector stays random, and so do the tokens of a level whose entries are all alike (a suffix level).

    Args:
        model: Fresh from `build_model`.
        codebooks: L arrays (K, d) float32, the effective codebooks.
    """
    weight = model.shared.weight
    centred = [torch.from_numpy(book - book.mean(axis=0)).to(weight) for book in codebooks]
    if centred[0].shape[1] > weight.shape[1]:
        axes = torch.linalg.svd(torch.cat(centred), full_matrices=False).Vh[: weight.shape[1]]
        centred = [book @ axes.T for book in centred]
    vocabulary = Vocabulary(tuple(len(book) for book in codebooks))
    for level, book in enumerate(centred):
        std = book.std(unbiased=False)
        if std > 0:
            first = vocabulary.offset(level)
            weight[first : first + len(book), : book.shape[1]] = book / std


def load_model(folder: Path, table: SidTable) -> T5ForConditionalGeneration:
    """Loads a saved generator and checks that it spells the SIDs of `table`.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        ValueError: If the folder holds no generator, or one of other codebooks.
    """
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder}: no generator here. Run train_generator first.")
    config = T5Config.from_pretrained(folder, local_files_only=True)
    if getattr(config, "history_input", None) == PROMPT:
        raise ValueError(f"{folder}: a backbone's, not a generator from scratch; see saved_backbone.")
    if getattr(config, "history_input", None) == "causal" and getattr(config, "format", 1) != FORMAT:
        raise ValueError(f"{folder}: another version of Pressmark saved it. Train the generator again.")
    kind = CausalT5 if getattr(config, "history_input", None) == "causal" else T5ForConditionalGeneration
    model, loaded = cast(
        "tuple[T5ForConditionalGeneration, dict[str, Any]]",
        kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True, output_loading_info=True),
    )
    if loaded["missing_keys"]:
        # transformers draws them afresh and says so on the console.
        raise ValueError(
            f"{folder}: the generator lacks {sorted(loaded['missing_keys'])[0]}; another version of Pressmark "
            "saved it. Train the generator again."
        )
    pinned = getattr(model.config, "codebook_fingerprint", None)
    if pinned != table.codebook_fingerprint:
        raise ValueError(
            f"{folder}: the generator was trained on codebooks {pinned}, the SID table is of codebooks "
            f"{table.codebook_fingerprint}. Train the generator again, or use the tokenizer it was built on."
        )
    if tuple(model.config.level_sizes) != table.level_sizes:
        raise ValueError(
            f"{folder}: the generator has level_sizes {tuple(model.config.level_sizes)}, the SID table "
            f"{table.level_sizes}. Train the generator again."
        )
    return model.eval()


@dataclass(frozen=True)
class ItemFacts:
    """What a generator knows of N items beside their SIDs.

    Attributes:
        content: (N, D + W) float32 from `ItemHead.content`; None for a model that reads none.
        log_count: (N,) float32, log of one more than an item's training interactions; where there are none the
            mean of the others, since what nobody could buy yet is not known to sell badly.
    """

    content: Tensor | None
    log_count: Tensor

    def __len__(self) -> int:
        return len(self.log_count)

    @classmethod
    def of(cls, content: Tensor | None, count: np.ndarray) -> ItemFacts:
        """Facts of N items bought (N,) int64 times."""
        log_count = np.log1p(count)
        typical = log_count[count > 0].mean() if (count > 0).any() else 0.0
        return cls(content, torch.from_numpy(np.where(count > 0, log_count, typical)).float())

    def then(self, content: Tensor | None, num: int) -> ItemFacts:
        """These items, and `num` new ones that nobody has bought."""
        both = None if self.content is None or content is None else torch.cat([self.content, content])
        return ItemFacts(both, F.pad(self.log_count, (0, num), value=self.typical))

    @property
    def typical(self) -> float:
        """The mean of `log_count`: that of the items bought, since the others have it too."""
        return float(self.log_count.mean()) if len(self) else 0.0

    def save(self, folder: Path) -> None:
        """Writes them beside the weights."""
        content = {} if self.content is None else {"content": self.content}
        write_tensors(folder / ITEMS, {"log_count": self.log_count, **content})


def load_lexicon(folder: Path, model: T5ForConditionalGeneration) -> Lexicon | None:
    """The words that a saved generator reads; None where it reads none.

    Raises:
        ValueError: If they are missing, or others.
    """
    num_words = getattr(model.config, "num_words", 0)
    return Lexicon.load(folder, num_words) if num_words else None


def load_facts(folder: Path) -> ItemFacts:
    """The facts of a saved generator's items.

    Raises:
        ValueError: If they are missing.
    """
    path = folder / ITEMS
    if not path.is_file():
        raise ValueError(f"{path} is missing, which the generator reads. Train the generator again.")
    tensors = read_tensors(path)
    return ItemFacts(tensors.get("content"), tensors["log_count"])


def item_tokens(table: SidTable, device: torch.device | str = "cpu") -> Tensor:
    """(N + 1, L) int64 sid_tokens by item_index; the last row is padding, so index -1 means "no item"."""
    tokens = torch.from_numpy(Vocabulary(table.level_sizes).sid_tokens(table.sids))
    return F.pad(tokens, (0, 0, 0, 1), value=PAD).to(device)


def history_tokens(
    tokens: Tensor, items: Tensor, lengths: Tensor, history_input: HistoryInput, first_recency: int
) -> tuple[Tensor, Tensor]:
    """Spells histories for the encoder: items oldest first, then EOS, then padding.

    A causal encoder reads EOS before the items instead: it stands for the empty history.

    Args:
        tokens: (N + 1, L) from `item_tokens`.
        items: (B, W) int64 item_index, padded with -1 on the right.
        lengths: (B,) int64 items of each history, 0 to W.
        history_input: How an item enters.
        first_recency: The token of "newest item", behind the vocabulary's own; the one before it has the
            next token, and so on. Used for "items" alone.

    Returns:
        input_ids: (B, W * L + 1) int64 for "tokens"; (B, W + 1, L + 1) for "items"; (B, W + 1, L) for "causal".
        attention_mask: (B, S) int64, 1 for items and EOS. Never empty: EOS is always there.
    """
    num_rows, width = items.shape
    num_levels = tokens.shape[1]
    rows = torch.arange(num_rows, device=items.device)
    spelled = tokens[items]
    if history_input == "tokens":
        input_ids = F.pad(spelled.reshape(num_rows, width * num_levels), (0, 1), value=PAD)
        lengths = lengths * num_levels
        input_ids[rows, lengths] = EOS
    elif history_input == "causal":
        input_ids = F.pad(spelled, (0, 0, 1, 0), value=PAD)
        input_ids[:, 0, 0] = EOS
    else:
        recency = lengths[:, None] - 1 - torch.arange(width, device=items.device)
        recency = torch.where(recency >= 0, first_recency + recency, PAD)
        input_ids = F.pad(torch.cat([spelled, recency[..., None]], dim=2), (0, 0, 0, 1), value=PAD)
        input_ids[rows, lengths, 0] = EOS
    column = torch.arange(input_ids.shape[1], device=items.device)
    return input_ids, (column <= lengths[:, None]).long()


def embed(weight: Tensor, input_ids: Tensor) -> Tensor:
    """Vectors of encoder inputs.

    Args:
        weight: (V, D) token vectors.
        input_ids: (B, S), or (B, S, L) whose vectors are summed over L, padding left out.

    Returns:
        (B, S, D).
    """
    if input_ids.ndim == 2:
        return F.embedding(input_ids, weight)
    summed = F.embedding_bag(input_ids.flatten(0, 1), weight, mode="sum", padding_idx=PAD)
    return summed.view(*input_ids.shape[:2], -1)


def normalizer_of(model: T5ForConditionalGeneration) -> Normalizer:
    """What the model was trained by; "full" for one that does not say."""
    return getattr(model.config, "normalizer", "full")


def encoder_arguments(
    model: T5ForConditionalGeneration, input_ids: Tensor, vectors: Tensor | None = None
) -> dict[str, Any]:
    """What a model takes for these inputs, in forward and in generate.

    Args:
        model: Any generator.
        input_ids: From `history_tokens`.
        vectors: (B, S, D) of the items from `ItemHead.items`, for a model that reads them; zeros where there is
            none.
    """
    if input_ids.ndim == 2:
        return {"input_ids": input_ids}
    embedded = embed(model.shared.weight, input_ids)
    if isinstance(model, CausalT5) and model.item_head.read is not None:
        if vectors is None:
            raise ValueError("this generator reads its items' vectors: give those of the history.")
        embedded = embedded + model.item_head.read(vectors)
    return {"inputs_embeds": embedded}
