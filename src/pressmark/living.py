"""The commands for a catalog that lives: `pressmark tokenize`, `pressmark trend` and `pressmark churn`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pressmark import distributed
from pressmark.files import holding, read_lines, write_json
from pressmark.tokenizer import drift

if TYPE_CHECKING:
    from pressmark.catalog.items import Catalog, Columns

MOST = 10
"""Products that `pressmark trend` names."""


def tokenize(arguments: list[str]) -> None:
    """`pressmark tokenize --run R (--items FILE --append | --items FOLDER --out FOLDER | --remove FILE)`."""
    parser = argparse.ArgumentParser(
        prog="pressmark tokenize",
        description="SIDs for new products of a trained run, without touching an old one; the nearest SIDs of "
        "a folder of products, on any number of processes; or removes products.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder with a trained tokenizer")
    parser.add_argument(
        "--items",
        type=Path,
        help="new products, columns as the run's: .parquet, .csv, .jsonl; or a folder of .parquet shards, "
        "which may hold `item_id` and `vector` instead",
    )
    parser.add_argument("--append", action="store_true", help="give the products of --items SIDs")
    parser.add_argument(
        "--out", type=Path, help="with a folder: folder for item_id and sid; the run stays as it is"
    )
    parser.add_argument(
        "--vectors", type=Path, help="vectors of the new products, where the run's are precomputed"
    )
    parser.add_argument(
        "--keep-changed",
        action="store_true",
        help="pass over known products whose content has changed",
    )
    parser.add_argument(
        "--remove", type=Path, help="products to withdraw: .txt, one id a line, or a table with their ids"
    )
    parser.add_argument("--free", action="store_true", help="with --remove: let new products have their SIDs")
    for one in fields(drift.Thresholds):
        kind = type(one.default)
        parser.add_argument(f"--drift.{one.name}", type=kind, default=one.default, metavar=kind.__name__)
    options = parser.parse_args(arguments)
    if options.out:
        from pressmark.tokenizing import tokenize_folder

        if not options.items or options.append or options.remove:
            raise ValueError("--out FOLDER goes with --items FOLDER, and with neither --append nor --remove.")
        tokenize_folder(options.run, options.items, options.out)
        return
    _alone("--append and --remove change the run: start one process. --out FOLDER shares work.")
    if bool(options.items) != options.append:
        raise ValueError("--items FILE and --append go together: new products are appended, nothing else.")
    if bool(options.items) == bool(options.remove):
        raise ValueError("give either --items FILE --append or --remove FILE.")
    for name, with_it in (("free", "remove"), ("vectors", "items"), ("keep_changed", "items")):
        if getattr(options, name) and not getattr(options, with_it):
            raise ValueError(f"--{name.replace('_', '-')} goes with --{with_it} only.")
    if options.items:
        _append(options)
    else:
        _remove(options)


def trend(arguments: list[str]) -> None:
    """`pressmark trend --run R --interactions FOLDER`."""
    from pressmark.hybrid.trend import count_sales, write_sales
    from pressmark.interactions.log import load_interactions
    from pressmark.interactions.split_files import read_split
    from pressmark.run_config import read_run
    from pressmark.tokenizer.state import read_living

    parser = argparse.ArgumentParser(
        prog="pressmark trend",
        description="Counts what sells now, for `pressmark recommend` and `pressmark.load`. Nothing is "
        "trained; a hybrid that is fitted anew is without it until it is counted again.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder with a fitted hybrid")
    parser.add_argument(
        "--interactions",
        type=Path,
        required=True,
        help="folder of interactions.{parquet,csv,jsonl}, columns as the run's: every purchase up to now",
    )
    options = parser.parse_args(arguments)
    _alone("pressmark trend changes the run: start one process.")
    run, folder = options.run, options.interactions
    columns, _ = read_run(run)
    if not (run / "hybrid" / "config.json").is_file():
        raise ValueError(f"{run} holds no hybrid, which alone reads a trend: run src/train_hybrid.py first.")
    if not folder.is_dir():
        raise ValueError(f"--interactions {folder}: no such folder.")
    with holding(run / "hybrid", "pressmark trend") as take:
        take(False)
        living = read_living(run)
        shop = living.catalog
        log, _ = load_interactions(folder, columns, shop)
        timed = ~np.isnan(log.timestamp)
        if not timed.any():
            raise ValueError(
                f"{folder}: not one interaction has a timestamp, so nothing says what sells now. "
                "The column's name is data.columns.timestamp of the run."
            )
        sales = count_sales(log.item_index, log.timestamp, len(shop))
        known = len(read_split(run / "data", living.own).purchases("test")[0])
        now = int(sales.purchases[: living.num_own].sum())
        if now < known:
            raise ValueError(
                f"{folder}: {now:,} purchases of products of {run}, which knows {known:,} itself. Give "
                "every purchase up to now, the old ones too."
            )
        write_sales(run, shop, sales)
    newest = np.datetime64(int(log.timestamp[timed].max()), "s")
    print(f"{run}: what sells now, of {len(log):,} purchases up to {str(newest).replace('T', ' ')}. Most:")
    selling = np.flatnonzero((sales.purchases > 0) & living.listed)
    for item in selling[np.argsort(-sales.trends[0, selling], kind="stable")][:MOST]:
        print(f"  {shop.item_id[item]}  {shop.title[item] or '(no title)'}")


def _alone(message: str) -> None:
    """Raises a ValueError where several processes were started."""
    if "WORLD_SIZE" in os.environ and distributed.start().num_processes > 1:
        raise ValueError(message)


def churn(arguments: list[str]) -> None:
    """`pressmark churn --old A --new B`."""
    from pressmark.tokenizer.churn import churn as compare
    from pressmark.tokenizer.churn import find_register, table_of

    parser = argparse.ArgumentParser(
        prog="pressmark churn", description="Which share of the products changed its SID, by prefix length."
    )
    for side in ("old", "new"):
        parser.add_argument(
            f"--{side}", type=Path, required=True, help="run folder, tokenizer folder or sids.parquet"
        )
        parser.add_argument(f"--{side}-version", type=int, help="version of it (default: the latest)")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args(arguments)
    report = compare(
        find_register(options.old, options.old_version), find_register(options.new, options.new_version)
    )
    if options.out:
        write_json(options.out, {"old": str(options.old), "new": str(options.new), **report})
    print(table_of(report))


def embedder(run: Path, path: Path | None = None) -> tuple[Columns, Callable[[Catalog], np.ndarray]]:
    """How a run reads items, and what gives new ones (n, D) float32 vectors of its embedding.

    Args:
        run: The run folder.
        path: The new items' vectors, where the run's are precomputed.
    """
    from pressmark.catalog.embeddings import read_vectors, vectors_cache
    from pressmark.catalog.items import read_catalog
    from pressmark.catalog.later_vectors import embed_later
    from pressmark.interactions.split_files import read_split
    from pressmark.run_config import read_run

    columns, vectors = read_run(run)

    def embed(new: Catalog) -> np.ndarray:
        own = read_catalog(run / "data" / "items.parquet")
        fitted_on = read_split(run / "data", own).fitted_on
        return embed_later(new, own, read_vectors(run), fitted_on, vectors, vectors_cache(run), path)

    return columns, embed


def _append(options: argparse.Namespace) -> None:
    from pressmark.catalog.items import load_items_file
    from pressmark.load import quiet_libraries
    from pressmark.tokenizer.lifecycle import append

    limits = drift.Thresholds(
        **{one.name: getattr(options, f"drift.{one.name}") for one in fields(drift.Thresholds)}
    )
    run = options.run
    columns, embed = embedder(run, options.vectors)
    items, rules = load_items_file(options.items, columns)
    quiet_libraries()
    version = append(run, items, embed, limits, options.keep_changed)
    counts = version.counts
    if not counts["appended"] and not counts["restored"]:
        print(f"{run}: nothing to append, still version {version.version} ({_passed_over(counts)})")
        return
    print(
        f"{run}: version {version.version}, {counts['appended']:,} products appended, "
        f"{version.num_listed:,} listed" + (f" ({_passed_over(counts)})" if _passed_over(counts) else "")
    )
    for rule in ("items_duplicate_id", "items_without_title", "items_without_category"):
        if rules[rule]:
            print(f"mind: {rules[rule]:,} {rule.removeprefix('items_').replace('_', ' ')} in {options.items}")
    if "drift" in version.details:
        print(_drift_table(version.details["drift"]))


def _passed_over(counts: dict[str, int]) -> str:
    parts = [
        f"{counts['skipped']:,} skipped, they have SIDs" if counts["skipped"] else "",
        f"{counts['changed']:,} kept as they were, their content changed" if counts["changed"] else "",
        f"{counts['restored']:,} listed again under their old SIDs" if counts["restored"] else "",
    ]
    return "; ".join(filter(None, parts))


def _drift_table(found: dict[str, Any]) -> str:
    this, total = found["this_append"], found["all_appended"]
    levels = range(1, sum(name.startswith("usage_most_") for name in this) + 1)
    rows = [
        ("products", "num_items", "", "{:,}"),
        ("median error, times training's", "error_median", "chance_median", "{:.2f}"),
        ("90 % quantile of the error", "error_q90", "chance_q90", "{:.2f}"),
        ("beyond training's 99 %", "share_beyond", "expected_beyond", "{:.1%}"),
        ("nearest SID was taken", "share_relocated", "expected_relocated", "{:.1%}"),
        *((f"code use, level {one}, in bits", f"usage_{one}", f"usage_most_{one}", "{:.2f}") for one in levels),
    ]
    lines = [f"{'':32}{'this append':>12}{'all appended':>14}{'as training':>15}"]
    for words, name, known, form in rows:
        as_training = form.format(this[known]) if known else ""
        if known and not known.startswith("expected"):
            as_training = "up to " + as_training
        line = f"{words:32}{form.format(this[name]):>12}{form.format(total[name]):>14}{as_training:>15}"
        lines.append(line.rstrip())
    lines.append(
        f"(as training: what {this['num_items']:,} items like its {found['compared_with']} would show)"
    )
    return "\n".join([*lines, f"verdict: {found['verdict']}", *(f"- {one}" for one in found["reasons"])])


def _remove(options: argparse.Namespace) -> None:
    from pressmark.tokenizer.lifecycle import remove

    version = remove(options.run, read_ids(options.remove, "--remove"), options.free)
    counts = version.counts
    if not version.details:
        print(f"{options.run}: nothing to remove, still version {version.version}")
        return
    print(
        f"{options.run}: version {version.version}, {counts['removed']:,} products removed, "
        f"{counts['removed_before']:,} were before; {version.num_listed:,} listed"
    )
    freed = version.details["freed"]
    if not freed:
        print("their SIDs stay reserved (--free gives them to new products)")
    for item_id, sid in list(freed.items())[:20]:
        print(f"freed: {sid} (was {item_id})")
    if len(freed) > 20:
        print(f"freed: {len(freed) - 20:,} more, named in {options.run / 'tokenizer' / 'manifest.json'}")


def read_ids(path: Path, option: str) -> list[str]:
    """Item ids of a text file, one a line, or of a table's item_id column.

    Raises:
        ValueError: If there is no such file, or no id in it.
    """
    from pressmark.catalog import tables

    if path.suffix != ".txt":
        tables.check_format(path)
        frame = tables.read_table(path, {"item_id": "item_id"}, {})
        ids = tables.read_ids(frame, "item_id", path, "item_id").drop_nulls().to_list()
    else:
        ids = [line for line in read_lines(path, option) if line.strip()]
    if not ids:
        raise ValueError(f"{option} {path}: no id in it; write one item_id a line.")
    return [one.removesuffix("\r") for one in ids]
