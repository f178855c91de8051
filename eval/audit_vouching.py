"""Do the codes of a run vouch for the labels that they were trained on?

    python eval/audit_vouching.py --run R [--seeds [1,2,3]] [--record NAME]

Labels are moved as in `eval/audit.py`, and looked for by the majority of the code prefix alone: by a tokenizer
like the run's, trained on the moved labels and on texts that hold them; by codes without labels (lambda 0, and
residual k-means); and by one that was taught the labels of the other half.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from audit import Row, figures, inject, line, prefix_scores
from pressmark import files
from pressmark.catalog.embeddings import embed, vectors_cache
from pressmark.catalog.items import read_catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.cli import guarded
from pressmark.evaluation.record import record
from pressmark.insight.categories.assemble import Shop, read_shop
from pressmark.insight.categories.folds import make_folds
from pressmark.insight.categories.leaves import Leaves, leaves_of
from pressmark.load import quiet_libraries
from pressmark.run_config import read_run
from pressmark.tokenizer import train
from pressmark.tokenizer.config import Config

LEVEL_SIZES = (64, 64, 64)


def study(shop: Shop, base: Leaves, vectors_config: Any, options: argparse.Namespace) -> list[Row]:
    """Majority of the SID prefix at 5 % noise: trained on labels, without, and cross-fitted in two parts."""
    config = dataclasses.replace(
        Config(),
        level_sizes=LEVEL_SIZES,
        training=dataclasses.replace(Config().training, num_epochs=options.epochs),
    )
    rows = []
    for kind in ("random", "sibling"):
        for seed in options.seeds:
            place = options.run / "audit_study" / f"vouching-{kind}-{seed}-{options.epochs}.json"
            if not place.is_file():
                leaves, moved = inject(base, 0.05, kind, seed)
                made = _by_codes(options.run, shop, leaves, moved, vectors_config, config, kind, seed)
                files.write_json(place, made)
            rows += files.read_json(place)
            for one in rows[-4:]:
                print(line(one), flush=True)
    return rows


def _by_codes(
    run: Path,
    shop: Shop,
    leaves: Leaves,
    moved: np.ndarray,
    vectors_config: Any,
    config: Config,
    kind: str,
    seed: int,
) -> list[Row]:
    """A row for each kind of codes."""
    named = [((*leaves.stripped, *leaves.paths[one]),) if one >= 0 else () for one in leaves.label]
    catalog = dataclasses.replace(shop.catalog, category=tuple(named))
    tree, every = build_taxonomy(catalog.category), np.arange(len(catalog))
    with tempfile.TemporaryDirectory() as scratch:
        # Only texts whose category moved are embedded anew.
        own, _ = embed(
            read_catalog(run / "data" / "items.parquet"),
            vectors_config,
            vectors_cache(run),
            np.ones(len(catalog), bool),
        )
        vectors = own.copy()
        if vectors_config.model != "tfidf":
            rows = np.flatnonzero(moved)
            vectors[rows] = embed(catalog.take(rows), vectors_config, Path(scratch), np.ones(len(rows), bool))[
                0
            ]

        def fit(x: np.ndarray, items: np.ndarray, at: Config) -> np.ndarray:
            # Each has a folder of its own: a checkpoint of another one is no place to go on from.
            place = Path(tempfile.mkdtemp(dir=scratch))
            return train.fit_quantizer(x, tree, items, at, seed, place)[0].encode(x)

        content = shop.content.vectors
        half = make_folds(leaves.label, seed, 2).fold
        scores = {"run_sids": prefix_scores(fit(vectors, every, config), leaves.label)}
        plain = dataclasses.replace(config, contrastive_weight=0.0)
        scores["lambda_0"] = prefix_scores(fit(content, every, plain), leaves.label)
        scores["residual_kmeans"] = prefix_scores(shop.plain_codes, leaves.label)
        parts = np.ones(len(catalog))
        for held in (0, 1):  # codes of a half from a quantizer taught by the other half's labels
            codes = fit(content, np.flatnonzero(half != held), config)
            crossed = prefix_scores(codes, leaves.label)
            parts[half == held] = crossed[half == held]
        scores["cross_fitted"] = parts
    known = leaves.labelled
    here = {"noise": 0.05, "kind": kind, "seed": seed}
    return [
        {**here, "method": f"prefix_{name}", **figures(score[known], moved[known])}
        for name, score in scores.items()
    ]


def main() -> None:
    """Runs the study and prints its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a prepared run")
    parser.add_argument("--seeds", type=json.loads, default=[1, 2, 3], help="seeds of the noise")
    parser.add_argument("--epochs", type=int, default=6, help="of each tokenizer")
    parser.add_argument("--record", default="", help="data set: writes eval/results/audit_vouching-<...>.json")
    options = parser.parse_args()
    quiet_libraries()
    _, config = read_run(options.run)
    shop = read_shop(options.run, config)
    found = {"rows": study(shop, leaves_of(shop.catalog), config, options)}
    if options.record:
        settings = {"vectors": dataclasses.asdict(config), "statement": shop.content.statement}
        command = shlex.join(["python", *sys.argv])
        record("audit_vouching", options.record, found, command, settings, options.seeds)
        print(f"recorded: eval/results/audit_vouching-{options.record}.json")


if __name__ == "__main__":
    guarded(main)
