"""The embedded default: a synthetic grocery store, the same for the same seed, with its truth kept apart.

`grocery_words` holds the words, `grocery_products` fills the shelves, `grocery_shoppers` lets people shop;
this file puts the result on disk as a user's own data would come, once as parquet and once as CSV.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pressmark import files
from pressmark.catalog import grocery_products, grocery_shoppers, grocery_words
from pressmark.catalog.grocery_products import Products, Store, fill_shelves
from pressmark.catalog.grocery_shoppers import Habits, Purchases, Shoppers, draw_shoppers, shop

FIRST_DAY = 1_735_689_600
"""Seconds since 1970 of the store's day 0: 2025-01-01 UTC."""
MAX_PRODUCTS = 10_000
_FILES = (
    "items.parquet",
    "interactions.parquet",
    "csv/items.csv",
    "csv/interactions.csv",
    "truth.parquet",
    "truth.safetensors",
    "truth.json",
)


@dataclass(frozen=True)
class Config:
    """Size and seed of the store; how people shop is fixed in `grocery_shoppers.Habits`."""

    num_products: int = 4000
    """Products, 40 to 10,000; below about 2,200 the store keeps fewer shelves, the recipes' first."""
    num_shoppers: int = 6000
    """Shoppers; each buys about 25 products a year."""
    months: int = 12
    """Months of purchases, from January."""
    seed: int = 0
    """Seed of everything drawn."""

    def __post_init__(self) -> None:
        limits = {"num_products": (40, MAX_PRODUCTS), "num_shoppers": (1, 90_000), "months": (1, 120)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"grocery.{name} is {getattr(self, name)}; it must be {low} to {high}.")


@dataclass(frozen=True)
class Truth:
    """What only the oracle and the audit's evaluation may read.

    Attributes:
        item_id: (N,) object str, sorted; rows of `store`.
        user_id: (U,) object str; rows of `shoppers`.
        true_category: Every product's right paths, also where the catalog has a wrong one or none.
        store, shoppers, purchases, habits: The generating distribution and what was drawn from it.
    """

    item_id: np.ndarray
    user_id: np.ndarray
    true_category: tuple[tuple[tuple[str, ...], ...], ...]
    store: Store
    shoppers: Shoppers
    purchases: Purchases
    habits: Habits


def write_grocery(folder: str | Path, config: Config) -> None:
    """Writes the store into `folder`; does nothing where the same store already stands there.

    Files: items.parquet and interactions.parquet; csv/items.csv and csv/interactions.csv, the same tables
    as an example of one's own data; truth.parquet, truth.safetensors and truth.json, which no stage reads.
    """
    folder = Path(folder)
    fingerprint = _fingerprint(config)
    if _is_written(folder, fingerprint):
        return
    # A run killed half-way must not leave new tables beside an old stamp.
    (folder / "grocery.json").unlink(missing_ok=True)
    num_days = round(config.months * 365 / 12)
    habits = Habits()
    products = fill_shelves(config.num_products, num_days, config.seed)
    shoppers = draw_shoppers(products.store, config.num_shoppers, habits, config.seed)
    purchases = shop(products.store, shoppers, num_days, habits, config.seed)
    rng = np.random.default_rng([config.seed, 4])
    user_id = np.array(
        [f"S{n}" for n in rng.choice(90_000, config.num_shoppers, replace=False) + 10_000], object
    )
    _write_tables(folder, products, purchases, user_id)
    _write_truth(folder, products, shoppers, purchases, habits, user_id)
    # Last, so that a killed run is written again.
    files.write_json(
        folder / "grocery.json",
        {
            "fingerprint": fingerprint,
            "config": dataclasses.asdict(config),
            "num_interactions": len(purchases.item),
        },
    )


def read_truth(folder: str | Path) -> Truth:
    """Reads the truth that `write_grocery` wrote.

    Raises:
        ValueError: If the folder holds no such store.
    """
    folder = Path(folder)
    if not (folder / "truth.json").exists():
        raise ValueError(
            f"{folder}: no truth.json. Only the synthetic store knows its truth; run `prepare` on it."
        )
    tensors = {
        name: tensor.numpy() for name, tensor in files.read_tensors(folder / "truth.safetensors").items()
    }
    described = files.read_json(folder / "truth.json")
    table = files.read_parquet(folder / "truth.parquet")

    def part(kind: Any, name: str) -> Any:
        return kind(**{f.name: tensors[f"{name}.{f.name}"] for f in dataclasses.fields(kind)})

    habits: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in described["habits"].items()
    }
    return Truth(
        item_id=np.array(table["item_id"].to_pylist(), object),
        user_id=np.array(described["user_id"], object),
        true_category=tuple(tuple(map(tuple, paths)) for paths in table["true_category"].to_pylist()),
        store=part(Store, "store"),
        shoppers=part(Shoppers, "shoppers"),
        purchases=part(Purchases, "purchases"),
        habits=Habits(**habits),
    )


def _fingerprint(config: Config) -> str:
    """Of the configuration and of the code that writes the store: the store is what its code says."""
    modules = (grocery_words, grocery_products, grocery_shoppers)
    sources = [Path(str(module.__file__)).read_text("utf-8") for module in modules]
    return files.fingerprint(dataclasses.asdict(config), Path(__file__).read_text("utf-8"), *sources)


def _is_written(folder: Path, fingerprint: str) -> bool:
    if not all((folder / name).exists() for name in (*_FILES, "grocery.json")):
        return False
    return files.read_json(folder / "grocery.json")["fingerprint"] == fingerprint


def _write_tables(folder: Path, products: Products, purchases: Purchases, user_id: np.ndarray) -> None:
    names = ("item_id", "title", "brand", "description", "size", "flavour", "tags")
    columns: dict[str, Any] = {name: pa.array(products.columns[name].tolist(), pa.string()) for name in names}
    paths = [[list(path) for path in paths] or None for paths in products.category]
    columns["category"] = pa.array(paths, pa.list_(pa.list_(pa.string())))
    items = pa.table(columns)
    interactions = _interactions(products.columns["item_id"], purchases, user_id)
    files.write_parquet(folder / "items.parquet", items)
    files.write_parquet(folder / "interactions.parquet", interactions)
    text = [" | ".join(" > ".join(path) for path in paths) or None for paths in products.category]
    column = items.schema.get_field_index("category")
    _write_csv(folder / "csv/items.csv", items.set_column(column, "category", pa.array(text, pa.string())))
    _write_csv(folder / "csv/interactions.csv", interactions)


def _interactions(item_id: np.ndarray, purchases: Purchases, user_id: np.ndarray) -> pa.Table:
    """The log in order of checkout; `position` counts a shopper's purchases from 0 in order of adding."""
    timestamp = FIRST_DAY + purchases.day * 86_400 + purchases.second
    first = np.searchsorted(purchases.shopper, purchases.shopper)
    position = np.arange(len(first)) - first
    order = np.lexsort((position, purchases.shopper, timestamp))
    return pa.table(
        {
            "user_id": pa.array(user_id[purchases.shopper[order]].tolist(), pa.string()),
            "item_id": pa.array(item_id[purchases.item[order]].tolist(), pa.string()),
            "timestamp": timestamp[order],
            "position": position[order],
        }
    )


def _write_csv(path: Path, table: pa.Table) -> None:
    from pyarrow import csv

    with files.replacing(path) as partial:
        csv.write_csv(table, partial)


def _write_truth(
    folder: Path,
    products: Products,
    shoppers: Shoppers,
    purchases: Purchases,
    habits: Habits,
    user_id: np.ndarray,
) -> None:
    parts: dict[str, Any] = {"store": products.store, "shoppers": shoppers, "purchases": purchases}
    tensors = {
        f"{name}.{field.name}": getattr(part, field.name)
        for name, part in parts.items()
        for field in dataclasses.fields(part)
    }
    files.write_tensors(folder / "truth.safetensors", tensors)
    paths = [[list(path) for path in paths] for paths in products.true_category]
    item_id = pa.array(products.columns["item_id"].tolist(), pa.string())
    column = pa.array(paths, pa.list_(pa.list_(pa.string())))
    files.write_parquet(folder / "truth.parquet", pa.table({"item_id": item_id, "true_category": column}))
    files.write_json(folder / "truth.json", {"user_id": user_id.tolist(), "habits": dataclasses.asdict(habits)})
