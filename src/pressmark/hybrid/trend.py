"""What sells now: how much of each product was bought lately, and for how long it has sold.

Generator, tower and words know what goes with a history, and nothing of the calendar. Asked ahead of its time
a shop's next purchases are told much better with it (eval/LOG.md). Time is counted in purchases of the whole
shop, not in days: the newest fiftieth of them is a week of one shop and a year of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pressmark.catalog.items import Catalog
from pressmark.files import read_parquet, write_parquet

PLACE = Path("hybrid") / "trend.parquet"
"""Where a run keeps what sells now, counted since it was trained; gone where the hybrid is fitted anew."""

SCHEMA = pa.schema(
    [("item_id", pa.string()), ("purchases", pa.int64()), ("trend", pa.float32()), ("age", pa.float32())]
)
"""Of that file."""

LATELY = 0.02
"""A purchase counts 1/e for each such share of all purchases that was made since."""

ONCE = 0.1
"""Purchases that every product is taken to have had besides, so that the logarithm of none is finite."""

AT_ONCE = 0.01
"""The same for the age, as a share of all purchases."""


@dataclass(frozen=True)
class Sales:
    """What is known, at some moment, of what sells.

    Attributes:
        purchases: (N,) int64 of each item.
        trends: (2, N) float32; 0 where no purchase of all has a time.
            trend: log of the purchases, each counted exp(- share of all purchases made after it / `LATELY`).
            age: log of the share of all purchases made after the item's first.
    """

    purchases: np.ndarray
    trends: np.ndarray


def count_sales(item: np.ndarray, timestamp: np.ndarray, num_items: int) -> Sales:
    """What sells, at the moment of the newest of P purchases; those without a time count as the oldest.

    Args:
        item: (P,) int64, what was bought.
        timestamp: (P,) float64 seconds, NaN where unknown.
        num_items: N.
    """
    purchases = np.bincount(item, minlength=num_items)
    known = ~np.isnan(timestamp)
    if not known.any():
        return Sales(purchases, np.zeros((2, num_items), np.float32))
    ordered = np.sort(timestamp[known])
    later = np.ones(len(timestamp))
    later[known] = 1 - np.searchsorted(ordered, timestamp[known], side="right") / len(ordered)
    lately = np.bincount(item, np.exp(-later / LATELY), num_items)
    age = np.zeros(num_items)
    np.maximum.at(age, item, later)
    return Sales(purchases, np.log(np.stack([lately + ONCE, age + AT_ONCE])).astype(np.float32))


def write_sales(run: Path, catalog: Catalog, sales: Sales) -> None:
    """Keeps what sells now for those who serve a run; an evaluation does not read it."""
    columns = [pa.array(catalog.item_id, pa.string()), pa.array(sales.purchases), *map(pa.array, sales.trends)]
    write_parquet(run / PLACE, pa.Table.from_arrays(columns, schema=SCHEMA))


def read_sales(run: Path, catalog: Catalog) -> Sales | None:
    """What `write_sales` kept of a run's catalog as it stands; None where nothing was.

    Products that were appended since have not sold.

    Raises:
        ValueError: If the file is damaged, or of other items.
    """
    path = run / PLACE
    if not path.is_file():
        return None
    again = "Delete it, or count again: `pressmark trend`."
    try:
        table = read_parquet(path)
    except ValueError as error:
        raise ValueError(f"{error} {again}") from error
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"{path}: its columns are not {', '.join(SCHEMA.names)} as they are written. {again}")
    named = table.column("item_id").to_pylist()
    if named != catalog.item_id[: len(named)].tolist():
        raise ValueError(f"{path}: not of this run's items. {again}")
    purchases, *scores = (table.column(name).to_numpy() for name in SCHEMA.names[1:])
    trends = np.stack(scores)
    if (
        any(column.null_count for column in table.columns)
        or not np.isfinite(trends).all()
        or (purchases < 0).any()
    ):
        raise ValueError(f"{path}: holds null, NaN, infinity or a number of purchases below 0. {again}")
    return padded(Sales(purchases, trends), len(catalog))


def padded(sales: Sales, num_items: int) -> Sales:
    """The same with more items behind, which nobody has bought."""
    more = num_items - len(sales.purchases)
    return Sales(np.pad(sales.purchases, (0, more)), np.pad(sales.trends, ((0, 0), (0, more))))
