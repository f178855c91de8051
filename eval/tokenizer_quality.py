"""Trains tokenizers side by side on one catalog and measures their codes.

    python eval/tokenizer_quality.py --config C.yaml [--study main] [--seeds [0,1,2]] [--record true]

Studies: `main` (RQ-KMeans; plain RQ-VAE; the default; codes that follow the taxonomy and hold near duplicates
together, as in configs/precision.yaml; shoppers' behaviour beside that), `lambda` (the contrastive weight),
`ablation` (one change to the default at a time). Every row is a file in the run folder, so that a study which
was cut short goes on; a row made by other settings or another tokenizer's code is made again. The doctor's
verdict on one run: `pressmark doctor --run R`.
"""

import dataclasses
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import distributed, files, stages
from pressmark.catalog.embeddings import read_vectors
from pressmark.catalog.items import read_catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.cli import guarded
from pressmark.drawing import COLOURS, OTHER, png
from pressmark.evaluation.record import commit, record
from pressmark.experiment import Experiment, as_dict, parse, with_keys
from pressmark.interactions.split_files import read_split
from pressmark.tokenizer import quality, train
from pressmark.tokenizer.config import Config

PLAIN = {"contrastive_weight": 0.0, "neighbour_weight": 0.0}
TAXONOMY = {"contrastive_weight": 1.0, "neighbour_weight": 3.0}
MAIN: dict[str, dict[str, Any]] = {
    "rqkmeans": {"kind": "rqkmeans", "balance": (0.0,)},
    "rqvae_plain": PLAIN,
    "rqvae_default": {},
    "rqvae_taxonomy": TAXONOMY,
    "rqvae_behaviour": {"behaviour_weight": 1.0, "contrastive_weight": 0.5, "neighbour_weight": 3.0},
}
WEIGHTS = (0, 0.01, 0.03, 0.1, 0.2, 0.3)
LAMBDA = {f"lambda_{weight:g}": {"contrastive_weight": weight} for weight in WEIGHTS}
ABLATION: dict[str, dict[str, Any]] = {
    "default": {},
    "even_balance": {"balance": (0.4,)},
    "agreement": {"neighbour_weight": 3.0},
    "agreement_sharp": {"neighbour_weight": 6.0, "agreement.sharpness": 60.0},
    "taxonomy": TAXONOMY,
    "rqkmeans_balanced": {"kind": "rqkmeans"},
    "no_balance": {"balance": (0.0,)},
    "entropy": {"entropy_weight": 0.1},
    "plain": PLAIN,
    "form_cosine": {"contrastive.form": "cosine"},
    "form_agreement": {"contrastive.form": "agreement"},
    "gradient_codebooks": {"codebooks": "gradient"},
    "rotation": {"gradient": "rotation"},
    "no_revival": {"revive_below": 0.0},
    "masking": {"masking": 0.5},
    "multi_resolution": {"level_sizes": (512, 256, 256, 128)},
    "linear": {"hidden_sizes": ()},
    "latent_64": {"latent_dim": 64},
    "latent_256": {"latent_dim": 256},
    "no_polish": {"polish_iterations": 0},
    "commitment_half": {"commitment_weight": 0.5},
    "negatives_near": {"sampler.negatives": "near"},
    "uniform_batches": {"sampler.sibling_share": 0.0, "sampler.uniform_share": 0.75},
}
STUDIES = {"main": MAIN, "lambda": LAMBDA, "ablation": ABLATION}

COLUMNS = {
    **{f"usage_{level}": f"usage_{level}" for level in range(1, 5)},
    **{f"perplexity_{level}": f"perplexity_{level}" for level in range(1, 5)},
    "items_sharing_a_sid": "items_sharing_a_sid",
    "num_item_collisions": "num_item_collisions_after",
    "share_relocated": "share_relocated",
    "reconstruction_r2": "reconstruction_r2",
    "spearman_neighbours": "spearman_neighbours",
    "spearman_random": "spearman_random",
    **{f"share_cosine90_code{level}": f"share_cosine90_code{level}" for level in range(1, 5)},
    "purity1_depth2": "purity1_depth2",
    "purity1_depth3": "purity1_depth3",
    "purity1_leaf": "purity1_leaf",
    "nmi1_depth3": "nmi1_depth3",
    "lift_1": "lift_1",
    "lift_2": "lift_2",
}
"""Column of a row -> figure of `pressmark.tokenizer.quality`."""


def row(experiment: Experiment, name: str, config: Config, folder: Path) -> dict[str, Any]:
    """Trains one tokenizer on a prepared run and measures it, or reads the row that did so before."""
    run = experiment.run
    catalog = read_catalog(run / "data" / "items.parquet")
    vectors, split = read_vectors(run), read_split(run / "data", catalog)
    code = [files.file_hash(one) for one in sorted(Path(train.__file__).parent.glob("*.py"))]
    key = files.fingerprint(as_dict(config), vectors, split.fitted_on, experiment.seed, code)
    place = folder / f"{name}-seed{experiment.seed}.json"
    if place.is_file() and (found := files.read_json(place))["fingerprint"] == key:
        return found["row"]
    print(f"--- {name}, seed {experiment.seed}", flush=True)
    taxonomy, items = build_taxonomy(catalog.category), np.flatnonzero(split.fitted_on)
    at = commit()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        quantizer, log = train.fit_quantizer(
            vectors, taxonomy, items, config, experiment.seed, Path(scratch), split.train
        )
    codes, resolution = train.resolve(quantizer, vectors, split.fitted_on, config.collisions)
    figures = quality.quality(
        vectors, codes, quantizer.decode(codes), quantizer.level_sizes, taxonomy, experiment.seed,
        split.train, resolution,
    )  # fmt: skip
    made = {
        "tokenizer": name,
        "seed": experiment.seed,
        **{column: figures[figure] for column, figure in COLUMNS.items() if figure in figures},
        "training_seconds": round(log.get("seconds", 0.0), 1),
        "commit": at,
    }
    files.write_json(place, {"fingerprint": key, "row": made})
    return made


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Reconstruction against coherence along the contrastive weight."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one["tokenizer"] for one in rows))
    mean = {name: [one for one in rows if one["tokenizer"] == name] for name in names}
    x, y = (
        [float(np.mean([one[figure] for one in mean[name]])) for name in names]
        for figure in ("reconstruction_r2", "purity1_depth3")
    )
    drawn = Figure(figsize=(6, 4.2), layout="constrained")
    axes = drawn.add_subplot()
    axes.plot(x, y, color=OTHER, linewidth=1, zorder=1)
    axes.scatter(x, y, color=COLOURS[0], zorder=2)
    for name, one, other in zip(names, x, y, strict=True):
        axes.annotate(name.replace("lambda_", "λ "), (one, other), xytext=(6, 4), textcoords="offset points")
    axes.set(xlabel="reconstruction R²", ylabel="first-code purity at depth 3")
    axes.spines[["top", "right"]].set_visible(False)
    with files.replacing(path) as partial:
        partial.write_bytes(png(drawn))


def main() -> None:
    """Runs a study and prints its table."""
    experiment, extra = parse(
        extra={
            "study": {"choices": list(STUDIES), "default": "main", "help": "which tokenizers to compare"},
            "seeds": {"type": list[int], "default": [], "help": "seeds (default: seed)"},
            "only": {"type": list[str], "default": [], "help": "only these tokenizers of the study"},
            "record": {"type": bool, "default": False, "help": "write eval/results/tokenizer*-<dataset>.json"},
        }
    )
    distributed.start()
    split = dataclasses.replace(experiment.split, protocol="leave_one_out")
    seeds = extra["seeds"] or [experiment.seed]
    variants = {name: STUDIES[extra["study"]][name] for name in extra["only"] or STUDIES[extra["study"]]}
    runs = [dataclasses.replace(experiment, seed=seed, split=split) for seed in seeds]
    rows = []
    for one in runs:
        stages.prepare(one)
        folder = one.run / "tokenizer_study"
        folder.mkdir(exist_ok=True)
        rows += [row(one, name, with_keys(one.tokenizer, change), folder) for name, change in variants.items()]
    print(table(rows))
    if extra["record"]:
        what = "tokenizer" if extra["study"] == "main" else f"tokenizer_{extra['study']}"
        configs = {name: as_dict(with_keys(experiment.tokenizer, change)) for name, change in variants.items()}
        settings = as_dict(runs[0]) | {"tokenizers": configs}
        record(what, experiment.name, rows, shlex.join(["python", *sys.argv]), settings, seeds)
        print(f"recorded: eval/results/{what}-{experiment.name}.json")
        if extra["study"] == "lambda":
            picture(rows, Path(f"eval/results/{what}-{experiment.name}.png"))


def table(rows: list[dict[str, Any]]) -> str:
    """Main columns, mean over seeds."""
    shown = (
        "usage_4", "perplexity_1", "perplexity_4", "share_relocated", "reconstruction_r2",
        "spearman_neighbours", "share_cosine90_code1", "purity1_depth3", "lift_1", "lift_2",
    )  # fmt: skip
    names = list(dict.fromkeys(one["tokenizer"] for one in rows))
    lines = [" " * 20 + "".join(f"{name.replace('share_', ''):>21}" for name in shown)]
    for name in names:
        own = [one for one in rows if one["tokenizer"] == name]
        means = [float(np.mean([one[figure] for one in own if figure in one] or [np.nan])) for figure in shown]
        lines.append(f"{name:20}" + "".join(f"{mean:21.4f}" for mean in means))
    return "\n".join(lines)


if __name__ == "__main__":
    guarded(main)
