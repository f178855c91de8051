"""A backbone that was fitted to SIDs, saved and loaded again.

It is an ordinary Hugging Face folder: weights (or an adapter and the name of its base), the text tokenizer with
the added tokens, and in config.json what it was built for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import GenerationConfig

from pressmark import files
from pressmark.generator import lora
from pressmark.generator.backbone import BUILT_FOR, check_codebooks, words_of
from pressmark.generator.config import FinetuneConfig, PromptConfig
from pressmark.generator.hf_folder import config_of, fingerprint_of, read_model, read_text_tokenizer
from pressmark.generator.model import PROMPT
from pressmark.generator.prompts import Prompts
from pressmark.sids.table import SidTable


def save_backbone(folder: Path, model: Any, text_tokenizer: Any, config: FinetuneConfig, base: Path) -> None:
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
    config, text_tokenizer = config_of(folder), read_text_tokenizer(folder)
    check_codebooks(folder, config, table)
    words = words_of(text_tokenizer, table.level_sizes, config.contexts, str(folder))
    if words.first_sid != config.first_sid:
        raise ValueError(
            f"{folder}: its text tokenizer has sid_tokens from {words.first_sid} on, the model from "
            f"{config.first_sid}. Put the tokenizer.json back that was saved with it, or train again."
        )
    adapted = (folder / "adapter_config.json").is_file()
    model = _with_base(folder, config, len(text_tokenizer)) if adapted else read_model(folder)
    return model.eval(), Prompts(words, PromptConfig(**config.prompt)), text_tokenizer


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
