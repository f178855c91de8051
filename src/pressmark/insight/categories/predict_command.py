"""`pressmark categorize`: a category for the products of a run that have none."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pressmark.catalog.embeddings import Config
from pressmark.catalog.items import Catalog
from pressmark.catalog.paths import CategoryPath, parse_category
from pressmark.files import read_lines, write_parquet
from pressmark.insight.categories import empty
from pressmark.insight.categories.assemble import (
    Shop,
    add_options,
    check_options,
    read_listed,
    read_shop,
    sources_of,
)
from pressmark.insight.categories.empty import Rehearsal
from pressmark.insight.categories.folds import make_folds
from pressmark.insight.categories.leaves import SEPARATOR, Leaves, leaves_of
from pressmark.insight.categories.pool import Pool
from pressmark.insight.categories.predict import Prediction, predict
from pressmark.insight.categories.sources import Names, Source
from pressmark.insight.terms.encoders import tower_reads_text

SCHEMA = pa.schema([("item_id", pa.string()), ("title", pa.string()), ("sure", pa.string()),
                    ("guess", pa.string()), ("confidence", pa.list_(pa.float64()))])  # fmt: skip


def categorize(arguments: Sequence[str], vectors: Config) -> None:
    """Runs the command.

    Args:
        arguments: Command line without the command.
        vectors: How the run embeds texts.

    Raises:
        ValueError: For a run or a file of leaves that cannot be used.
    """
    options = parser().parse_args(arguments)
    check_options(options)
    more = read_leaves(options.leaves) if options.leaves else []
    _, catalog = read_listed(options.run)
    leaves = leaves_of(catalog, more)
    rows = np.flatnonzero(~leaves.labelled)
    if held := already_held(more, catalog):
        first = SEPARATOR.join(held[0])
        print(f"mind: {len(held):,} paths of --leaves hold products already, first {first!r}: nothing new.")
    if not len(rows):
        write_parquet(options.out, pa.Table.from_pylist([], schema=SCHEMA))
        print(f"{options.run}: every product has a category; {options.out} holds none.")
        return
    shop = read_shop(options.run, vectors, options.trust_vectors, options.seed)
    print(f"content: {shop.content.statement}")
    pool, rehearsal = fit_pools(options.run, shop, leaves, options.seed)
    if pool.empty is None and (num_empty := int((leaves.counts == 0).sum())):
        print(f"mind: the {num_empty:,} empty categories are hardly ever suggested: {empty.TOO_FEW}")
    found = predict(pool, rehearsal, leaves, rows)
    depth = found.sure_depth(leaves, options.confidence)
    _write(options.out, shop, leaves, rows, found, depth)
    whole = int((depth == leaves.depth[found.leaf]).sum())
    print(
        f"{options.run}: {len(rows):,} products without a category: {whole:,} sure to the leaf, "
        f"{int((depth > 0).sum()) - whole:,} in part, {int((depth == 0).sum()):,} not even at the top"
    )
    print(options.out)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="pressmark categorize",
        description="A category for products that have none, as deep as it is sure.",
    )
    add_options(made, out="parquet to write")
    made.add_argument("--confidence", type=float, default=0.8, help="least, to be called sure (default: .8)")
    made.add_argument(
        "--leaves",
        type=Path,
        help="text: whole paths that hold no product yet, one a line: Dairy > Milk > Goat",
    )
    return made


def read_leaves(path: Path) -> list[CategoryPath]:
    """Paths of a text file, one a line, whole from the root.

    Raises:
        ValueError: If there is no such file, it is not UTF-8, there is no path in it, or a line cannot be read.
    """
    found: list[CategoryPath] = []
    for number, line in enumerate(read_lines(path, "--leaves"), start=1):
        where = f"--leaves {path}, line {number}, {line.strip()!r}"
        try:
            paths = parse_category(line).paths
        except ValueError as error:
            raise ValueError(f"{where}: {error}. Write a path such as Dairy > Milk > Goat.") from error
        listed = line.lstrip().startswith("[")
        if name := next((name for one in paths for name in one if ">" in name and not listed), ""):
            raise ValueError(
                f"{where}: {name!r} holds '>' without a space on both sides, so it would be one name. Write "
                'Dairy > Milk > Goat; a name that does hold it goes in a list: ["Dairy", "Low>Fat"].'
            )
        found += paths
    if not found:
        raise ValueError(f"--leaves {path}: no path in it; write one a line, such as Dairy > Milk > Goat.")
    return found


def already_held(more: Sequence[CategoryPath], catalog: Catalog) -> list[CategoryPath]:
    """Those of --leaves that products stand on: nothing is new about them."""
    held = {path for paths in catalog.category for path in paths}
    return [one for one in dict.fromkeys(more) if one in held]


def tower_names(run: Path, shop: Shop, leaves: Leaves) -> list[Names]:
    """Names and texts through the run's dual tower, where it reads text itself; [] where it does not."""
    if not tower_reads_text(run):
        return []
    from pressmark.dual_tower.recommend import load_dual_tower

    tower = load_dual_tower(run)
    names = tower.embed_texts([SEPARATOR.join(path) for path in leaves.paths])
    texts = tower.embed_texts(shop.content.texts)
    texts[[not text for text in shop.content.texts]] = 0  # it would have a place for "" too
    return [Names(texts, names, "tower")]


def fit_pools(run: Path, shop: Shop, leaves: Leaves, seed: int) -> tuple[Pool, Rehearsal]:
    """Every source that the run allows, as a pool that can name empty leaves too; see `empty.fit`."""
    tower = tower_names(run, shop, leaves)

    def ask(labels: Leaves) -> list[Source]:
        return [*sources_of(shop, labels, make_folds(labels.label, seed)), *tower]

    return empty.fit(ask, leaves, seed)


def _write(
    out: Path, shop: Shop, leaves: Leaves, rows: np.ndarray, found: Prediction, depth: np.ndarray
) -> None:
    records = []
    for at, item in enumerate(rows):
        path = leaves.paths[found.leaf[at]]
        records.append(
            {
                "item_id": str(shop.catalog.item_id[item]),
                "title": str(shop.catalog.title[item]),
                "sure": SEPARATOR.join((*leaves.stripped, *path[: depth[at]])) if depth[at] else "",
                "guess": leaves.name(int(found.leaf[at])),
                # One a name of the guess; those that all paths share are certain.
                "confidence": [1.0] * len(leaves.stripped) + found.confidence[at, : len(path)].tolist(),
            }
        )
    write_parquet(out, pa.Table.from_pylist(records, schema=SCHEMA))
