"""The log: who took which item, in which order; read from the user's file, checked and sorted."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pressmark.catalog import items, tables
from pressmark.catalog.items import Catalog, Columns
from pressmark.interactions.times import LATEST, looks_like_dates, parse_times

if TYPE_CHECKING:
    import polars as pl

MOSTLY = 0.9
"""A larger share of unknown items, or of times that cannot be read, is a mistake and not a gap: it stops."""
MANY = 0.1
"""From this share of unknown items on, an example is shown; from this share of rows dropped on, it is said."""

# What is counted while reading interactions -> the rule. Rows are dropped in this order.
RULES = {
    "interactions": "interactions kept",
    "interactions_read": "rows read",
    "interactions_without_user": "user_id null or empty: dropped",
    "interactions_without_item": "item_id null or empty: dropped",
    "interactions_unknown_item": "item_id not in the catalog: dropped",
    "interactions_duplicate": "same user, item, timestamp and position as an earlier row: dropped",
    "interactions_without_time": "timestamp null: kept, if position gives the order",
    "interactions_unparsable_time": "timestamp neither seconds nor ISO 8601: treated as null",
    "interactions_without_order": "neither position nor timestamp to place it among its user's: dropped",
    "interactions_unsorted": "rows standing behind a later one of their user: sorted",
    "users": "users",
    "users_with_one_interaction": "users with one interaction: they make no case",
    "users_with_two_interactions": "users with two interactions: they make no case, but as a session",
    "items_never_bought": "items without an interaction: they stay in the catalog",
}

SELDOM = ("interactions_without_user", "interactions_without_item", "interactions_without_order")
"""Rules that take few rows away, or something is wrong."""


@dataclass(frozen=True)
class Log:
    """M interactions, sorted by user_id, then by their order within the user.

    Attributes:
        user_id: (M,) object array of str.
        item_index: (M,) int64.
        timestamp: (M,) float64 seconds since 1970, NaN where unknown.
        position: (M,) int64, -1 where unknown.
        context: (M,) object array of str, where it took place, "" where unknown; None where no column says it.
    """

    user_id: np.ndarray
    item_index: np.ndarray
    timestamp: np.ndarray
    position: np.ndarray
    context: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert len(self.user_id) == len(self.item_index) == len(self.timestamp) == len(self.position)

    def __len__(self) -> int:
        return len(self.user_id)

    def user_offsets(self) -> np.ndarray:
        """(U + 1,) int64: user i's rows are offsets[i]:offsets[i + 1]."""
        starts = np.flatnonzero(self.user_id[1:] != self.user_id[:-1]) + 1
        return np.concatenate([[0] if len(self) else [], starts, [len(self)]]).astype(np.int64)


def load_interactions(folder: Path, columns: Columns, catalog: Catalog) -> tuple[Log, dict[str, int]]:
    """Reads, checks and sorts the user's `interactions.{parquet,csv,jsonl}`.

    A user's rows are ordered by position, then timestamp, then item_id; where fewer of the user's rows
    have a position than a timestamp, by timestamp, then item_id.

    Args:
        folder: Holds exactly one of the three files.
        columns: Names of the file's columns.
        catalog: The items; rows with other items are dropped.

    Returns:
        The log, and for each key of `RULES` how often its rule was applied.

    Raises:
        ValueError: For what cannot be used: no file or two, a missing column, no row, an id that is not
            UTF-8, a position that is no integer from 0 on, times that are not in seconds or mostly
            unreadable, items that are mostly unknown, or nothing left. The message says file, row, column,
            value, rule and what to do.
    """
    file = tables.find_table(folder, "interactions")
    columns = replace(columns, item_id=columns.interaction_item_id or columns.item_id)
    required = {"user_id": columns.user_id, "item_id": columns.item_id}
    order = {"timestamp": columns.timestamp, "position": columns.position}
    raw = tables.read_table(file, required, {**order, "context": columns.context})
    if not {"timestamp", "position"} & set(raw.columns):
        raise ValueError(
            f"{file}: neither a column {columns.timestamp!r} nor {columns.position!r} is there; "
            "one of them must give the order. Name it with --data.columns.timestamp or --data.columns.position."
        )
    counts = {"interactions_read": len(raw)}
    frame = _typed(raw, file, columns, counts)
    frame = _known(frame, file, columns, catalog, counts)
    frame = _ordered(frame, file, counts)
    log = Log(
        frame["user_id"].to_numpy(),
        frame["item_index"].to_numpy().astype(np.int64),
        frame["timestamp"].fill_null(float("nan")).to_numpy().copy(),
        frame["position"].fill_null(-1).to_numpy().copy(),
        frame["context"].fill_null("").to_numpy() if "context" in raw.columns else None,
    )
    per_user = np.diff(log.user_offsets())
    counts |= {
        "interactions": len(log),
        "interactions_without_time": int(np.isnan(log.timestamp).sum()),
        "users": len(per_user),
        "users_with_one_interaction": int((per_user == 1).sum()),
        "users_with_two_interactions": int((per_user == 2).sum()),
        "items_never_bought": int((np.bincount(log.item_index, minlength=len(catalog)) == 0).sum()),
    }
    for rule in SELDOM:
        if counts[rule] >= MANY * len(raw):
            print(f"mind: {counts[rule] / len(raw):.0%} of the interactions ({counts[rule]:,}): {RULES[rule]}.")
    return log, {rule: counts[rule] for rule in RULES}


def summary(counts: Mapping[str, int | float | str | bool]) -> str:
    """One table of what was read, dropped and hidden, for the end of `prepare`.

    Args:
        counts: From `load_items`, `load_interactions` and `Split.counts`, in this order.

    Returns:
        One line a count, numbers to the left; then the rules of both files that met nothing, then the
        split's settings.
    """
    rules = {**items.RULES, **RULES}
    settings = {key: value for key, value in counts.items() if type(value) is not int or key == "split_seed"}
    numbers = {key: f"{value:,}" for key, value in counts.items() if key not in settings and value}
    width = max(map(len, numbers.values()), default=1)
    lines = [f"{number:>{width}}  {rules.get(key, key.replace('_', ' '))}" for key, number in numbers.items()]
    nothing: dict[str, list[str]] = {}
    for key in counts:
        if key in rules and key not in numbers:
            kind, _, words = key.replace("_", " ").partition(" ")
            nothing.setdefault(kind, []).append(words)
    zeros = [f"{kind}: {', '.join(words)}" for kind, words in nothing.items()]
    given = [f"{key.removeprefix('split_')} {value}" for key, value in settings.items()]
    given.sort(key=lambda one: not one.startswith("protocol "))
    for head, parts in ((f"{0:>{width}}", "; ".join(zeros)), (" " * width, ", ".join(given))):
        lines += textwrap.wrap(
            parts, 100, initial_indent=f"{head}  ", subsequent_indent=" " * (width + 2), break_on_hyphens=False
        )
    return "\n".join(lines)


def _typed(raw: pl.DataFrame, file: Path, columns: Columns, counts: dict[str, int]) -> pl.DataFrame:
    """Columns row, user_id, item_id and context (String), timestamp (Float64), position (Int64)."""
    import polars as pl

    counts["interactions_unparsable_time"] = 0
    unknown = pl.Series([None] * len(raw))
    timestamp = _timestamps(raw, file, columns.timestamp, counts) if "timestamp" in raw.columns else unknown
    position = _positions(raw, file, columns.position) if "position" in raw.columns else unknown
    context = unknown.cast(pl.String)
    if "context" in raw.columns:
        context = tables.as_text(raw, "context", file, columns.context).str.strip_chars()
    return pl.DataFrame(
        {
            "row": raw[tables.ROW],
            "user_id": tables.read_ids(raw, "user_id", file, columns.user_id),
            "item_id": tables.read_ids(raw, "item_id", file, columns.item_id),
            "timestamp": timestamp.cast(pl.Float64),
            "position": position.cast(pl.Int64),
            "context": context,
        }
    )


def _timestamps(raw: pl.DataFrame, file: Path, column: str, counts: dict[str, int]) -> pl.Series:
    given = _given(raw, "timestamp", file, column)
    seconds = parse_times(given)
    unparsable = seconds.is_null() & given.is_not_null()
    counts["interactions_unparsable_time"] = int(unparsable.sum())
    if int(unparsable.sum()) > MOSTLY * int(given.is_not_null().sum()) or seconds.null_count() == len(seconds):
        rule = f"{int(unparsable.sum()):,} of {len(seconds):,} times cannot be read, this one first"
        remedy = "Write seconds since 1970 or ISO 8601, such as 2024-05-31T12:00:00Z."
        _stop_at_first(unparsable, raw, given, file, column, rule, remedy)
    rule = "a number is seconds since 1970, and this one lies beyond the year 5000"
    remedy = "If these are milliseconds, divide them by 1000; write dates as 2024-05-31."
    _stop_at_first(seconds.abs() > LATEST, raw, given, file, column, rule, remedy)
    if looks_like_dates(seconds):
        rule = "every time of the file reads as a date without hyphens, or as a second of 1970"
        _stop_at_first(seconds.is_not_null(), raw, given, file, column, rule, "Write dates as 2024-05-31.")
    return seconds


def _positions(raw: pl.DataFrame, file: Path, column: str) -> pl.Series:
    import polars as pl

    given = _given(raw, "position", file, column)
    number = given.cast(pl.Float64, strict=False)
    # Not through the float where the file has integers: these are exact beyond 2**53.
    whole = given.cast(pl.Int64, strict=False)
    whole = whole.zip_with(whole.is_not_null(), number.set(number % 1 != 0, None).cast(pl.Int64, strict=False))
    bad = given.is_not_null() & ((whole < 0) | whole.is_null() | (number % 1 != 0).fill_null(True))
    _stop_at_first(bad, raw, given, file, column, "a position is an integer from 0 on", "Correct or empty it.")
    return whole


def _given(raw: pl.DataFrame, name: str, file: Path, column: str) -> pl.Series:
    """A column of numbers, dates or stripped strings; null for NaN and "" too."""
    import polars as pl

    values = raw[name]
    if values.dtype.is_float():
        return values.fill_nan(None)
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        return values
    text = tables.as_text(raw, name, file, column).str.strip_chars()
    return text.to_frame().select(pl.when(pl.col(name) != "").then(name)).to_series()


def _stop_at_first(
    bad: pl.Series, raw: pl.DataFrame, given: pl.Series, file: Path, column: str, rule: str, remedy: str
) -> None:
    rows = bad.fill_null(False).arg_true()
    if len(rows):
        row = int(rows[0])
        raise tables.unusable(file, int(raw[tables.ROW][row]), column, given[row], rule, remedy)


def _known(
    frame: pl.DataFrame, file: Path, columns: Columns, catalog: Catalog, counts: dict[str, int]
) -> pl.DataFrame:
    """Rows with a user and an item of the catalog, with `item_index`, and `user`: the rank of user_id."""
    import polars as pl

    with_user = frame.filter(pl.col("user_id").is_not_null())
    with_item = with_user.filter(pl.col("item_id").is_not_null())
    index = pl.DataFrame(
        {"item_id": pl.Series(catalog.item_id.tolist(), dtype=pl.String), "item_index": np.arange(len(catalog))}
    )
    users = with_item.select(pl.col("user_id").unique().sort()).with_row_index("user")
    known = with_item.join(index, on="item_id", maintain_order="left")
    known = known.join(users, on="user_id", maintain_order="left").drop("item_id")
    counts["interactions_without_user"] = len(frame) - len(with_user)
    counts["interactions_without_item"] = len(with_user) - len(with_item)
    counts["interactions_unknown_item"] = len(with_item) - len(known)
    num_unknown = counts["interactions_unknown_item"]
    if with_item.is_empty():
        rule, remedy = "not one row of the file has both a user and an item", "Fill both columns."
        raise tables.unusable(file, int(frame["row"][0]), columns.item_id, None, rule, remedy)
    if num_unknown >= MANY * len(with_item):
        lost = with_item.join(index, on="item_id", how="anti", maintain_order="left")
        value, row = lost["item_id"][0], int(lost["row"][0])
        near = difflib.get_close_matches(value, catalog.item_id[:10_000].tolist(), 1, 0.0)
        if known.is_empty() or num_unknown > MOSTLY * len(with_item):
            remedy = (
                f"Check that both files mean the same ids (the catalog has {near[0]!r}; leading zeros and "
                "spaces count), or take rows of other products out."
            )
            rule = f"{num_unknown:,} of {len(frame):,} rows name an item that the catalog lacks, this one first"
            raise tables.unusable(file, row, columns.item_id, value, rule, remedy)
        print(
            f"mind: {num_unknown / len(with_item):.0%} of the interactions ({num_unknown:,}) name an item that "
            "the catalog lacks and are dropped. "
            f"The first is {value!r} (row {row}); the catalog has {near[0]!r}."
        )
    return known


def _ordered(frame: pl.DataFrame, file: Path, counts: dict[str, int]) -> pl.DataFrame:
    """Distinct rows that have a place, sorted by user and place."""
    import polars as pl

    # By the number of the user, not by the string: several times faster.
    row = ["user", "item_index", "timestamp", "position"]
    distinct = frame.unique(row, keep="first", maintain_order=True)
    by_position = pl.col("position").count().over("user") >= pl.col("timestamp").count().over("user")
    # `place` is null where the order is by time, so that one sort serves both kinds of users.
    distinct = distinct.with_columns(
        place=pl.when(by_position).then("position"),
        key=pl.when(by_position).then(pl.col("position").cast(pl.Float64)).otherwise("timestamp"),
    )
    placed = distinct.filter(pl.col("key").is_not_null())
    if placed.is_empty():
        raise ValueError(
            f"{file}: not one row has a timestamp or a position, so nothing can be ordered. Fill one of them."
        )
    # Rows alike but for times that could not be read are no duplicates; they have no place either.
    nowhere = pl.all_horizontal(pl.col("timestamp", "position").is_null()).sum()
    unreadable = frame.select(nowhere).item() - distinct.select(nowhere).item()
    counts["interactions_duplicate"] = len(frame) - len(distinct) - unreadable
    counts["interactions_without_order"] = len(distinct) - len(placed) + unreadable
    backwards = pl.col("key") < pl.col("key").cum_max().over("user")
    counts["interactions_unsorted"] = int(placed.select(backwards.sum()).item())
    return placed.sort("user", "place", "timestamp", "item_index")
