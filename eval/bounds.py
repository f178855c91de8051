"""What limits a model on new products: its routing, or its ranking?

    python eval/bounds.py --run RUN [--run RUN ...] [--record NAME]

From the lists that an evaluation has written, recall at 10 of each model

- as it is, in the full ranking;
- with perfect routing: each case asked among the products of its target's kind alone, cold or warm, in the
  model's own order. A warm list is the full one without its cold items, exact while ten warm ones stand in it;
- with perfect ranking: a hit where any place of the first ten goes to the target's kind, as if the best of that
  kind always were the target.

Scores of hybrid and baselines are of every product: there are no beams in them to be lost.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded
from pressmark.evaluation.lists import read_lists
from pressmark.evaluation.record import record
from pressmark.interactions.split_files import read_split
from pressmark.recommender import Recommendations

K = 10
Row = dict[str, Any]


def hits(lists: Recommendations, target: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """(C,) bool: is the target among the first ten, of those items that are `kept` (N,) bool?"""
    valid = lists.item_index >= 0
    if kept is not None:
        valid &= kept[np.where(valid, lists.item_index, 0)]
    place = np.cumsum(valid, axis=1)
    return ((lists.item_index == target[:, None]) & valid & (place <= K)).any(axis=1)


def bounds_of(run: Path) -> dict[str, dict[str, np.ndarray]]:
    """Model -> figure -> (C,) bool a case; and under "cases" which of them are cold."""
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    cases = split.test.take(~split.test.target_in_history())
    cases = cases.take(np.argsort(cases.case_id, kind="stable"))
    found = {"cases": {"cold": cases.cold}}
    folder = run / "evaluation"
    if not list((folder / "full").glob("*.parquet")):
        raise ValueError(f"{folder} holds no lists: run eval/cold_start.py for this run first.")
    for path in sorted((folder / "full").glob("*.parquet")):
        full = read_lists(path, cases.case_id, catalog)
        only = read_lists(folder / "cold_only" / path.name, cases.case_id, catalog)
        first = (np.arange(full.item_index.shape[1]) < K) & (full.item_index >= 0)
        is_cold = split.cold[np.where(full.item_index < 0, 0, full.item_index)]
        of_kind = np.where(cases.cold, hits(only, cases.target), hits(full, cases.target, ~split.cold))
        found[path.stem] = {
            "as_it_is": hits(full, cases.target),
            "perfect_routing": of_kind,
            "perfect_ranking": (first & (is_cold == cases.cold[:, None])).any(axis=1),
        }
    return found


def rows_of(runs: list[Path]) -> list[Row]:
    """One row a model and kind of case, over all runs."""
    found = [bounds_of(run) for run in runs]
    rows: list[Row] = []
    for model in [name for name in found[0] if name != "cases" and all(name in one for one in found)]:
        for kind in ("cold", "warm"):
            inside = [one["cases"]["cold"] == (kind == "cold") for one in found]
            row: Row = {"model": model, "cases": kind, "num_cases": int(sum(one.sum() for one in inside))}
            for figure in found[0][model]:
                values = np.concatenate(
                    [one[model][figure][own] for one, own in zip(found, inside, strict=True)]
                )
                row[figure] = float(values.mean())
            rows.append(row)
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="an evaluated cold_items run")
    parser.add_argument("--record", default="", help="data set: writes eval/results/bounds-<data set>.json")
    options = parser.parse_args()
    rows = rows_of(options.run)
    print(f"{'':26}{'cases':>6}{'as it is':>11}{'routing':>10}{'ranking':>10}")
    for row in rows:
        line = f"{row['model']:20}{row['cases']:>6}{row['num_cases']:>6}"
        print(
            line + "".join(f"{row[one]:>10.4f}" for one in ("as_it_is", "perfect_routing", "perfect_ranking"))
        )
    if options.record:
        written = [yaml.safe_load((run / "config.yaml").read_text("utf-8")) for run in options.run]
        seeds = [int(one["experiment"]["seed"]) for one in written]
        record("bounds", options.record, rows, shlex.join(["python", *sys.argv]), {"k": K}, seeds)


if __name__ == "__main__":
    guarded(main)
