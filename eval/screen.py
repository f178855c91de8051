"""Finished runs side by side on validation: for screening settings before a full budget, never for reporting.

    python eval/screen.py --runs runs/a runs/b ... [--cases 4000] [--record true]

Of every run the last validation of its generator's training (beam search, item-level), and the mean of
`-log p` of a target's whole SID given the history, in nats, on the same validation cases for all; the
difference from the first run comes with its 95 % interval over cases. The runs must share their split.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded, truth
from pressmark.evaluation.record import record
from pressmark.files import read_json
from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.config import Config, ModelConfig
from pressmark.generator.model import load_facts, load_model, normalizer_of
from pressmark.generator.samples import Samples, Windows, windows
from pressmark.generator.train import GeneratorTask, choose_cases
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split
from pressmark.sids.table import read_sids

BATCH = 200


def surprise(run: Path, num_cases: int) -> np.ndarray:
    """(cases,) -log p of each validation target's SID, in nats; cases drawn by seed 0."""
    catalog = read_catalog(run / "data" / "items.parquet")
    table = read_sids(run / "tokenizer" / "sids.parquet", catalog.item_id)
    model = load_model(run / "generator", table)
    cases = choose_cases(read_split(run / "data", catalog).valid, Config(num_valid_cases=num_cases), 0)
    shape = ModelConfig(
        history_input=model.config.history_input,
        normalizer=normalizer_of(model),
        popularity_prior=getattr(model.config, "popularity_prior", 0.0),
    )
    length, facts = model.config.history_length, load_facts(run / "generator")
    # Each history with its target behind it, end to end, as training has its sequences.
    sequences = Histories.from_lists(
        [[*cases.histories[row][-length:].tolist(), int(cases.target[row])] for row in range(len(cases))]
    )
    ends = sequences.offsets[1:] - 1
    samples: Samples | Windows = Samples(sequences.values, ends, sequences.lengths - 1)
    if isinstance(model, CausalT5):
        wanted = np.zeros(len(sequences.values), bool)
        wanted[ends] = True
        samples = replace(windows(sequences, length, True, True), wanted=wanted)
    task = GeneratorTask(samples, cases, table, np.arange(len(table)), Config(model=shape), 0, facts.content)
    task.facts = facts
    parts = np.array_split(np.arange(len(samples)), max(1, len(samples) // BATCH))
    batches = (task.collate(part, torch.device("cpu")) for part in parts)
    with torch.inference_mode():
        return np.concatenate([task.losses(model, one)[0].sum(1).numpy() for one in batches])


def rows_of(runs: list[Path], num_cases: int) -> list[dict[str, Any]]:
    """A row a run; the first is what the others are compared with."""
    split = read_json(runs[0] / "stages" / "prepare.json")["fingerprint"]
    rows: list[dict[str, Any]] = []
    first = np.empty(0)
    for run in runs:
        if read_json(run / "stages" / "prepare.json")["fingerprint"] != split:
            raise ValueError(
                f"{run}: prepared otherwise than {runs[0]}; runs to compare must share their split."
            )
        trained, stamp = (
            read_json(run / "generator" / "metrics.json"),
            read_json(run / "stages" / "generator.json"),
        )
        tokenizer = read_json(run / "stages" / "tokenizer.json")
        normalizer = stamp["settings"].get("generator.model.normalizer", "full")
        if rows and normalizer != rows[0]["normalizer"]:
            raise ValueError(
                f"{run}: its codes compete within {normalizer!r}, those of {runs[0]} within "
                f"{rows[0]['normalizer']!r}; -log p of the two does not compare."
            )
        nats = surprise(run, num_cases)
        first = nats if not rows else first
        weights = ("contrastive_weight", "neighbour_weight", "behaviour_weight")
        last = trained["training"]["validations"][-1]
        rows.append(
            {
                "run": run.name,
                **{name: tokenizer["settings"][f"tokenizer.{name}"] for name in weights},
                "seed": stamp["settings"]["seed"],
                "normalizer": normalizer,
                "epochs": last["epoch"],
                "ndcg_at_10": last["ndcg_at_10"],
                "recall_at_10": last["recall_at_10"],
                "valid_cases": trained["num_valid_cases"],
                "nats": float(nats.mean()),
                "nats_over_first": float((nats - first).mean()),
                "half_interval": float(1.96 * (nats - first).std() / len(nats) ** 0.5),
                "nats_cases": len(nats),
                "training_seconds": stamp["seconds"],
                "commit": stamp["commit"],
                "tokenizer_commit": tokenizer["commit"],
            }
        )
    return rows


def main() -> None:
    """Prints the table, best ranks first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders with a generator")
    parser.add_argument("--cases", type=int, default=4000, help="validation cases for -log p (default: 4000)")
    parser.add_argument("--name", default="runs", help="what the recorded file is called after")
    parser.add_argument(
        "--record", type=truth, default=False, help="true: write eval/results/screen-<name>.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = rows_of(options.runs, options.cases)
    for row in sorted(rows, key=lambda row: -row["ndcg_at_10"]):
        print(
            f"{row['run']:16} N@10 {row['ndcg_at_10']:.4f}  R@10 {row['recall_at_10']:.4f}  "
            f"-log p {row['nats']:.3f}  {row['nats_over_first']:+.3f} +- {row['half_interval']:.3f}"
        )
    if options.record:
        config = read_json(options.runs[0] / "stages" / "generator.json")["settings"]
        seeds = sorted({row["seed"] for row in rows})
        record("screen", options.name, rows, shlex.join(["python", *sys.argv]), config, seeds)
        print(f"recorded: eval/results/screen-{options.name}.json")


if __name__ == "__main__":
    guarded(main)
