"""A store small enough to train every stage on in seconds."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def tiny_arguments(place: Path, **changes: object) -> list[str]:
    """Flags of the tiny experiment, with its data and its run under `place`."""
    values: dict[str, object] = {
        "name": "tiny",
        "run_dir": place / "run",
        "data.source": "grocery",
        "data.path": place / "store",
        "data.grocery.num_products": 240,
        "data.grocery.num_shoppers": 120,
        "data.grocery.months": 4,
        "vectors.dim": 16,
        "tokenizer.level_sizes": "[16,16,16]",
        "tokenizer.training.num_epochs": 4,
        "tokenizer.training.batch_size": 64,
        "tokenizer.training.mixed_precision": "no",
        "tokenizer.training.log_with": "",
        "generator.model.d_model": 16,
        "generator.model.d_kv": 8,
        "generator.model.d_ff": 32,
        "generator.model.num_layers": 1,
        "generator.model.num_heads": 2,
        "generator.training.num_epochs": 2,
        "generator.training.batch_size": 64,
        "generator.training.mixed_precision": "no",
        "generator.training.log_with": "",
        "dual_tower.training.num_epochs": 2,
        "dual_tower.training.mixed_precision": "no",
        "dual_tower.training.log_with": "",
        "sasrec.training.num_epochs": 2,
        "sasrec.training.mixed_precision": "no",
        "sasrec.training.log_with": "",
        "evaluation.num_resamples": 200,
        **changes,
    }
    flags = ["--config", str(REPOSITORY / "configs" / "grocery.yaml")]
    for key, value in values.items():
        flags += [f"--{key}", str(value)]
    return flags
