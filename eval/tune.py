"""The same search for every model: settings drawn at random, chosen on validation that is like the test.

    python eval/tune.py --config C.yaml --split.protocol leave_one_out
        [--tune "sasrec,dual_tower,generator"] [--trials 10] [--seconds 300]
        [--cold_share 0.05] [--record true]

Trial 0 of a model is the configuration as it stands; the others draw every key of `SPACE` anew, decided by
seed, model and trial alone. Each trains on the split with every shopper's last training item held back (see
`Split.held_back`; nothing of the test is read), for at most `--seconds` of training (a trial that runs out of
them is `cut_short`, its learning rate not yet at 0), and is asked for the same `--cases` validation cases:
item-level hits, full ranking, history masked. `score`, which the choice goes by, is N@10. With `--cold_share`
that share of the validation targets is hidden as cold items are (see `Split.simulating_cold`; all cases are
asked then), and the score is the root of the product of the warm cases' N@10 and the cold ones', so that
neither is bought with the other; a model that knows nothing of cold items goes by the warm ones.

One folder a trial, its row kept: a study resumes. Models without training choose among their own settings on
the same validation when they are loaded; they have one trial each.
"""

import math
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import metrics, stages
from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded
from pressmark.evaluation.record import commit, record
from pressmark.experiment import Experiment, as_dict, parse, with_keys
from pressmark.files import fingerprint, read_json, write_json
from pressmark.interactions.split_files import hold_back, read_split
from pressmark.load import LOADERS, TRAINED, quiet_libraries
from pressmark.recommender import Requests

Draw = Callable[[np.random.Generator], Any]


def one_of(*values: Any) -> Draw:
    """Any of them, equally likely."""
    return lambda rng: values[rng.integers(len(values))]


def between(low: float, high: float) -> Draw:
    """Any number between, its logarithm evenly spread; two digits."""
    return lambda rng: float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.2g}")


SPACE: dict[str, dict[str, Draw]] = {
    "sasrec": {
        "training.learning_rate": between(5e-4, 5e-3),
        "training.weight_decay": one_of(0.0, 0.01, 0.05, 0.2),
        "training.batch_size": one_of(64, 128, 256),
        "training.num_epochs": one_of(10, 20, 40),
        "dropout": one_of(0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        "dim": one_of(64, 96, 128),
        "num_layers": one_of(1, 2, 3),
        "num_heads": one_of(1, 2, 4),
        "history_length": one_of(20, 50),
    },
    "dual_tower": {
        "training.learning_rate": between(5e-4, 5e-3),
        "training.weight_decay": one_of(0.0, 0.01, 0.05, 0.2),
        "training.batch_size": one_of(128, 256, 512),
        "training.num_epochs": one_of(2, 3, 5, 8),
        "dropout": one_of(0.1, 0.2, 0.3, 0.5),
        "item_dropout": one_of(0.1, 0.2, 0.4),
        "identity_dropout": one_of(0.15, 0.3, 0.5, 0.7),
        "dim": one_of(64, 128, 256),
        "hidden_dim": one_of(0, 256, 512),
        "num_layers": one_of(1, 2),
        "temperature": one_of(0.05, 0.07, 0.1, 0.14),
        "logq": one_of(0.0, 0.25, 0.5, 0.75, 1.0),
    },
    "generator": {
        "training.learning_rate": between(5e-4, 5e-3),
        "training.weight_decay": one_of(0.0, 0.01, 0.05, 0.2),
        "training.batch_size": one_of(128, 256, 512),
        "training.num_epochs": one_of(2, 3, 4, 6),
        "model.dropout": one_of(0.1, 0.2, 0.3, 0.4),
        "model.identity_dropout": one_of(0.15, 0.3, 0.5, 0.7),
        "model.popularity_prior": one_of(0.0, 0.15, 0.3, 0.5),
        "model.num_layers": one_of(1, 2, 3),
        "model.d_ff": one_of(256, 512),
        "item_loss": one_of(0.5, 1.0, 2.0),
    },
}
"""Model -> keys of its part of the configuration, and what they may be."""

TUNED = [model for model in LOADERS if model in SPACE or model not in TRAINED]
"""All models but those that are fitted to others."""

WITHOUT_COLD = ("sasrec", "cooccurrence", "popularity")
"""Models that know nothing of a product that nobody has bought: they go by the other cases."""


def drawn(model: str, trial: int, seed: int) -> dict[str, Any]:
    """The settings of a trial."""
    if trial == 0 or model not in SPACE:
        return {}
    rng = np.random.default_rng([seed, *model.encode(), trial])
    return {key: draw(rng) for key, draw in SPACE[model].items()}


def study(experiment: Experiment, model: str, trial: int, options: dict[str, Any]) -> dict[str, Any]:
    """What a trial comes to."""
    folder = experiment.run.with_name(f"{experiment.run.name}-tune") / f"{model}-{trial}"
    settings = drawn(model, trial, experiment.seed)
    config = getattr(experiment, model, None)
    if model in SPACE:
        fixed = {"training.max_seconds": float(options["seconds"]), "training.log_with": ""}
        config = with_keys(config, settings | fixed)
    stage = experiment.run / "stages" / f"{'tokenizer' if model == 'generator' else 'prepare'}.json"
    built_on = read_json(stage)["fingerprint"]
    asking = (options["cases"], options["cold_share"])
    own = fingerprint(as_dict(config) if config else model, experiment.seed, asking, built_on)
    if (folder / "row.json").is_file():
        row = dict(read_json(folder / "row.json"))
        if row.pop("fingerprint") != own:
            raise ValueError(f"{folder} was made with other settings or on other data: delete it first.")
        return row
    hold_back(experiment.run, folder, options["cold_share"], experiment.seed)
    training: dict[str, Any] = {}
    if model in SPACE:
        stages.train_alone(model, folder, config, experiment.seed)
        training = stages.training_of(folder, model)
    row = {
        "model": model,
        "trial": trial,
        "settings": settings,
        "seed": experiment.seed,
        "training_seconds": training.get("seconds", 0.0),
        "steps": training.get("step", 0),
        "cut_short": training.get("seconds", 0.0) > options["seconds"],
        **asked(folder, model, experiment.seed, 0 if options["cold_share"] else options["cases"]),
        "commit": commit(),
    }
    shutil.rmtree(folder)
    write_json(folder / "row.json", row | {"fingerprint": own})
    return row


def asked(run: Path, model: str, seed: int, num_cases: int) -> dict[str, float]:
    """How well a model does on the validation cases of its folder."""
    catalog = read_catalog(run / "data" / "items.parquet")
    valid = read_split(run / "data", catalog).valid
    if 0 < num_cases < len(valid):
        valid = valid.take(np.sort(np.random.default_rng(seed).choice(len(valid), num_cases, replace=False)))
    answer = LOADERS[model](run).recommend(Requests(valid.histories), 10)
    rank = metrics.rank_of_target(answer.item_index, valid.target)
    gain, hit = metrics.ndcg_at_k(rank, 10), metrics.recall_at_k(rank, 10)
    found = {"cases": len(valid), "ndcg_at_10": float(gain.mean()), "recall_at_10": float(hit.mean())}
    found["score"] = found["ndcg_at_10"]
    if valid.cold.any():
        for part, rows in (("warm", ~valid.cold), ("cold", valid.cold)):
            found |= {
                f"ndcg_at_10_{part}": float(gain[rows].mean()),
                f"recall_at_10_{part}": float(hit[rows].mean()),
            }
        warm, cold = found["ndcg_at_10_warm"], found["ndcg_at_10_cold"]
        found["score"] = warm if model in WITHOUT_COLD else math.sqrt(warm * cold)
    return found


def rows_of(experiment: Experiment, models: list[str], options: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each trial of each model."""
    rows = []
    for model in models:
        mine = []
        for trial in range(options["trials"] if model in SPACE else 1):
            mine.append(row := study(experiment, model, trial, options))
            changed = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in row["settings"].items())
            print(
                f"{model:18} {trial:3}  N@10 {row['ndcg_at_10']:.4f}  R@10 {row['recall_at_10']:.4f}  score "
                f"{row['score']:.4f}  {row['training_seconds']:.0f} s  {changed or 'as configured'}",
                flush=True,
            )
        best = max(mine, key=lambda row: row["score"])
        rows += [row | {"chosen": row is best} for row in mine]
    return rows


EXTRA: dict[str, dict[str, Any]] = {
    "tune": {"type": str, "default": ",".join(TUNED), "help": "models to tune, separated by commas"},
    "trials": {"type": int, "default": 10, "help": "trials a model; the first is as configured"},
    "seconds": {"type": int, "default": 300, "help": "seconds of training a trial, at most"},
    "cold_share": {"type": float, "default": 0.0, "help": "validation targets hidden as cold ones, 0 to 1"},
    "cases": {"type": int, "default": 5000, "help": "validation cases, drawn; 0 = all"},
    "record": {"type": bool, "default": False, "help": "write eval/results/tune-<dataset>.json"},
}


def main() -> None:
    """Makes the trials that are missing and prints a line for each."""
    experiment, options = parse(None, extra=EXTRA)
    models = [one.strip() for one in options["tune"].split(",") if one.strip()]
    if unknown := set(models) - set(TUNED):
        raise ValueError(f"--tune: {min(unknown)!r} cannot be tuned; there are {', '.join(TUNED)}.")
    stages.prepare(experiment)
    if "generator" in models:
        stages.train_tokenizer(experiment)
    quiet_libraries()
    rows = rows_of(experiment, models, options)
    if options["record"]:
        dataset = f"{experiment.name}-{experiment.split.protocol}"
        command = shlex.join(["python", *sys.argv])
        record("tune", dataset, rows, command, as_dict(experiment), [experiment.seed])
        print(f"recorded: eval/results/tune-{dataset}.json")


if __name__ == "__main__":
    guarded(main)
