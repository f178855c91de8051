"""A local Hugging Face encoder-decoder as the generator: it is fitted to SIDs, as tokens of its vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from pressmark.generator import lora
from pressmark.generator.config import FinetuneConfig, Normalizer, PromptConfig
from pressmark.generator.dropout import quicken_dropout
from pressmark.generator.hf_folder import read_model, read_text_tokenizer
from pressmark.generator.model import PROMPT
from pressmark.generator.new_rows import axes_for, drawn_rows, rows_of_codebooks
from pressmark.generator.prompts import CART, CONTENT, HISTORY, SPELLED, Prompts, Words
from pressmark.sids.table import SidTable

BUILT_FOR = (
    "history_input",
    "history_length",
    "level_sizes",
    "codebook_fingerprint",
    "normalizer",
    "first_sid",
    "start_token",
    "contexts",
    "prompt",
)
"""What a saved backbone's config.json says of it beside what transformers wants to know."""


def sid_token_names(level_sizes: Sequence[int]) -> list[str]:
    """What sid_tokens are called in a text tokenizer, level after level.

    >>> sid_token_names((2, 1))
    ['<sid_0_0>', '<sid_0_1>', '<sid_1_0>']
    """
    return [f"<sid_{level}_{code}>" for level, size in enumerate(level_sizes) for code in range(size)]


@dataclass(frozen=True)
class BuiltFor:
    """What a backbone is made for, see `config.Config`."""

    table: SidTable
    history_length: int
    normalizer: Normalizer
    beam: int
    contexts: tuple[str, ...]


def build_backbone(
    folder: Path, config: FinetuneConfig, built: BuiltFor, codebooks: Sequence[np.ndarray]
) -> tuple[Any, Any, Words]:
    """A model that spells the SIDs of a table, from a folder; and its text tokenizer and words.

    A folder that spells SIDs of these codebooks already, such as yesterday's generator, goes on with its rows.
    Draws from torch's random numbers.

    Returns:
        The model in training mode (a `PeftModel` where LoRA is asked for), the text tokenizer, the words.

    Raises:
        ValueError: If the folder cannot be used, or spells SIDs of other codebooks.
    """
    model, text_tokenizer = read_model(folder), read_text_tokenizer(folder)
    names = sid_token_names(built.table.level_sizes)
    known_sids = names[0] in text_tokenizer.get_added_vocab()
    if known_sids:
        check_codebooks(folder, model.config, built.table)
    contexts = [f"<context_{number}>" for number in range(len(built.contexts))]
    num_known = len(text_tokenizer)
    text_tokenizer.add_tokens([*names, *contexts], special_tokens=True)
    words = words_of(text_tokenizer, built.table.level_sizes, built.contexts, str(folder))
    if not known_sids:
        rows = codebooks if config.token_start == "codebooks" else None
        _add_rows(model, num_known, len(text_tokenizer), len(names), rows)
    elif len(text_tokenizer) > model.get_input_embeddings().num_embeddings:
        _add_rows(model, num_known, len(text_tokenizer), 0, None)
    _describe(model, config, built, words)
    _check_length(model.config, words, config.prompt, built)
    quicken_dropout(model)
    if config.tuning == "lora":
        first = words.first_sid
        model = lora.with_lora(model, config.lora, list(range(first, first + len(names) + len(contexts))))
    return model.train(), text_tokenizer, words


@torch.no_grad()
def _add_rows(
    model: Any, num_known: int, num_all: int, num_sids: int, codebooks: Sequence[np.ndarray] | None
) -> None:
    """Gives a vocabulary rows for new tokens, in the embedding and in a head of its own."""
    size = model.get_input_embeddings().num_embeddings
    if num_all > size:
        model.resize_token_embeddings(num_all, mean_resizing=False)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    axes = None if codebooks is None else axes_for(codebooks, embedding.shape[1])
    for weight in (embedding,) if head is embedding else (embedding, head):
        known = weight[:num_known].clone()
        if codebooks is not None and axes is not None:
            weight[num_known : num_known + num_sids] = rows_of_codebooks(known, codebooks, axes)
            drawn = num_known + num_sids
        else:
            drawn = num_known
        weight[drawn:num_all] = drawn_rows(known, num_all - drawn)


def words_of(text_tokenizer: Any, level_sizes: Sequence[int], contexts: Sequence[str], where: str) -> Words:
    """The numbers that prompts are made of.

    Raises:
        ValueError: If the text tokenizer lacks a sid_token or a context's, or they do not follow each other.
    """
    names = [*sid_token_names(level_sizes), *(f"<context_{number}>" for number in range(len(contexts)))]
    ids = text_tokenizer.convert_tokens_to_ids(names)
    missing = [name for name, one in zip(names, ids, strict=True) if one in (None, text_tokenizer.unk_token_id)]
    num_sids = sum(level_sizes)
    runs = ids[:num_sids] == list(range(ids[0] or 0, (ids[0] or 0) + num_sids))
    if missing or not runs:
        raise ValueError(
            f"{where}: its text tokenizer lacks {missing[0] if missing else 'sid_tokens in order'}; it is not "
            "the one that was saved with this generator. Put its tokenizer.json back, or train again."
        )
    phrases = {
        name: text_tokenizer(name, add_special_tokens=False)["input_ids"]
        for name in (HISTORY, CART, CONTENT, SPELLED)
    }
    first_context = ids[num_sids] if contexts else 0
    return Words(
        ids[0],
        first_context,
        tuple(contexts),
        text_tokenizer.pad_token_id,
        text_tokenizer.eos_token_id,
        phrases,
    )


def _describe(model: Any, config: FinetuneConfig, built: BuiltFor, words: Words) -> None:
    """Puts into the configuration what the model was built for, and overrides how it would generate."""
    table, start = built.table, _start_token(model)
    values = (
        PROMPT,
        built.history_length,
        list(table.level_sizes),
        table.codebook_fingerprint,
        built.normalizer,
        words.first_sid,
        start,
        list(words.contexts),
        dict(vars(config.prompt)),
    )
    for name, value in zip(BUILT_FOR, values, strict=True):
        setattr(model.config, name, value)
    # A pretrained model's own may sample, force a first or last token, or stop early.
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=built.beam,
        length_penalty=0.0 if built.beam > 1 else 1.0,
        max_new_tokens=table.num_levels,
        pad_token_id=words.pad,
        eos_token_id=words.eos,
        decoder_start_token_id=start,
    )


def _start_token(model: Any) -> int:
    """What the decoder starts from: as the model says it, else the beginning of a text, else padding."""
    config, generation = model.config, model.generation_config
    found = [
        getattr(config, "decoder_start_token_id", None),
        getattr(generation, "decoder_start_token_id", None),
        getattr(config, "bos_token_id", None),
        config.pad_token_id,
    ]
    return int(next(one for one in found if one is not None))


def _check_length(found: Any, words: Words, prompt: PromptConfig, built: BuiltFor) -> None:
    most = getattr(found, "max_position_embeddings", None)
    longest = Prompts(words, prompt).longest(built.history_length, built.table.num_levels)
    if most is not None and longest > most:
        raise ValueError(
            f"generator.history_length is {built.history_length}: a prompt then has up to {longest} tokens, "
            f"and this {found.model_type} has {most} positions. Lower it, or finetune.prompt.titled_items."
        )


def check_codebooks(folder: Path, config: Any, table: SidTable) -> None:
    """Raises ValueError unless a saved model spells the SIDs of `table`."""
    pinned = getattr(config, "codebook_fingerprint", None)
    if pinned != table.codebook_fingerprint or tuple(config.level_sizes) != table.level_sizes:
        raise ValueError(
            f"{folder}: the generator was trained on codebooks {pinned}, the SID table is of codebooks "
            f"{table.codebook_fingerprint}. Train the generator again, or use the tokenizer it was built on."
        )
