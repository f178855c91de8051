"""Do the codes of a run vouch for the labels that they were trained on? A part of eval/audit.py, --vouching."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from audit import Row, figures, inject, line, prefix_scores
from pressmark import files
from pressmark.catalog.embeddings import embed, vectors_cache
from pressmark.catalog.items import read_catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.insight.categories.assemble import Shop
from pressmark.insight.categories.folds import make_folds
from pressmark.insight.categories.leaves import Leaves
from pressmark.run_config import read_run
from pressmark.tokenizer import train
from pressmark.tokenizer.config import Config

LEVEL_SIZES = (64, 64, 64)


def vouching(run: Path, shop: Shop, base: Leaves, options: argparse.Namespace) -> list[Row]:
    """Majority of the SID prefix at 5 % noise: trained on labels, without, and cross-fitted in two parts."""
    _, vectors_config = read_run(run)
    config = dataclasses.replace(
        Config(),
        level_sizes=LEVEL_SIZES,
        training=dataclasses.replace(Config().training, num_epochs=options.epochs),
    )
    rows = []
    for kind in ("random", "sibling"):
        for seed in options.seeds:
            place = options.scratch / f"vouching-{kind}-{seed}-{options.epochs}.json"
            if not place.is_file():
                leaves, moved = inject(base, 0.05, kind, seed)
                files.write_json(place, _vouching(run, shop, leaves, moved, vectors_config, config, kind, seed))
            rows += files.read_json(place)
            for one in rows[-4:]:
                print(line(one), flush=True)
    return rows


def _vouching(run: Path, shop: Shop, leaves: Leaves, moved: np.ndarray, vectors_config: Any, config: Config,
              kind: str, seed: int) -> list[Row]:  # fmt: skip
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
