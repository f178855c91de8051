"""Small encoder-decoders of several families with random weights, as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS = [
    "history",
    "cart",
    "product",
    "title",
    "of",
    ":",
    "oat",
    "milk",
    "bread",
    "red",
    "green",
    "tea",
    "item",
]
FAMILIES = ("t5", "flan", "mt5", "bart", "mbart", "pegasus")
SPARE = 4
"""Rows of T5's embedding behind its text tokenizer's tokens, as the published ones have them."""


def text_tokenizer(pad: str = "<pad>") -> PreTrainedTokenizerFast:
    """A word a token."""
    special = [pad, "</s>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    found = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=found, pad_token=pad, eos_token="</s>", unk_token="<unk>")


def random_backbone(family: str, vocab_size: int) -> Any:
    """A model of a family whose scores are far from flat."""
    t5 = {
        "vocab_size": vocab_size + SPARE,
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 4,
    }
    bart: dict[str, Any] = {
        "vocab_size": vocab_size, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24, "max_position_embeddings": 96,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
        "decoder_start_token_id": 1, "forced_eos_token_id": 1, "scale_embedding": True, "init_std": 0.3,
    }  # fmt: skip
    model: Any = {
        "t5": lambda: T5ForConditionalGeneration(T5Config(**t5)),
        "flan": lambda: T5ForConditionalGeneration(
            T5Config(**t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        ),
        "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**t5)),
        "bart": lambda: BartForConditionalGeneration(BartConfig(**bart)),
        "mbart": lambda: MBartForConditionalGeneration(MBartConfig(**bart)),
        "pegasus": lambda: PegasusForConditionalGeneration(PegasusConfig(**bart)),
    }[family]()
    if family in ("flan", "mt5"):
        # Published ones have a head of their own, whatever transformers 5 makes of a fresh configuration.
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight) * 0.5)
        model.config.tie_word_embeddings = False
    if family.endswith("t5") or family == "flan":
        for norm in (model.encoder.final_layer_norm, model.decoder.final_layer_norm):
            norm.weight.data.uniform_(1.0, 3.0)
    # What a bundled configuration may ask for and a search must not heed.
    model.generation_config.do_sample = True
    return model


def save_folder(folder: Path, family: str, seed: int = 0) -> Path:
    """Writes the folder of a family."""
    torch.manual_seed(seed)
    words = text_tokenizer()
    model = random_backbone(family, len(words))
    model.generation_config.do_sample = family in ("t5", "bart")
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
