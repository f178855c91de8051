"""Nightly retraining: a generator that goes on from yesterday's, beside one that starts afresh.

    python eval/warm_start.py --config configs/grocery.yaml [--seeds [0,1,2]] [--record true]

Yesterday ends two tenths of the interactions before today (split `temporal`, quantiles .6 / .7 for .8 / .9):
its vectors and tokenizer give the SIDs of both, its generator is where `warm` starts (`generator.init_from`).
Both are trained on today's interactions for the same numbers of epochs, each with a schedule of its own, and
asked for today's test cases: item-level hits, history masked, beam as configured. A finished training stays.
"""

import dataclasses
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import metrics, stages
from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded
from pressmark.evaluation.record import record
from pressmark.experiment import Experiment, as_dict, parse
from pressmark.files import read_json
from pressmark.generator.recommend import load_generator
from pressmark.generator.train import train
from pressmark.interactions.split_files import read_split
from pressmark.recommender import Requests

DAYS = {"yesterday": (0.6, 0.7), "today": (0.8, 0.9)}
EPOCHS = (1, 3)


def day(experiment: Experiment, name: str, seed: int) -> Experiment:
    """The experiment as of a day."""
    early, late = DAYS[name]
    split = dataclasses.replace(experiment.split, protocol="temporal", valid_quantile=early, test_quantile=late)
    folder = Path("runs") / experiment.name / "warm_start" / f"seed{seed}" / name
    return dataclasses.replace(experiment, split=split, run_dir=str(folder), seed=seed)


def rows_of(experiment: Experiment, seed: int) -> list[dict[str, Any]]:
    """A row for each start and number of epochs."""
    yesterday, today = (day(experiment, name, seed) for name in DAYS)
    stages.train_generator(yesterday)
    stages.prepare(today)
    rows = []
    for epochs in EPOCHS:
        for start in ("afresh", "warm"):
            run = today.run.with_name(f"{start}{epochs}")
            if not (run / "generator" / "metrics.json").exists():
                shutil.rmtree(run, ignore_errors=True)
                shutil.copytree(today.run / "data", run / "data")
                shutil.copytree(yesterday.run / "tokenizer", run / "tokenizer")
                # Yesterday's vectors too: an embedding fitted anew has other axes.
                shutil.copy(yesterday.run / "data" / "vectors.json", run / "data" / "vectors.json")
                if (yesterday.run / "vectors").exists():
                    shutil.copytree(yesterday.run / "vectors", run / "vectors")
                training = dataclasses.replace(experiment.generator.training, num_epochs=epochs, log_with="")
                config = dataclasses.replace(
                    experiment.generator,
                    training=training,
                    init_from=str(yesterday.run) if start == "warm" else "",
                )
                train(run, config, seed)
            rows.append({"start": start, "epochs": epochs, "seed": seed, **judged(run)})
            print(rows[-1], flush=True)
    return rows


def judged(run: Path) -> dict[str, Any]:
    """How long a generator was trained, and what it is worth today."""
    cases = read_split(run / "data", read_catalog(run / "data" / "items.parquet")).test
    answer = load_generator(run, device="cpu").recommend(Requests(cases.histories), 10)
    rank = metrics.rank_of_target(answer.item_index, cases.target)
    trained = read_json(run / "generator" / "metrics.json")["training"]
    return {
        "seconds": trained["seconds"],
        "valid_ndcg_at_10": trained["best"],
        "cases": len(cases),
        "recall_at_10": float(metrics.recall_at_k(rank, 10).mean()),
        "ndcg_at_10": float(metrics.ndcg_at_k(rank, 10).mean()),
    }


def main() -> None:
    """Trains what is missing and prints the table."""
    experiment, extra = parse(
        extra={
            "seeds": {"type": list[int], "default": [0, 1, 2], "help": "seeds to run (default: [0,1,2])"},
            "record": {"type": bool, "default": False, "help": "write eval/results/warm_start-<dataset>.json"},
        }
    )
    rows = [row for seed in extra["seeds"] for row in rows_of(experiment, seed)]
    for epochs in EPOCHS:
        for start in ("afresh", "warm"):
            own = [row for row in rows if (row["start"], row["epochs"]) == (start, epochs)]
            recall, ndcg, seconds = (
                np.mean([row[key] for row in own]) for key in ("recall_at_10", "ndcg_at_10", "seconds")
            )
            print(f"{start:7} {epochs} epochs  {seconds:6.0f} s  R@10 {recall:.4f}  N@10 {ndcg:.4f}")
    if extra["record"]:
        command = shlex.join(["python", *sys.argv])
        record("warm_start", experiment.name, rows, command, as_dict(experiment), extra["seeds"])
        print(f"recorded: eval/results/warm_start-{experiment.name}.json")


if __name__ == "__main__":
    guarded(main)
