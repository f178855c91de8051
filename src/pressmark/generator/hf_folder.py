"""A local Hugging Face folder of an encoder-decoder: its configuration, weights and text tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from pressmark import files
from pressmark.generator import lora

TEXT_TOKENIZERS = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.json")


def read_model(folder: Path) -> Any:
    """The model of a folder, float32, on the CPU.

    Raises:
        ValueError: If there is none, it is no encoder-decoder, has no safetensors or lacks weights.
    """
    config = config_of(folder)
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


def config_of(folder: Path) -> Any:
    """The configuration of a folder's model.

    Raises:
        ValueError: If there is none, or it is that of no encoder-decoder.
    """
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
    present = [one for one in (folder / "config.json", *weights) if one.is_file()]
    return files.fingerprint([files.file_hash(one) for one in present])
