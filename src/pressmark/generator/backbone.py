"""A local Hugging Face encoder-decoder as the generator: sid_tokens in its vocabulary, saved and loaded again.

A saved backbone is an ordinary Hugging Face folder: weights (or an adapter and the name of its base), the text
tokenizer with the added tokens, and in config.json what it was built for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from pressmark import files
from pressmark.generator import alignment, lora, prompts
from pressmark.generator.beam_search import Normalizer
from pressmark.generator.dropout import quicken_dropout
from pressmark.generator.new_rows import axes_for, drawn_rows, rows_of_codebooks
from pressmark.generator.prompts import CART, CONTENT, HISTORY, SPELLED, Prompts, Words
from pressmark.sids.table import SidTable

SCRATCH = "scratch"
PROMPT = "prompt"
"""The `history_input` of a backbone."""
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
TEXT_TOKENIZERS = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Config:
    """How a backbone is fitted to SIDs; read where `generator.backbone` names a folder.

    Attributes:
        tuning: "full" trains every weight; "lora" small matrices beside them and the new tokens' rows.
        lora: Its size.
        save: "merged" writes whole weights, "adapter" what LoRA learnt alone: the base must stay where it is.
        token_start: "codebooks" starts a sid_token's row from its codebook entry, in the scale of the rows that
            are there; "random" draws it in that scale.
        prompt: What the model reads beside the SIDs of a history.
        alignment: Products' texts to SIDs and back, mixed in.
    """

    tuning: Literal["full", "lora"] = "full"
    lora: lora.Config = field(default_factory=lora.Config)
    save: Literal["merged", "adapter"] = "merged"
    token_start: Literal["codebooks", "random"] = "codebooks"
    prompt: prompts.Config = field(default_factory=prompts.Config)
    alignment: alignment.Config = field(default_factory=alignment.Config)

    def __post_init__(self) -> None:
        if self.save == "adapter" and self.tuning != "lora":
            raise ValueError("generator.finetune.save is 'adapter'; only tuning 'lora' learns one.")


def sid_token_names(level_sizes: Sequence[int]) -> list[str]:
    """What sid_tokens are called in a text tokenizer, level after level.

    >>> sid_token_names((2, 1))
    ['<sid_0_0>', '<sid_0_1>', '<sid_1_0>']
    """
    return [f"<sid_{level}_{code}>" for level, size in enumerate(level_sizes) for code in range(size)]


def read_model(folder: Path) -> Any:
    """The model of a folder, float32, on the CPU.

    Raises:
        ValueError: If there is none, it is no encoder-decoder, has no safetensors or lacks weights.
    """
    config = _config_of(folder)
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"{folder}: no *.safetensors here; save the model with save_pretrained again.")
    try:
        model, loaded = AutoModelForSeq2SeqLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: not a model that can be loaded ({_first_line(error)}).") from error
    if loaded["missing_keys"]:
        # transformers draws them afresh and says so on the console.
        raise ValueError(
            f"{folder}: no weights for {sorted(loaded['missing_keys'])[0]}; the folder is not whole."
        )
    # Resizing would give a separate head the embedding's rows where the configuration calls them tied.
    model.config.tie_word_embeddings = lora.is_tied(model)
    return model


def _config_of(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"generator.backbone {folder}: no config.json here; name a local Hugging Face folder, or 'scratch'."
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder / 'config.json'}: not a model's ({_first_line(error)}).") from error
    if not config.is_encoder_decoder or type(config) not in AutoModelForSeq2SeqLM._model_mapping:
        raise ValueError(
            f"generator.backbone {folder}: {config.model_type} is no text encoder-decoder; take one such "
            "as T5, mT5 or BART."
        )
    return config


def read_text_tokenizer(folder: Path) -> Any:
    """The text tokenizer of a folder.

    Raises:
        ValueError: If there is none, or one without an end and a padding token.
    """
    if not any((folder / name).is_file() for name in TEXT_TOKENIZERS):
        raise ValueError(
            f"{folder}: no text tokenizer here (one of {', '.join(TEXT_TOKENIZERS)}); save it into this folder "
            "with save_pretrained."
        )
    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"{folder}: its text tokenizer cannot be read ({_first_line(error)}).") from error
    if found.eos_token_id is None or found.pad_token_id is None:
        raise ValueError(f"{folder}: its text tokenizer names no eos_token or no pad_token.")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def fingerprint_of(folder: Path) -> str:
    """Of a model's configuration and weights, by their bytes."""
    weights = sorted(folder.glob("*.safetensors"))
    return files.fingerprint([files.file_hash(one) for one in (folder / "config.json", *weights)])


@dataclass(frozen=True)
class BuiltFor:
    """What a backbone is made for, see `train.Config`."""

    table: SidTable
    history_length: int
    normalizer: Normalizer
    beam: int
    contexts: tuple[str, ...]


def build_backbone(
    folder: Path, config: Config, built: BuiltFor, codebooks: Sequence[np.ndarray]
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


def _describe(model: Any, config: Config, built: BuiltFor, words: Words) -> None:
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


def _check_length(found: Any, words: Words, prompt: prompts.Config, built: BuiltFor) -> None:
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


def save_backbone(folder: Path, model: Any, text_tokenizer: Any, config: Config, base: Path) -> None:
    """Writes weights or adapter, configuration and text tokenizer into a folder."""
    nn.Module.to(model, "cpu")
    if config.save == "adapter":
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's blank form
        inner = model.get_base_model()
        inner.config.base_folder = str(base.resolve())
        inner.config.base_fingerprint = fingerprint_of(base)
        inner.config.save_pretrained(folder)
        inner.generation_config.save_pretrained(folder)
    else:
        lora.merged(model).save_pretrained(folder)
    text_tokenizer.save_pretrained(folder)


def is_backbone(folder: Path) -> bool:
    """Whether a saved generator is a backbone and not our own T5."""
    path = folder / "config.json"
    return path.is_file() and files.read_json(path).get("history_input") == PROMPT


def load_backbone(folder: Path, table: SidTable) -> tuple[Any, Prompts, Any]:
    """A saved backbone for the SIDs of `table`.

    Returns:
        The model in evaluation mode, float32, on the CPU; its prompts, without titles yet; its text tokenizer.

    Raises:
        ValueError: If something is missing, of other codebooks, or an adapter's base is another one.
    """
    config, text_tokenizer = _config_of(folder), read_text_tokenizer(folder)
    check_codebooks(folder, config, table)
    words = words_of(text_tokenizer, table.level_sizes, config.contexts, str(folder))
    if words.first_sid != config.first_sid:
        raise ValueError(
            f"{folder}: its text tokenizer has sid_tokens from {words.first_sid} on, the model from "
            f"{config.first_sid}. Put the tokenizer.json back that was saved with it, or train again."
        )
    adapted = (folder / "adapter_config.json").is_file()
    model = _with_base(folder, config, len(text_tokenizer)) if adapted else read_model(folder)
    return model.eval(), Prompts(words, prompts.Config(**config.prompt)), text_tokenizer


def _with_base(folder: Path, saved: Any, num_tokens: int) -> Any:
    """The base of a saved adapter, its vocabulary grown to so many tokens, with the adapter merged into it."""
    base = Path(saved.base_folder)
    if not (base / "config.json").is_file():
        raise ValueError(
            f"{folder}: an adapter for {base}, which is not there. Put the base back, or save merged."
        )
    found = fingerprint_of(base)
    if found != saved.base_fingerprint:
        raise ValueError(
            f"{folder}: an adapter for another base: {base} has the fingerprint {found}, the adapter was "
            f"trained on {saved.base_fingerprint}. Put that base back, or train again."
        )
    model = read_model(base)
    size = max(num_tokens, model.get_input_embeddings().num_embeddings)
    model.resize_token_embeddings(size, mean_resizing=False)
    for name in BUILT_FOR:
        setattr(model.config, name, getattr(saved, name))
    model = lora.with_adapter(model, folder)
    model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model
