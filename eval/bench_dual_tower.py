"""What encoding each distinct text of a batch once saves, and what memory costs in time.

    python eval/bench_dual_tower.py --config configs/grocery.yaml [--record true]

`duplicates`: a training step of a text encoder on B pairs (the last product of a history, the next one): ours,
which reads each distinct text once, against the usual loop of sentence-transformers with
`MultipleNegativesRankingLoss`, which reads 2 B texts. The same encoder, pairs, optimizer, float32; texts are
cut into tokens beforehand for both. `factor` is 2 B over the distinct texts; large ones come from small
catalogs: pairs among the `--items` products that sell most. `speedup` is that of reading each text once, all
in one go as the other loop does; `with_lengths` has texts of like length read together too, as training does.
Steps take turns; figures are medians.

`memory`: a step on one batch with all activations held, with some texts at a time (gradient caching), with one
layer at a time (activation checkpointing), in bf16 autocast; the most memory that is held beyond the weights.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerFast

from pressmark import experiment, stages
from pressmark.catalog.embeddings import item_texts
from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded, truth
from pressmark.dual_tower import text
from pressmark.dual_tower.config import TextConfig
from pressmark.dual_tower.loss import gather_candidates, info_nce
from pressmark.dual_tower.text import PAD, UNKNOWN, TextTower
from pressmark.dual_tower.towers import DualTowerConfig
from pressmark.evaluation.memory import peak_mib
from pressmark.evaluation.record import record
from pressmark.interactions.split_files import read_split

TEMPERATURE = 0.05
ENCODER = TextConfig("scratch", length=100, num_layers=2, width=128, num_heads=4, dropout=0.0)
"""Small enough for two cores: the ratio is one of texts, not of sizes. Without dropout both loops are alike."""
Row = dict[str, Any]


def pairs_of(run: Path, num_items: int) -> np.ndarray:
    """(n, 2) int64 products bought one after the other, both among those that sell most; 0 keeps all."""
    split = read_split(run / "data", read_catalog(run / "data" / "items.parquet"))
    values, row = split.train.values, split.train.row_of_value()
    pairs = np.stack([values[:-1], values[1:]], 1)[row[:-1] == row[1:]]
    if num_items:
        best = np.argsort(-np.bincount(values), kind="stable")[:num_items]
        pairs = pairs[np.isin(pairs, best).all(axis=1)]
    return np.random.default_rng(0).permutation(pairs[pairs[:, 0] != pairs[:, 1]])


def tower_of(config: TextConfig, tokenizer: Tokenizer) -> TextTower:
    """An encoder with random weights."""
    torch.manual_seed(0)
    shape = DualTowerConfig(
        encoder=text.encoder_config(config, tokenizer),
        vector_dim=config.length,
        dim=config.width,
        identity_dropout=1.0,
        rows_at_once=config.rows_at_once,
        checkpointing=config.checkpointing,
    )
    return TextTower(shape).train()


def ours(
    tower: TextTower, tokens: torch.Tensor, pairs: np.ndarray, by_length: bool = True
) -> Callable[[], float]:
    """A step on pairs of items whose texts are `tokens`, of like length together or at once; gives its loss."""
    optimizer = torch.optim.AdamW(tower.parameters(), 1e-4)
    distinct, rows = np.unique(pairs, return_inverse=True)
    left, right = torch.from_numpy(rows.reshape(-1, 2)).unbind(1)
    index, flat = torch.from_numpy(pairs[:, 1]), torch.zeros(len(tokens))

    def step() -> float:
        tower.groups = text.GROUPS if by_length else 1
        found = tower(tokens[distinct])
        candidates = gather_candidates(found[right], index)
        loss = info_nce(found[left], candidates, flat, TEMPERATURE, 0.0).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def theirs(
    tower: TextTower, tokenizer: Tokenizer, folder: Path, texts: list[str], pairs: np.ndarray
) -> Callable[[], float]:
    """The same step by sentence-transformers, over a copy of the encoder and its projection."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    tower.encoder.save_pretrained(folder)
    cut = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)
    cut.save_pretrained(folder)
    width = tower.projection.in_features
    dense = modules.Dense(width, tower.projection.out_features, activation_function=nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(tower.projection.weight)
        dense.linear.bias.copy_(tower.projection.bias)
    read = modules.Transformer(str(folder), max_seq_length=ENCODER.length)
    model = SentenceTransformer(modules=[read, modules.Pooling(width), dense], device="cpu").train()
    ranking = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    sides = [model.preprocess([texts[item] for item in side]) for side in pairs.T]

    def step() -> float:
        loss = ranking([dict(side) for side in sides], torch.empty(0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def duplicates(texts: list[str], tokenizer: Tokenizer, pairs: np.ndarray, rounds: int) -> Row:
    """Both loops on the same pairs, in turns."""
    tower = tower_of(ENCODER, tokenizer)
    tokens = torch.from_numpy(text.tokens_of(tokenizer, texts, ENCODER.length))
    with tempfile.TemporaryDirectory() as folder:
        plain = theirs(tower, tokenizer, Path(folder), texts, pairs)
        steps = {
            "once": ours(tower, tokens, pairs, by_length=False),
            "with_lengths": ours(tower, tokens, pairs),
            "plain": plain,
        }
    for step in steps.values():
        step()
    times = [{name: seconds(step) for name, step in steps.items()} for _ in range(rounds)]
    speedup, both = (
        float(np.median([one["plain"] / one[name] for one in times])) for name in ("once", "with_lengths")
    )
    factor = pairs.size / len(np.unique(pairs))
    return {
        "what": "duplicates",
        "batch": len(pairs),
        "factor": factor,
        "speedup": speedup,
        "share_of_factor": speedup / factor,
        "with_lengths": both,
        **{f"seconds_{name}": float(np.median([one[name] for one in times])) for name in steps},
        "rounds": rounds,
    }


def memory(texts: list[str], tokenizer: Tokenizer, pairs: np.ndarray, rounds: int) -> Iterator[Row]:
    """Ways to hold less, on one batch."""
    ways = {
        "all held": ENCODER,
        "64 texts at a time": replace(ENCODER, rows_at_once=64),
        "one layer at a time": replace(ENCODER, checkpointing=True),
        "both": replace(ENCODER, rows_at_once=64, checkpointing=True),
        "bf16": ENCODER,
    }
    tokens = torch.from_numpy(text.tokens_of(tokenizer, texts, ENCODER.length))
    for name, config in ways.items():
        step = ours(tower_of(config, tokenizer), tokens, pairs)

        def call(step: Callable[[], float] = step, bf16: bool = name == "bf16") -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                step()

        call()
        found = float(np.median([seconds(call) for _ in range(rounds)]))
        yield {
            "what": "memory",
            "way": name,
            "batch": len(pairs),
            "texts": len(np.unique(pairs)),
            "seconds": found,
            "peak_mib": peak_mib(call, "cpu"),
            "rounds": rounds,
        }


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="*", default=[256, 1024], help="pairs a step")
    parser.add_argument("--items", type=int, nargs="*", default=[0, 500], help="best sellers; 0 is all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=truth, default=False, help="true: write eval/results")
    options, rest = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    own, _ = experiment.parse(rest, prog="bench_dual_tower.py")
    stages.prepare(own)
    texts = item_texts(read_catalog(own.run / "data" / "items.parquet"))
    tokenizer = text.tokenizer_of(ENCODER, texts)
    rows: list[Row] = []
    for num_items in options.items:
        pairs = pairs_of(own.run, num_items)
        for batch in options.batches:
            row = duplicates(texts, tokenizer, pairs[:batch], options.rounds)
            rows.append({"items": num_items or len(texts), **row})
            print(rows[-1], flush=True)
    for row in memory(texts, tokenizer, pairs_of(own.run, 0)[: max(options.batches)], options.rounds):
        rows.append(row)
        print(row, flush=True)
    if options.record:
        command = shlex.join(["python", *sys.argv])
        settings = {**vars(options), "encoder": asdict(ENCODER)}
        record("dual_tower_bench", own.name, rows, command, settings, [own.seed])


if __name__ == "__main__":
    guarded(main)
