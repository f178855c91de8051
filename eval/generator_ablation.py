"""The generator with one thing changed at a time, on validation that is like the test.

    python eval/generator_ablation.py --config C.yaml --split.protocol leave_one_out
        [--only "default,no identity"] [--epochs 5] [--record true]

A test history holds an item that nothing was trained on: validation's. Plain validation histories hold none,
and flatter a model that knows its training sequences by heart. So each shopper's last training item is held
back here: it stands in validation's histories, but no model is trained on it. Nothing of the test is read.

Each change is trained for `--epochs`, with the learning rate falling to 0 within them, on the same SIDs (the
tokenizer of the run, trained where it is missing), and asked for all validation cases: item-level hits, full
ranking, history masked, `valid_beam` beams, the popularity discount as training chose it. `difference` is from
the first row, over the same cases, with its 95 % interval. One folder a change: a finished one stays.
"""

import dataclasses
import shlex
import shutil
import sys
from typing import Any

import numpy as np

from pressmark import metrics, stages
from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded
from pressmark.evaluation.record import record
from pressmark.experiment import Experiment, as_dict, parse, with_keys
from pressmark.files import fingerprint, read_json, write_json
from pressmark.generator.recommend import load_generator
from pressmark.generator.train import train
from pressmark.interactions.split_files import read_split
from pressmark.recommender import Requests
from pressmark.training.loop import decisive

CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "no identity": {"model.identity_dropout": 1.0},
    "identity dropout .6": {"model.identity_dropout": 0.6},
    "no popularity prior": {"model.popularity_prior": 0.0},
    "popularity prior .6": {"model.popularity_prior": 0.6},
    "no text": {"model.content": False},
    "decoder without guide": {"model.guided": False},
    "codes compete within the level": {"model.normalizer": "level"},
    "no item head": {"model.guided": False, "item_loss": 0.0},
    "dropout .1": {"model.dropout": 0.1},
    "random token start": {"model.token_start": "random"},
}
"""Name -> keys of generator.* and their values. Without text there are no identities either."""

BOUGHT = {"bought_0_2": (0, 2), "bought_3_10": (3, 10), "bought_11_30": (11, 30), "bought_over_30": (31, 10**9)}
"""Groups of targets by their interactions in training."""


def study(experiment: Experiment, name: str, epochs: int) -> tuple[dict[str, Any], np.ndarray]:
    """What a change comes to, and where it ranks each validation case's target (0: not among the ten)."""
    run = experiment.run.with_name(f"{experiment.run.name}-{name.replace(' ', '-')}")
    catalog = read_catalog(experiment.run / "data" / "items.parquet")
    training = dataclasses.replace(experiment.generator.training, num_epochs=epochs, log_with="")
    config = dataclasses.replace(with_keys(experiment.generator, CHANGES[name]), training=training)
    own = fingerprint(decisive(dataclasses.asdict(config)), experiment.seed, _stage(experiment))
    if (run / "made.json").exists() and read_json(run / "made.json")["fingerprint"] != own:
        raise ValueError(f"{run} was trained with other settings or on other SIDs: delete it, or set --epochs.")
    if not (run / "made.json").exists():
        stages.hold_back(experiment.run, run)
        train(run, config, experiment.seed)
        shutil.rmtree(run / "training", ignore_errors=True)
        write_json(run / "made.json", {"fingerprint": own})
    split = read_split(run / "data", catalog)
    model = load_generator(run, beam=config.valid_beam, device="cpu")
    asked = Requests(split.valid.histories, mask_history=config.mask_history)
    rank = metrics.rank_of_target(model.recommend(asked, 10).item_index, split.valid.target)
    bought = np.bincount(split.train.values, minlength=len(catalog))[split.valid.target]
    groups = {key: (bought >= least) & (bought <= most) for key, (least, most) in BOUGHT.items()}
    hits = metrics.recall_at_k(rank, 10)
    trained = read_json(run / "generator" / "metrics.json")["training"]
    row = {
        "change": name,
        "settings": CHANGES[name],
        "seed": experiment.seed,
        "epochs": epochs,
        "cases": len(rank),
        "ndcg_at_10": float(metrics.ndcg_at_k(rank, 10).mean()),
        "recall_at_10": float(hits.mean()),
        **{key: float(hits[rows].mean()) for key, rows in groups.items() if rows.any()},
        "popularity_discount": model.popularity_discount,
        "training_seconds": trained["seconds"],
    }
    return row, rank


def _stage(experiment: Experiment) -> str:
    """The fingerprint of the run's tokenizer."""
    return str(read_json(experiment.run / "stages" / "tokenizer.json")["fingerprint"])


def rows_of(experiment: Experiment, names: list[str], epochs: int) -> list[dict[str, Any]]:
    """A row for each change, compared with the first."""
    rows: list[dict[str, Any]] = []
    first = np.empty(0)
    for name in names:
        row, rank = study(experiment, name, epochs)
        gain = metrics.ndcg_at_k(rank, 10)
        first = first if rows else gain
        difference = gain - first
        row["difference"] = float(difference.mean())
        row["half_interval"] = float(1.96 * difference.std() / len(difference) ** 0.5)
        rows.append(row)
        print(
            f"{name:32} N@10 {row['ndcg_at_10']:.4f}  R@10 {row['recall_at_10']:.4f}  "
            f"{row['difference']:+.4f} +- {row['half_interval']:.4f}  {row['training_seconds']:.0f} s",
            flush=True,
        )
    return rows


EXTRA: dict[str, dict[str, Any]] = {
    "only": {"type": str, "default": "", "help": "changes to make, separated by commas (default: all)"},
    "epochs": {"type": int, "default": 5, "help": "epochs of each training"},
    "record": {"type": bool, "default": False, "help": "write eval/results/generator_ablation-<dataset>.json"},
}


def main() -> None:
    """Trains what is missing and prints a line a change."""
    experiment, options = parse(None, extra=EXTRA)
    names = [one.strip() for one in options["only"].split(",") if one.strip()] or list(CHANGES)
    if unknown := set(names) - set(CHANGES):
        raise ValueError(f"--only: {min(unknown)!r} is no change; there are {', '.join(CHANGES)}.")
    stages.train_tokenizer(experiment)
    rows = rows_of(experiment, names, options["epochs"])
    if options["record"]:
        command = shlex.join(["python", *sys.argv])
        record("generator_ablation", experiment.name, rows, command, as_dict(experiment), [experiment.seed])
        print(f"recorded: eval/results/generator_ablation-{experiment.name}.json")


if __name__ == "__main__":
    guarded(main)
