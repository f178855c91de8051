"""Can products without a category be given one? Products are hidden from their leaves, then whole leaves.

    python eval/categorize.py --run R [--seeds [1,2,3]] [--record NAME]

`products`: a tenth of the labelled products lose their label. `leaves`: all products of some leaves with 5 to
50 products lose it (a tenth of such leaves), and the leaves' names are known: only names can find them. There
`*_among_empty` chooses among the empty leaves alone.
Accuracy at depth d is of the first d names, over products whose path is at least as long. Beside it: the vote
of 30 nearest products, and a logistic regression over the same vectors; both may be right above a leaf that
they cannot name.
"""

import argparse
import dataclasses
import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import files
from pressmark.cli import guarded
from pressmark.evaluation.record import record
from pressmark.insight.categories.assemble import Shop, read_shop
from pressmark.insight.categories.leaves import Leaves, leaves_of
from pressmark.insight.categories.predict import descend, predict
from pressmark.insight.categories.predict_command import fit_pools
from pressmark.load import quiet_libraries
from pressmark.run_config import read_run

SURE = 0.8
Row = dict[str, Any]


def hidden_rows(leaves: Leaves, what: str, seed: int) -> np.ndarray:
    """(n,) int64 products whose label is taken away."""
    rng = np.random.default_rng([seed, 12])
    if what == "products":
        known = np.flatnonzero(leaves.labelled)
        return np.sort(rng.choice(known, len(known) // 10, replace=False))
    some = np.flatnonzero((leaves.counts >= 5) & (leaves.counts <= 50))
    chosen = rng.choice(some, max(1, len(some) // 10), replace=False)
    return np.flatnonzero(np.isin(leaves.label, chosen))


def accuracy(leaves: Leaves, guess: np.ndarray, right: np.ndarray) -> list[Row]:
    """At every depth, and of the leaf."""
    same = leaves.groups[:, guess] == leaves.groups[:, right]
    rows = [{"depth": "leaf", "num": len(right), "accuracy": float((guess == right).mean())}]
    for depth in range(len(leaves.groups)):
        deep = leaves.depth[right] > depth
        if not deep.any():
            continue
        rows.append(
            {"depth": str(depth + 1), "num": int(deep.sum()), "accuracy": float(same[depth][deep].mean())}
        )
    return rows


def regression(shop: Shop, leaves: Leaves, rows: np.ndarray) -> np.ndarray:
    """(n,) leaves of a logistic regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        known = np.flatnonzero(leaves.labelled)
        model = LogisticRegression(C=10, max_iter=60).fit(shop.content.vectors[known], leaves.label[known])
    return np.asarray(model.predict(shop.content.vectors[rows]))


def vote(shop: Shop, leaves: Leaves, rows: np.ndarray) -> np.ndarray:
    """(n,) leaves with most of the weighted votes of the nearest products."""
    index, weight = shop.near.item_index[rows], np.exp(shop.near.weight[rows] / 0.07)
    votes = np.zeros((len(rows), len(leaves)))
    row, place = np.nonzero((index >= 0) & (leaves.label[index] >= 0))
    np.add.at(votes, (row, leaves.label[index[row, place]]), weight[row, place])
    return votes.argmax(axis=1)


def rows_of(run: Path, shop: Shop, base: Leaves, what: str, seed: int) -> list[Row]:
    """One row a method and depth, and how far `pressmark` was sure."""
    rows = hidden_rows(base, what, seed)
    right, label = base.label[rows], base.label.copy()
    label[rows] = -1
    leaves = dataclasses.replace(base, label=label)
    pool, rehearsal = fit_pools(run, shop, leaves, seed)
    found = predict(pool, rehearsal, leaves, rows)
    guesses = {"pressmark": found.leaf, "neighbours_vote": vote(shop, leaves, rows),
               "logistic_regression": regression(shop, leaves, rows)}  # fmt: skip
    guesses |= {f"{one.name}_alone": descend(np.exp(one(rows)), leaves)[0]
                for one in pool.sources if one.name in ("names", "tower")}  # fmt: skip
    here = {"hidden": what, "seed": seed}
    if what == "leaves":  # right where it is known that the leaf is an empty one: how far names carry
        empty, asked = np.flatnonzero(leaves.counts == 0), {"pressmark": pool(rows)}
        asked |= {one.name: one(rows) for one in pool.sources if one.name == "names"}
        guesses |= {f"{k}_among_empty": empty[v[:, empty].argmax(axis=1)] for k, v in asked.items()}
    made = [
        {**here, "method": name, **one}
        for name, guess in guesses.items()
        for one in accuracy(leaves, guess, right)
    ]
    depth = found.sure_depth(leaves, SURE)
    sure = depth > 0
    last = np.maximum(depth - 1, 0)
    same = leaves.groups[last, found.leaf] == leaves.groups[last, right]
    whole = depth >= leaves.depth[found.leaf]
    figures = {
        "num": len(rows),
        "accuracy": float(same[sure].mean()) if sure.any() else 0.0,
        "share_sure": float(sure.mean()),
        "share_to_the_leaf": float(whole.mean()),
        "mean_depth": float(depth.mean()),
        "mean_depth_right": float(base.depth[right].mean()),
    }
    made.append({**here, "method": "pressmark_sure", "depth": "sure", **figures})
    return made


def main() -> None:
    """Runs the study and prints its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a prepared run")
    parser.add_argument("--seeds", type=json.loads, default=[1, 2, 3], help="seeds; 0 was for choosing")
    parser.add_argument("--record", default="", help="data set: writes eval/results/categories-<data set>.json")
    options = parser.parse_args()
    quiet_libraries()
    _, config = read_run(options.run)
    shop = read_shop(options.run, config)
    base = leaves_of(shop.catalog)
    rows = []
    for seed in options.seeds:
        for what in ("products", "leaves"):
            place = options.run / "categories_study" / f"{what}-{seed}.json"
            if not place.is_file():
                files.write_json(place, rows_of(options.run, shop, base, what, seed))
            rows += files.read_json(place)
            for one in files.read_json(place):
                name = f"{what:9}{seed:2} {one['method']:20}{one['depth']:>5}"
                print(f"{name}{one['num']:7,} {one['accuracy']:.3f}", flush=True)
    if options.record:
        settings = {"vectors": dataclasses.asdict(config), "statement": shop.content.statement, "sure": SURE}
        record("categories", options.record, rows, shlex.join(["python", *sys.argv]), settings, options.seeds)


if __name__ == "__main__":
    guarded(main)
