"""From a run folder to sources and a pool: what audit and category prediction have in common."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pressmark.catalog.embeddings import Config, read_vectors, vectors_cache
from pressmark.catalog.items import Catalog
from pressmark.insight.categories import sources
from pressmark.insight.categories.content import Content, content_of
from pressmark.insight.categories.folds import Folds
from pressmark.insight.categories.leaves import SEPARATOR, Leaves
from pressmark.insight.categories.neighbours import Neighbours, bought_together, nearest
from pressmark.insight.categories.pool import Pool, fit_pool
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split
from pressmark.tokenizer.rqkmeans import RQKMeans, RQKMeansConfig
from pressmark.tokenizer.state import Living, read_living

NUM_NEIGHBOURS = 30
NUM_LEVELS, MOST_CODES, ITEMS_A_CODE = 3, 256, 8


@dataclass(frozen=True)
class Shop:
    """What is read of a run, and what of it no label went into.

    Attributes:
        living: All products that the run ever had.
        rows: (N,) int64 which of them are listed today, appended ones included, removed ones not.
        catalog: These N products.
        content: Texts and vectors without the category.
        near: Nearest products by content.
        plain_codes: (N, L) int64 residual k-means over content: no label, no category's text went into them.
        together: Products bought together, or None where nothing was bought.
    """

    living: Living
    rows: np.ndarray
    catalog: Catalog
    content: Content
    near: Neighbours
    plain_codes: np.ndarray
    together: Neighbours | None


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """What both commands ask for; `out` says what is written."""
    parser.add_argument(
        "--run", type=Path, required=True, help="run folder, such as runs/grocery/cold_items/seed0"
    )
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument(
        "--trust-vectors", action="store_true", help="read vectors that were brought along, as they are"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn at random (default: 0)")


def check_options(options: argparse.Namespace) -> None:
    """Those of `add_options` and --confidence.

    Raises:
        ValueError: Where one cannot be used, or the folder of --out cannot be made.
    """
    if options.out.suffix != ".parquet" or options.out.is_dir():
        raise ValueError(f"--out {options.out}: name a file that ends in .parquet.")
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {options.out}: its folder cannot be made ({error}).") from error
    if not os.access(options.out.parent, os.W_OK):
        raise ValueError(f"--out {options.out}: its folder cannot be written to.")
    if not 0 <= options.confidence <= 1:
        raise ValueError(f"--confidence is {options.confidence}; it must lie in 0..1.")
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}; it must be 0 or more.")


def read_listed(run: Path) -> tuple[Living, Catalog]:
    """All products that a prepared run ever had, and those that it lists today.

    Raises:
        ValueError: If the run is not prepared.
    """
    if not (run / "data" / "items.parquet").is_file():
        raise ValueError(f"{run}: not a run folder (no data/items.parquet). Run `pressmark prepare` first.")
    living = read_living(run)
    return living, living.catalog.take(np.flatnonzero(living.listed))


def read_shop(run: Path, config: Config, trust: bool = False, seed: int = 0) -> Shop:
    """Reads a prepared run and embeds today's products without their category.

    Args:
        run: Run folder; its tokenizer need not be trained.
        config: The run's embedding.
        trust: Read vectors that were brought along as they are.
        seed: Of the k-means.

    Raises:
        ValueError: If the run is not prepared, or there is nothing to judge by.
    """
    living, catalog = read_listed(run)
    rows = np.flatnonzero(living.listed)
    own = all_vectors(run, living) if trust else None
    content = content_of(living, rows, config, vectors_cache(run), own)
    near = nearest(content.vectors, NUM_NEIGHBOURS)
    codes = plain_codes(content.vectors, seed)
    train = read_split(run / "data", living.own).train
    return Shop(living, rows, catalog, content, near, codes, _together(train, rows))


def all_vectors(run: Path, living: Living) -> np.ndarray:
    """(M, D) float32: the vectors that a run's own and appended products were tokenized by."""
    return np.concatenate([read_vectors(run), *(batch.vectors for batch in living.batches)])


def plain_codes(vectors: np.ndarray, seed: int) -> np.ndarray:
    """(N, L) int64 codes of residual k-means over (N, D) float32 vectors, about 8 products a first code.

    Vectors of zeros, of which there must be others too, get codes that mean nothing.
    """
    told = vectors[vectors.any(axis=1)]
    size = min(len(told), max(2, min(MOST_CODES, len(told) // ITEMS_A_CODE)))
    model = RQKMeans(RQKMeansConfig(vectors.shape[1], (size,) * NUM_LEVELS))
    model.fit(told, "shared", seed)
    return model.encode(vectors)


def _together(train: Histories, rows: np.ndarray) -> Neighbours | None:
    """Of the products at `rows`: a history passes over the others, and knows no appended one."""
    place = np.full(max(train.values.max(initial=0), rows.max(initial=0)) + 1, -1, np.int64)
    place[rows] = np.arange(len(rows))
    values = place[train.values]
    kept = values >= 0
    if not kept.any():
        return None
    found = bought_together(values[kept], train.row_of_value()[kept], len(rows), NUM_NEIGHBOURS)
    return found if (found.item_index >= 0).any() else None


def pool_of(shop: Shop, leaves: Leaves, folds: Folds, seed: int) -> Pool:
    """Fits the sources to the labels of `leaves`, and their weights to those of products with text.

    No source explains where a product without text stands: all of these would pass for wrong.
    """
    told = leaves.labelled & shop.content.told
    label = np.where(told, leaves.label, -1) if told.any() else leaves.label
    return fit_pool(sources_of(shop, leaves, folds), label, seed)


def sources_of(shop: Shop, leaves: Leaves, folds: Folds) -> list[sources.Source]:
    """Every source that the shop allows."""
    label, num = leaves.label, len(leaves)
    whole = [leaves.name(leaf) for leaf in range(num)]
    # Names that all share say nothing.
    names = shop.content.embed_names([SEPARATOR.join(path) for path in leaves.paths])
    votes = sources.nearness_votes(shop.near.weight)
    found: list[sources.Source] = [
        sources.Content(shop.content.vectors, folds, num, names),
        sources.Words(shop.content.texts, whole, folds),
        sources.Votes("neighbours", shop.near, votes, label, num),
        sources.Codes(shop.plain_codes, label, num, shop.content.told),
    ]
    if shop.together is not None:
        strength = sources.relative_votes(shop.together.weight)
        found.append(sources.Votes("together", shop.together, strength, label, num))
    if names is not None:
        found.append(sources.Names(shop.content.vectors, names))
    return found
