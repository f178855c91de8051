"""What a pretrained backbone is worth as the generator, and what its parts are: one change a row.

    python eval/backbones.py --config configs/grocery.yaml --split.cold_valid_share 0.05 --steps 250
        --pretrained FOLDER --fresh FOLDER [--only "scratch,full"] [--num-cases 1500] [--record true]

`--pretrained` and `--fresh` are one architecture with pretrained and with random weights, see
`eval/pretrain_backbone.py`. Every row trains as many steps of as many prefixes, on the run's split and SIDs,
from one seed, and is asked validation and, once, test: item-level hits, history masked, full ranking, and among
held-out products alone (`cold_only`). Cases are a drawn subset, with every cold one. A finished row stays.
"""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import metrics, stages
from pressmark.catalog.embeddings import point_to_vectors
from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded
from pressmark.evaluation.record import record
from pressmark.experiment import Experiment, as_dict, parse, with_keys
from pressmark.files import read_json, write_json
from pressmark.generator.config import Config
from pressmark.generator.recommend import load_generator
from pressmark.interactions.cases import Cases
from pressmark.interactions.split_files import read_split
from pressmark.load import quiet_libraries
from pressmark.recommender import Requests

ALIGNED = {"finetune.alignment.content_to_sid": 1.0, "finetune.alignment.sid_to_content": 0.5}
COLD_TOO = {**ALIGNED, "finetune.alignment.cold_items": True}
LORA = {"finetune.tuning": "lora"}
TITLES = {"finetune.prompt.titled_items": 3}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "scratch, tokens": ("scratch", {"model.history_input": "tokens"}),
    "full": ("pretrained", {}),
    "full, random rows": ("pretrained", {"finetune.token_start": "random"}),
    "fresh, full": ("fresh", {}),
    "full, aligned": ("pretrained", ALIGNED),
    "fresh, full, aligned": ("fresh", ALIGNED),
    "lora": ("pretrained", LORA),
    "lora, aligned": ("pretrained", {**LORA, **ALIGNED}),
    "full, aligned, cold texts too": ("pretrained", COLD_TOO),
    "full, titles": ("pretrained", TITLES),
}
"""Name -> which backbone, and the keys of generator.* that it changes."""


def configured(base: Config, backbone: str, changes: dict[str, Any], steps: int) -> Config:
    """The generator of a row: the run's, at a small budget that all rows share."""
    budget = {
        "backbone": backbone,
        "history_length": 6,
        "beam": 30,
        "num_valid_cases": 300,
        "training.batch_size": 128,
        "training.max_steps": steps,
        "training.num_epochs": 100,
        "training.validate_every": 100,
        "training.warmup_steps": 30,
        "training.learning_rate": 3e-3,
        "training.mixed_precision": "no",
        "training.log_with": "",
    }
    sizes = {
        "model.num_layers": 2, "model.num_heads": 4, "model.d_kv": 32, "model.d_ff": 512,
        "model.feed_forward": "gated-gelu", "model.dropout": 0.1,
    }  # fmt: skip
    lora = {"training.learning_rate": 1e-2} if changes.get("finetune.tuning") == "lora" else {}
    made = with_keys(base, {**budget, **sizes, **lora, **changes})
    assert isinstance(made, Config)
    return made


def asked_of(cases: Cases, num: int, seed: int) -> Cases:
    """The cases that masking leaves answerable: every cold one, and so many others, drawn."""
    cases = cases.take(~cases.target_in_history())
    warm = np.flatnonzero(~cases.cold)
    drawn = np.random.default_rng(seed).choice(warm, min(num, len(warm)), replace=False)
    return cases.take(np.sort(np.concatenate([drawn, np.flatnonzero(cases.cold)])))


def figures(run: Path, cases: Cases, which: str) -> dict[str, float]:
    """Recall and NDCG at 10 of warm and cold cases."""
    model = load_generator(run, device="cpu")
    hidden = np.zeros(model.num_items, bool)
    hidden[cases.target[cases.cold]] = True
    model.filters["hidden"] = hidden
    found = {}
    for part, rows, wanted in (
        ("warm", ~cases.cold, None),
        ("cold", cases.cold, None),
        ("cold_only", cases.cold, "hidden"),
    ):
        some = cases.take(rows)
        if not len(some):
            continue
        answer = model.recommend(Requests(some.histories, wanted, context=some.context), 10)
        rank = metrics.rank_of_target(answer.item_index, some.target)
        found[f"{which}_{part}_recall_at_10"] = float(metrics.recall_at_k(rank, 10).mean())
        found[f"{which}_{part}_ndcg_at_10"] = float(metrics.ndcg_at_k(rank, 10).mean())
        found[f"{which}_{part}_cases"] = len(some)
    return found


def row_of(experiment: Experiment, name: str, config: Config, num_cases: int) -> dict[str, Any]:
    """Trains one row's generator beside the run and asks it."""
    run = experiment.run
    place = run.with_name(f"{run.name}-backbones") / name.replace(", ", "-").replace(" ", "_")
    done = place / "row.json"
    if done.is_file():
        found: dict[str, Any] = read_json(done)
        return found
    for part in ("data", "tokenizer"):
        shutil.copytree(run / part, place / part, dirs_exist_ok=True)
    point_to_vectors(place, run / read_json(run / "data" / "vectors.json")["path"])
    stages.train_alone("generator", place, config, experiment.seed)
    numbers = read_json(place / "generator" / "metrics.json")
    catalog = read_catalog(place / "data" / "items.parquet")
    split = read_split(place / "data", catalog)
    row = {
        "row": name,
        "steps": numbers["training"]["step"],
        "training_seconds": numbers["training"]["seconds"],
        "num_parameters": numbers["num_parameters"],
        "num_trained_parameters": numbers.get("num_trained_parameters", numbers["num_parameters"]),
        "alignment": numbers.get("alignment", {}),
        **figures(place, asked_of(split.valid, num_cases, experiment.seed), "valid"),
        **figures(place, asked_of(split.test, num_cases, experiment.seed), "test"),
    }
    write_json(done, row)
    return row


def main() -> None:
    """Trains and asks every row; prints them and writes them down."""
    extra: dict[str, Any] = {
        "pretrained": {"type": str, "required": True, "help": "folder of the pretrained backbone"},
        "fresh": {"type": str, "required": True, "help": "folder of the same with random weights"},
        "steps": {"type": int, "default": 250, "help": "steps of 128 prefixes a row"},
        "num-cases": {"type": int, "default": 1500, "help": "warm cases of validation, and of test"},
        "only": {"type": str, "default": "", "help": "rows, separated by ;"},
        "record": {"type": bool, "default": False, "help": "write eval/results/backbones-<name>.json"},
    }
    experiment, given = parse(prog="backbones.py", extra=extra)
    quiet_libraries()
    stages.train_tokenizer(experiment)
    wanted = [one.strip() for one in given["only"].split(";") if one.strip()] or list(ROWS)
    rows = []
    for name in wanted:
        kind, changes = ROWS[name]
        folder = given.get(kind, kind)
        config = configured(experiment.generator, folder, changes, given["steps"])
        rows.append(row_of(experiment, name, config, given["num-cases"]))
        shown = {key: one for key, one in rows[-1].items() if key.endswith("recall_at_10")}
        print(name, {key: round(one, 4) for key, one in shown.items()}, flush=True)
    if given["record"]:
        pretraining = read_json(Path(given["pretrained"]) / "pretraining.json")
        settings = {
            "experiment": as_dict(experiment),
            "generator": as_dict(configured(experiment.generator, "scratch", {}, given["steps"])),
            "pretraining": pretraining,
        }
        command = shlex.join(["python", *sys.argv])
        record("backbones", experiment.name, rows, command, settings, [experiment.seed])


if __name__ == "__main__":
    guarded(main)
