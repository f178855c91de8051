"""A small encoder-decoder pretrained on catalogs' texts: what does pretraining buy?

Its text tokenizer is trained on the same texts. Spans of a text are taken out and told by the decoder.
Writes two Hugging Face folders: `pretrained`, and `fresh` with the weights that it started from.

    python eval/pretrain_backbone.py --catalog data/grocery --catalog data/amazon2014-beauty --out runs/small-t5

Source: Raffel et al. 2020, section 3.1.4 (spans of 3 tokens, 15 % of a text).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from pressmark.catalog.embeddings import item_texts
from pressmark.catalog.items import Columns, load_items
from pressmark.files import fingerprint, replacing, write_json
from pressmark.load import quiet_libraries
from pressmark.training import loop
from pressmark.training.config import TrainingConfig

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
NUM_SENTINELS = 20
SPAN, MASKED = 3, 0.15


def train_text_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte pairs within words, with T5's special tokens and its sentinels."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    sentinels = [f"<extra_id_{number}>" for number in range(NUM_SENTINELS)]
    found = Tokenizer(models.BPE(unk_token=UNKNOWN))
    found.normalizer = normalizers.BertNormalizer()
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [PAD, EOS, UNKNOWN, *sentinels]
    found.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )
    found.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, found.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, extra_special_tokens=sentinels
    )


def corrupted(ids: np.ndarray, sentinel: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """A text with spans taken out, and those spans: each behind the sentinel that stands for it.

    Args:
        ids: (n,) tokens, without EOS.
        sentinel: The first sentinel's token.
        rng: Draws the spans.
    """
    num_spans = min(NUM_SENTINELS, max(1, round(MASKED * len(ids) / SPAN)))
    taken = np.zeros(len(ids), bool)
    for start in rng.integers(0, len(ids), num_spans):
        taken[start : start + SPAN] = True
    left: list[int] = []
    told: list[int] = []
    number = 0
    for place, token in enumerate(ids):
        if taken[place] and (place == 0 or not taken[place - 1]):
            left.append(sentinel + number)
            told.append(sentinel + number)
            number += 1
        (told if taken[place] else left).append(int(token))
    return left, told


class SpanTask:
    """Span corruption as the training loop asks for it."""

    name = "pretraining"
    metric = ""

    def __init__(self, texts: list[np.ndarray], sentinel: int, eos: int, batch_size: int, seed: int) -> None:
        self.texts, self.sentinel, self.eos = texts, sentinel, eos
        self.batch_size, self.seed = batch_size, seed
        self._length = np.array([len(one) for one in texts])

    def plan(self, epoch: int) -> list[np.ndarray]:
        """Texts of like length together."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.texts))
        order = order[np.argsort(self._length[order], kind="stable")]
        batches = np.array_split(order, -(-len(order) // self.batch_size))
        return [batches[number] for number in rng.permutation(len(batches))]

    def collate(self, samples: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """(n, S) and (n, T) int64, padded with 0."""
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        pairs = [corrupted(self.texts[one], self.sentinel, rng) for one in samples]
        given, told = (
            nn.utils.rnn.pad_sequence([torch.tensor([*one, self.eos]) for one in side], batch_first=True)
            for side in zip(*pairs, strict=True)
        )
        return given.to(device), told.to(device)

    def weight(self, batch: tuple[Tensor, Tensor]) -> float:
        """Tokens to tell."""
        return float((batch[1] != 0).sum())

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed over the tokens."""
        given, told = batch
        logits = model(
            input_ids=given,
            attention_mask=(given != 0).long(),
            decoder_input_ids=F.pad(told[:, :-1], (1, 0)),
            use_cache=False,
        ).logits
        return F.cross_entropy(logits.flatten(0, 1), told.flatten(), ignore_index=0, reduction="sum"), {}

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Nothing is chosen."""
        return {}


def main(argv: Sequence[str] | None = None) -> None:
    """Trains text tokenizer and model, and writes both folders."""
    parser = argparse.ArgumentParser(description="A small encoder-decoder pretrained on catalogs' texts.")
    parser.add_argument("--catalog", type=Path, action="append", required=True, help="folder with items")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--vocab-size", type=int, default=4000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--longest", type=int, default=64, help="tokens of a text that are read")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    quiet_libraries()
    columns = Columns(text=("description", "flavour", "tags"))
    texts = [text for one in options.catalog for text in item_texts(load_items(one, columns)[0]) if text]
    text_tokenizer = train_text_tokenizer(texts, options.vocab_size)
    spelled = text_tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids = [np.array(one[: options.longest]) for one in spelled if len(one) > SPAN]
    torch.manual_seed(options.seed)
    config = T5Config(
        vocab_size=len(text_tokenizer),
        d_model=options.width,
        d_kv=32,
        num_heads=options.width // 32,
        d_ff=4 * options.width,
        num_layers=options.num_layers,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.1,
    )
    config.decoder_start_token_id = 0
    model = T5ForConditionalGeneration(config)
    _save(options.out / "fresh", model, text_tokenizer, {})
    training = TrainingConfig(
        learning_rate=2e-3, warmup_steps=100, batch_size=128, num_epochs=1000, max_seconds=options.seconds,
        schedule="constant", log_with="",
    )  # fmt: skip
    sentinel, eos = np.asarray(text_tokenizer.convert_tokens_to_ids(["<extra_id_0>", EOS])).tolist()
    task = SpanTask(ids, sentinel, eos, 128, options.seed)
    made_of = fingerprint(vars(options) | {"out": ""}, texts)
    record = loop.fit(model, task, training, options.out / "training", options.seed, made_of)
    losses = record["losses"]
    numbers = {
        "texts": len(ids),
        "tokens": int(sum(map(len, ids))),
        "epochs": record["epoch"],
        "steps": record["step"],
        "seconds": record["seconds"],
        "nats_a_token_first_50_steps": float(np.mean(losses[:50])),
        "nats_a_token_last_50_steps": float(np.mean(losses[-50:])),
    }
    _save(options.out / "pretrained", model, text_tokenizer, numbers)
    print(numbers)


def _save(
    folder: Path, model: T5ForConditionalGeneration, text_tokenizer: PreTrainedTokenizerFast, numbers: dict
) -> None:
    with replacing(folder) as partial:
        model.save_pretrained(partial)
        text_tokenizer.save_pretrained(partial)
        write_json(partial / "pretraining.json", numbers)


if __name__ == "__main__":
    main()
