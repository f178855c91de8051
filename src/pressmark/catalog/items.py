"""The catalog: what every product is, one row an item."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pressmark.catalog import tables
from pressmark.catalog.paths import CategoryPath, ParsedCategory, parse_category
from pressmark.files import fingerprint, read_parquet, write_parquet

if TYPE_CHECKING:
    import polars as pl

# What looks like a separator of category paths that lacks its spaces.
_JOINED = re.compile(r"[\w)][>|][\w(]")
_FIXED = ("item_id", "title", "brand", "category")

# What is counted while reading items -> the rule; the summary at the end of `prepare` shows both.
RULES = {
    "items": "items in the catalog",
    "items_duplicate_id": "rows with an item_id seen before: the first row is kept",
    "items_without_title": "title null or blank: the item is kept without one",
    "items_without_brand": "brand null or blank: the item is kept without one",
    "items_without_category": "category missing: the item is kept, its relation to others is unknown",
    "items_ragged_category": "paths of another depth than the commonest: kept as they are",
    "items_several_paths": "items with several category paths: all are kept",
    "items_empty_segment": "empty names in category paths: left out, the path closes up",
    "items_repeated_path": "category paths given twice for an item: one is kept",
    "items_joined_names": "category names with > or | but no space beside it: kept as one name",
    "items_absent_columns": "text column that the file lacks (description): taken as empty",
    "items_not_utf8": "values with bytes that are not UTF-8: each such byte became U+FFFD",
}


@dataclass(frozen=True)
class Columns:
    """Names of the columns in the user's own files.

    Attributes:
        item_id: Key of an item, in both files.
        interaction_item_id: The same in `interactions`, where it is called otherwise there; "" = as item_id.
        title: Title of an item.
        category: List from root to leaf, a list of such lists, or one string: "Dairy > Milk | Vegan > Drinks".
        brand: Brand. The default may be absent; any other must be in the file.
        text: Further text columns. The default may be absent; any other must be in the file.
        user_id: Who acted.
        timestamp: Seconds since 1970 or ISO 8601; this or `position` must be there.
        position: Order within a user.
        context: Where an interaction took place, such as a store or a channel; may be absent.
    """

    item_id: str = "item_id"
    interaction_item_id: str = ""
    title: str = "title"
    category: str = "category"
    brand: str = "brand"
    text: tuple[str, ...] = ("description",)
    user_id: str = "user_id"
    timestamp: str = "timestamp"
    position: str = "position"
    context: str = "context"

    def __post_init__(self) -> None:
        for name in self.text:
            if name in _FIXED:
                raise ValueError(
                    f"data.columns.text names {name!r}, which Pressmark already uses for its own column: "
                    "rename that column in your file."
                )


@dataclass(frozen=True)
class Catalog:
    """N products, sorted by item_id; an item's row is its item_index.

    Attributes:
        item_id: (N,) object array of str, distinct, ascending.
        title: (N,) object array of str, "" where missing.
        brand: (N,) object array of str, "" where missing.
        category: N tuples of paths; a path is a tuple of names from root to leaf, as given (shared leading
            names included); () where an item has no category.
        text: name -> (N,) object array of str, "" where missing: further text columns.
    """

    item_id: np.ndarray
    title: np.ndarray
    brand: np.ndarray
    category: tuple[tuple[CategoryPath, ...], ...]
    text: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.item_id), len(self.title), len(self.brand), len(self.category)}
        lengths |= {len(column) for column in self.text.values()}
        assert len(lengths) == 1, f"columns of different lengths: {lengths}"

    def __len__(self) -> int:
        return len(self.item_id)

    @cached_property
    def rows(self) -> dict[str, int]:
        """item_id -> item_index."""
        return {item_id: index for index, item_id in enumerate(self.item_id)}

    def index_of(self, item_ids: Sequence[str]) -> np.ndarray:
        """Rows of items.

        Returns:
            (len(item_ids),) int64 item_index.

        Raises:
            ValueError: For an unknown item id, naming the first.
        """
        index = self.rows
        try:
            return np.fromiter((index[one] for one in item_ids), np.int64, len(item_ids))
        except KeyError as error:
            raise ValueError(
                f"item_id {error.args[0]!r} is not in the catalog of {len(self)} items. "
                "Item ids are compared letter by letter, as strings."
            ) from None

    def content(self, row: int) -> dict[str, Any]:
        """All that an item is, but its id: column -> value."""
        texts = {name: self.text[name][row] for name in sorted(self.text)}
        return {
            "title": self.title[row],
            "brand": self.brand[row],
            "category": self.category[row],
            **texts,
        }

    def take(self, rows: np.ndarray) -> Catalog:
        """The items at `rows`, in that order."""
        text = {name: column[rows] for name, column in self.text.items()}
        category = tuple(self.category[row] for row in rows)
        return Catalog(self.item_id[rows], self.title[rows], self.brand[rows], category, text)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any value of the catalog."""
        names = sorted(self.text)
        return fingerprint(
            self.item_id, self.title, self.brand, self.category, names, *(self.text[name] for name in names)
        )


def load_items(folder: Path, columns: Columns) -> tuple[Catalog, dict[str, int]]:
    """Reads and checks the user's `items.{parquet,csv,jsonl}`.

    Args:
        folder: Holds exactly one of the three files.
        columns: Names of the file's columns.

    Returns:
        The catalog, and for each key of `RULES` how often its rule was applied. Prints which columns were not
        read.

    Raises:
        ValueError: For what cannot be used: no file or two, a missing column, no row, an item without an
            id or with one that is not UTF-8, a category of another form. The message says file, row,
            column, value, rule and what to do.
    """
    file = tables.find_table(folder, "items")
    catalog, counts, absent, unread = _read(file, columns)
    if wrong := [(key, name) for key, name in absent if name not in (*Columns.text, Columns.brand)]:
        key, name = wrong[0]
        near = difflib.get_close_matches(name, unread, n=1)
        raise ValueError(
            f"{file}: no column {name!r}, which data.columns.{key} names; not read so far: "
            f"{', '.join(map(repr, unread)) or 'none'}."
            + (f" Did you mean {near[0]!r}?" if near else " Take the name out.")
        )
    if unread:
        more = f" and {len(unread) - 10} more" if len(unread) > 10 else ""
        print(
            f"columns not read: {', '.join(unread[:10])}{more}; name them in data.columns.text and "
            "vectors.columns to embed them"
        )
    return catalog, counts


def load_items_file(file: Path, columns: Columns) -> tuple[Catalog, dict[str, int]]:
    """`load_items` for one file, whatever its name; .parquet, .csv or .jsonl. Absent text columns are empty.

    Raises:
        ValueError: As `load_items`.
    """
    catalog, counts, _, _ = _read(file, columns)
    return catalog, counts


def _read(file: Path, columns: Columns) -> tuple[Catalog, dict[str, int], list[tuple[str, str]], list[str]]:
    """`load_items_file`; and columns that the file lacks, with the key that names them; and those not read."""
    tables.check_format(file)
    required = {"item_id": columns.item_id, "title": columns.title, "category": columns.category}
    optional = {"brand": columns.brand, **{name: name for name in columns.text}}
    frame, unread = tables.read_columns(file, required, optional)
    num_rows = len(frame)
    frame = _distinct_items(frame, file, columns)
    strings = {
        name: tables.as_text(frame, name, file, theirs).fill_null("").str.strip_chars()
        for name, theirs in {"title": columns.title, **optional}.items()
        if name in frame.columns
    }
    parsed = _parse_categories(frame, file, columns.category)
    category = tuple(one.paths for one in parsed)
    empty = np.full(len(frame), "", object)
    text = {name: strings[name].to_numpy() if name in strings else empty for name in columns.text}
    absent = [("text", name) for name in columns.text if name not in strings]
    brand = strings["brand"].to_numpy() if "brand" in strings else empty
    catalog = Catalog(frame["item_id"].to_numpy(), strings["title"].to_numpy(), brand, category, text)
    counts = {
        "items": len(frame),
        "items_duplicate_id": num_rows - len(frame),
        "items_without_title": int((catalog.title == "").sum()),
        "items_without_brand": int((catalog.brand == "").sum()),
        "items_not_utf8": sum(int(tables.not_utf8(column).sum()) for column in strings.values())
        + sum("\ufffd" in name for paths in category for path in paths for name in path),
        "items_joined_names": sum(
            bool(_JOINED.search(name)) for paths in set(category) for path in paths for name in path
        ),
        "items_absent_columns": len(absent),
        **_count_categories(parsed),
    }
    if "brand" not in strings:
        absent.append(("brand", columns.brand))
    return catalog, {rule: counts[rule] for rule in RULES}, absent, unread


def join_catalogs(*catalogs: Catalog) -> Catalog:
    """The items of one catalog after another: sorted by item_id no longer, but every row keeps its place.

    Raises:
        ValueError: If their text columns differ.
    """
    names = [sorted(one.text) for one in catalogs]
    for other in names:
        if other != names[0]:
            raise ValueError(
                f"catalogs have the text columns {', '.join(names[0]) or 'none'} and "
                f"{', '.join(other) or 'none'}: read both with the same data.columns.text."
            )
    return Catalog(
        np.concatenate([one.item_id for one in catalogs]),
        np.concatenate([one.title for one in catalogs]),
        np.concatenate([one.brand for one in catalogs]),
        tuple(chain.from_iterable(one.category for one in catalogs)),
        {name: np.concatenate([one.text[name] for one in catalogs]) for name in catalogs[0].text},
    )


def _distinct_items(frame: pl.DataFrame, file: Path, columns: Columns) -> pl.DataFrame:
    """One row an item_id, the first, sorted by item_id."""
    frame = frame.with_columns(tables.read_ids(frame, "item_id", file, columns.item_id))
    missing = frame.filter(frame["item_id"].is_null())
    if len(missing):
        row = int(missing[tables.ROW][0])
        remedy = "Give the item an id or delete the row."
        raise tables.unusable(file, row, columns.item_id, None, "an item needs an id", remedy)
    return frame.unique("item_id", keep="first", maintain_order=True).sort("item_id")


def _parse_categories(frame: pl.DataFrame, file: Path, column: str) -> list[ParsedCategory]:
    values: list[Any] = frame["category"].to_list()
    parsed = []
    for row, value in zip(frame[tables.ROW], values, strict=True):
        try:
            parsed.append(parse_category(value))
        except ValueError as error:
            remedy = "Write Dairy > Milk, or a list of names."
            raise tables.unusable(file, row, column, value, str(error), remedy) from None
    return parsed


def _count_categories(parsed: list[ParsedCategory]) -> dict[str, int]:
    depths = np.array([len(path) for one in parsed for path in one.paths], np.int64)
    return {
        "items_without_category": sum(not one.paths for one in parsed),
        "items_ragged_category": int((depths != np.bincount(depths).argmax()).sum()) if len(depths) else 0,
        "items_several_paths": sum(len(one.paths) > 1 for one in parsed),
        "items_empty_segment": sum(one.num_empty for one in parsed),
        "items_repeated_path": sum(one.num_repeated for one in parsed),
    }


def write_catalog(path: Path, catalog: Catalog) -> None:
    """Writes the run folder's items.parquet: item_id, title, brand, category, then the text columns."""
    strings = {"item_id": catalog.item_id, "title": catalog.title, "brand": catalog.brand, **catalog.text}
    table = {name: pa.array(column, pa.string()) for name, column in strings.items()}
    table["category"] = pa.array(
        [[list(path) for path in paths] for paths in catalog.category], pa.list_(pa.list_(pa.string()))
    )
    order = [*_FIXED, *catalog.text]
    write_parquet(path, pa.table({name: table[name] for name in order}))


def read_catalog(path: Path) -> Catalog:
    """Reads what `write_catalog` wrote.

    Raises:
        ValueError: If the file is missing, damaged, or not a catalog.
    """
    table = read_parquet(path)
    absent = [name for name in _FIXED if name not in table.column_names]
    if absent:
        raise ValueError(f"{path}: no column {absent[0]!r}; it is not the items.parquet of a run folder.")
    category = tuple(tuple(tuple(one) for one in paths or ()) for paths in table.column("category").to_pylist())
    strings = {name: _strings(table.column(name)) for name in table.column_names if name != "category"}
    text = {name: column for name, column in strings.items() if name not in _FIXED}
    return Catalog(strings["item_id"], strings["title"], strings["brand"], category, text)


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.fill_null("").to_pylist(), object)
