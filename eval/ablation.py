"""A model with one thing changed at a time, on validation that is like the test.

    python eval/ablation.py --config C.yaml --split.protocol leave_one_out --model generator
        [--only "default; no identity"] [--epochs 4]
        [--cold_share 0.05] [--record true]

A test history holds an item that nothing was trained on: validation's. Plain validation histories hold none,
and flatter a model that knows its training sequences by heart. So each shopper's last training item is held
back here (`Split.held_back`): it stands in validation's histories, but no model is trained on it. Nothing of
the test is read.

Each change is trained for `--epochs` (0: as configured), with the learning rate falling to 0 within them, on
the same SIDs (the tokenizer of the run, trained where it is missing), and asked for all validation cases:
item-level hits, full ranking, history masked, a generator with `valid_beam` beams and the popularity discount
that training chose. `difference` is in N@10 from the first row, over the same cases, with its 95 % interval.
With `--cold_share` that share of the validation targets is hidden as cold items are (`Split.simulating_cold`),
and warm and cold cases stand apart too. One folder a change: a finished one stays. `peak_gib` is by how much a
process that did nothing else grew in training.
"""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import metrics, stages
from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded
from pressmark.evaluation.memory import grown_apart
from pressmark.evaluation.record import record
from pressmark.experiment import Experiment, as_dict, parse, with_keys
from pressmark.files import fingerprint, read_json, write_json
from pressmark.generator.recommend import load_generator
from pressmark.interactions.split_files import hold_back, read_split
from pressmark.load import LOADERS
from pressmark.recommender import Recommender, Requests
from pressmark.training.config import decisive

CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "generator": {
        "default": {},
        "no identity": {"model.identity_dropout": 1.0},
        "identity dropout .6": {"model.identity_dropout": 0.6},
        "no popularity prior": {"model.popularity_prior": 0.0},
        "popularity prior .6": {"model.popularity_prior": 0.6},
        "no text": {"model.content": False},
        "no words": {"model.words": 0},
        "decoder without guide": {"model.guided": False},
        "codes compete within the level": {"model.normalizer": "level"},
        "no item head": {"model.guided": False, "item_loss": 0.0},
        "dropout .1": {"model.dropout": 0.1},
        "random token start": {"model.token_start": "random"},
        "three epochs": {"training.num_epochs": 3},
        "eight epochs": {"training.num_epochs": 8},
    },
    "dual_tower": {
        "default": {},
        "no logQ": {"logq": 0.0},
        "half logQ": {"logq": 0.5},
        "no words": {"words": 0},
        "words at the rate of the rest": {"word_rate": 1.0},
        "width 128": {"dim": 128},
        "no identity": {"identity_dropout": 1.0},
        "identity dropout .5": {"identity_dropout": 0.5},
        "an MLP": {"hidden_dim": 256},
        "temperature .1": {"temperature": 0.1},
        "temperature learned": {"learn_temperature": True},
        "batch 512": {"training.batch_size": 512},
        "history no negative": {"history_negatives": False},
        "queue of 4,096": {"queue": 4096},
        "hard negatives": {"hard_negatives": 2},
        "item views": {"auxiliary.item_views": 0.1},
        "user views": {"auxiliary.user_views": 0.1},
        "prototypes": {"auxiliary.prototypes": 0.1},
        "graph, edges": {"auxiliary.graph": 0.1},
        "graph, nodes": {"auxiliary.graph": 0.1, "auxiliary.graph_view": "nodes"},
        "graph, walk": {"auxiliary.graph": 0.1, "auxiliary.graph_view": "walk"},
    },
    "sasrec": {
        "default": {},
        "dropout .3": {"dropout": 0.3},
        "width 64": {"dim": 64},
        "two layers": {"num_layers": 2},
        "no weight decay": {"training.weight_decay": 0.0},
    },
}
"""Model -> name -> keys of its part of the configuration and their values."""

BOUGHT = {"bought_0_2": (0, 2), "bought_3_10": (3, 10), "bought_11_30": (11, 30), "bought_over_30": (31, 10**9)}
"""Groups of targets by their interactions in training."""


def study(
    experiment: Experiment, model: str, name: str, epochs: int, cold_share: float
) -> tuple[dict[str, Any], np.ndarray]:
    """What a change comes to, and where it ranks each validation case's target (0: not among the ten)."""
    folder = name.replace(" ", "-") if model == "generator" else f"{model}-{name}".replace(" ", "-")
    run = experiment.run.with_name(f"{experiment.run.name}-{folder}")
    catalog = read_catalog(experiment.run / "data" / "items.parquet")
    config = getattr(experiment, model)
    own_epochs = {"training.num_epochs": epochs} if epochs else {}
    config = with_keys(config, own_epochs | {"training.log_with": ""} | CHANGES[model][name])
    stage = "tokenizer" if model == "generator" else "prepare"
    built_on = read_json(experiment.run / "stages" / f"{stage}.json")["fingerprint"]
    own = fingerprint(decisive(config), experiment.seed, str(built_on), cold_share)
    if (run / "made.json").exists() and read_json(run / "made.json")["fingerprint"] != own:
        raise ValueError(f"{run} was trained with other settings or on other data: delete it, or set --epochs.")
    if not (run / "made.json").exists():
        hold_back(experiment.run, run, cold_share, experiment.seed)
        peak = grown_apart(stages.train_alone, model, run, config, experiment.seed)
        shutil.rmtree(run / "training", ignore_errors=True)
        write_json(run / "made.json", {"fingerprint": own, "peak_gib": peak})
    split = read_split(run / "data", catalog)
    rank = metrics.rank_of_target(
        loaded(run, model, config).recommend(Requests(split.valid.histories), 10).item_index, split.valid.target
    )
    bought = np.bincount(split.train.values, minlength=len(catalog))[split.valid.target]
    groups = {key: (bought >= least) & (bought <= most) for key, (least, most) in BOUGHT.items()}
    if split.valid.cold.any():
        groups |= {"recall_at_10_warm": ~split.valid.cold, "recall_at_10_cold": split.valid.cold}
    gain, hits = metrics.ndcg_at_k(rank, 10), metrics.recall_at_k(rank, 10)
    trained = stages.training_of(run, model)
    row = {
        "change": name,
        "settings": CHANGES[model][name],
        "seed": experiment.seed,
        "epochs": config.training.num_epochs,
        "cases": len(rank),
        "ndcg_at_10": float(gain.mean()),
        "recall_at_10": float(hits.mean()),
        **{key: float(hits[rows].mean()) for key, rows in groups.items() if rows.any()},
        "training_seconds": trained["seconds"],
        "peak_gib": read_json(run / "made.json").get("peak_gib"),
    }
    kept = [one for one in trained["validations"] if one["step"] == trained["best_step"]]
    best = (kept or trained["validations"])[-1]
    return row | {key: best[key] for key in ("alignment", "uniformity") if key in best}, rank


def loaded(run: Path, model: str, config: Any) -> Recommender:
    """A trained model; a generator with the beams of its validation."""
    if model == "generator":
        return load_generator(run, beam=config.valid_beam, device="cpu")
    return LOADERS[model](run)


def rows_of(
    experiment: Experiment, model: str, names: list[str], epochs: int, cold_share: float
) -> list[dict[str, Any]]:
    """A row for each change, compared with the first."""
    rows: list[dict[str, Any]] = []
    first = np.empty(0)
    for name in names:
        row, rank = study(experiment, model, name, epochs, cold_share)
        gain = metrics.ndcg_at_k(rank, 10)
        first = first if rows else gain
        difference = gain - first
        row["difference"] = float(difference.mean())
        row["half_interval"] = float(1.96 * difference.std() / len(difference) ** 0.5)
        rows.append(row)
        cold = f"  cold {row['recall_at_10_cold']:.4f}" if "recall_at_10_cold" in row else ""
        print(
            f"{name:32} N@10 {row['ndcg_at_10']:.4f}  R@10 {row['recall_at_10']:.4f}{cold}  "
            f"{row['difference']:+.4f} +- {row['half_interval']:.4f}  {row['training_seconds']:.0f} s",
            flush=True,
        )
    return rows


EXTRA: dict[str, dict[str, Any]] = {
    "model": {"type": str, "default": "generator", "help": "generator, dual_tower or sasrec"},
    "only": {"type": str, "default": "", "help": "changes to make, separated by semicolons (default: all)"},
    "epochs": {"type": int, "default": 0, "help": "epochs of each training; 0 = as configured"},
    "cold_share": {"type": float, "default": 0.0, "help": "validation targets hidden as cold ones, 0 to 1"},
    "record": {"type": bool, "default": False, "help": "write eval/results/<model>_ablation-<dataset>.json"},
}


def main() -> None:
    """Trains what is missing and prints a line a change."""
    experiment, options = parse(None, extra=EXTRA)
    model = options["model"]
    if model not in CHANGES:
        raise ValueError(f"--model is {model!r}; there are {', '.join(CHANGES)}.")
    names = [one.strip() for one in options["only"].split(";") if one.strip()] or list(CHANGES[model])
    if unknown := set(names) - set(CHANGES[model]):
        raise ValueError(f"--only: {min(unknown)!r} is no change; there are {'; '.join(CHANGES[model])}.")
    stages.prepare(experiment)
    if model == "generator":
        stages.train_tokenizer(experiment)
    rows = rows_of(experiment, model, names, options["epochs"], options["cold_share"])
    if options["record"]:
        command = shlex.join(["python", *sys.argv])
        record(f"{model}_ablation", experiment.name, rows, command, as_dict(experiment), [experiment.seed])
        print(f"recorded: eval/results/{model}_ablation-{experiment.name}.json")


if __name__ == "__main__":
    guarded(main)
