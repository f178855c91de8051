"""A split on disk: five or six files that a stage needs nothing but pyarrow to read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pressmark.catalog.embeddings import point_to_vectors
from pressmark.catalog.items import Catalog, read_catalog
from pressmark.files import read_json, read_parquet, write_json, write_parquet
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories


def write_split(folder: Path, split: Split, catalog: Catalog) -> None:
    """Writes train, valid, test and cold_items as parquet, between where there is any, and split.json last.

    Unknown timestamps and positions are null. split.json holds the counts, the catalog's fingerprint, the
    items that what is fitted must not see, and how many purchases between has.
    """
    folder = Path(folder)
    item_id = pa.array(catalog.item_id, pa.string())
    users = np.repeat(split.train_user_id, split.train.lengths)
    train = {
        "user_id": pa.array(users, pa.string()),
        "item_id": item_id.take(pa.array(split.train.values)),
        "timestamp": pa.array(split.train_timestamp, mask=np.isnan(split.train_timestamp)),
        "position": pa.array(split.train_position, mask=split.train_position < 0),
    }
    if split.train_context is not None:
        train["context"] = pa.array(split.train_context, pa.string())
    write_parquet(folder / "train.parquet", pa.table(train))
    for name, cases in (("valid", split.valid), ("test", split.test)):
        write_parquet(folder / f"{name}.parquet", _cases_table(cases, item_id))
    write_parquet(folder / "cold_items.parquet", pa.table({"item_id": item_id.filter(pa.array(split.cold))}))
    (folder / "between.parquet").unlink(missing_ok=True)
    if split.between.size:
        item, time = split.between
        between = {"item_id": item_id.take(pa.array(item.astype(np.int64))), "timestamp": pa.array(time)}
        write_parquet(folder / "between.parquet", pa.table(between))
    record = {
        "catalog": catalog.fingerprint,
        "counts": split.counts,
        "not_fitted_on": catalog.item_id[~split.fitted_on].tolist(),
        "between": split.between.shape[1],
    }
    write_json(folder / "split.json", record)


def read_split(folder: Path, catalog: Catalog) -> Split:
    """Reads what `write_split` wrote: the same split, bit by bit.

    Raises:
        ValueError: If a file is missing or damaged, or the split was made of another catalog.
    """
    folder = Path(folder)
    if not (folder / "split.json").is_file():
        raise ValueError(f"{folder / 'split.json'} is missing: prepare the run first (`pressmark prepare`).")
    record = read_json(folder / "split.json")
    if record["catalog"] != catalog.fingerprint:
        raise ValueError(
            f"{folder / 'split.json'}: made of the catalog {record['catalog']}, not of {catalog.fingerprint}. "
            "Prepare the run again, in a new folder."
        )
    train = read_parquet(folder / "train.parquet")
    users = np.array(train.column("user_id").to_pylist(), object)
    starts = np.concatenate([[0], np.flatnonzero(users[1:] != users[:-1]) + 1])
    cold, hidden = np.zeros(len(catalog), bool), np.zeros(len(catalog), bool)
    cold[_item_index(read_parquet(folder / "cold_items.parquet").column("item_id"), catalog)] = True
    hidden[catalog.index_of(record["not_fitted_on"])] = True
    return Split(
        train=Histories(
            _item_index(train.column("item_id"), catalog), np.append(starts, len(users)).astype(np.int64)
        ),
        train_user_id=users[starts],
        train_timestamp=_array(pc.fill_null(train.column("timestamp"), float("nan"))),
        train_position=_array(pc.fill_null(train.column("position"), -1)),
        valid=_read_cases(folder / "valid.parquet", catalog),
        test=_read_cases(folder / "test.parquet", catalog),
        cold=cold,
        fitted_on=~hidden,
        counts=record["counts"],
        train_context=_strings(train, "context"),
        between=_read_between(folder, record, catalog),
    )


def _read_between(folder: Path, record: dict[str, Any], catalog: Catalog) -> np.ndarray:
    path, num = folder / "between.parquet", record.get("between", 0)
    if record["counts"].get("split_protocol") == "temporal" and "between" not in record:
        raise ValueError(
            f"{folder / 'split.json'}: prepared by an earlier version, which did not keep what was bought "
            "between the cuts. Prepare the run again, in a new folder."
        )
    if not num:
        return np.zeros((2, 0))
    table = read_parquet(path)
    if len(table) != num:
        raise ValueError(f"{path}: {len(table):,} rows, but split.json counts {num:,}. Prepare the run again.")
    return np.stack([_item_index(table.column("item_id"), catalog), _array(table.column("timestamp"))])


def _cases_table(cases: Cases, item_id: pa.Array) -> pa.Table:
    offsets = pa.array(cases.histories.offsets, pa.int32())
    columns = {
        "case_id": pa.array(cases.case_id),
        "user_id": pa.array(cases.user_id, pa.string()),
        "history": pa.ListArray.from_arrays(offsets, item_id.take(pa.array(cases.histories.values))),
        "item_id": item_id.take(pa.array(cases.target)),
        "cold": pa.array(cases.cold),
    }
    if cases.context is not None:
        columns["context"] = pa.array(cases.context, pa.string())
    return pa.table(columns)


def _read_cases(path: Path, catalog: Catalog) -> Cases:
    table = read_parquet(path)
    lengths = pc.list_value_length(table.column("history")).to_numpy()
    values = _item_index(pc.list_flatten(table.column("history")), catalog)
    return Cases(
        case_id=_array(table.column("case_id")),
        user_id=np.array(table.column("user_id").to_pylist(), object),
        histories=Histories(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)),
        target=_item_index(table.column("item_id"), catalog),
        cold=_array(table.column("cold")),
        context=_strings(table, "context"),
    )


def _strings(table: pa.Table, name: str) -> np.ndarray | None:
    """A column of strings, None where the table has no such column."""
    return np.array(table.column(name).to_pylist(), object) if name in table.column_names else None


def _array(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_numpy())  # a copy: pyarrow's own memory is read-only, which torch minds


def _item_index(column: pa.ChunkedArray, catalog: Catalog) -> np.ndarray:
    found = pc.index_in(column, value_set=pa.array(catalog.item_id, pa.string()))
    if found.null_count:
        raise ValueError(
            f"the split names the item {column.filter(pc.is_null(found))[0].as_py()!r}, "
            "which the catalog lacks. Prepare the run again, in a new folder."
        )
    return found.to_numpy().astype(np.int64)


def hold_back(run: Path, folder: Path, cold_share: float = 0.0, seed: int = 0) -> None:
    """Makes `folder` a copy of a prepared run, its tokenizer too, for choosing settings and fitting weights.

    Its split is `Split.held_back`, or, where a share of items is to be hidden, `Split.simulating_cold`. What
    lay in the folder is gone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("data", "tokenizer"):
        if (run / part).is_dir():
            shutil.copytree(run / part, folder / part)
    point_to_vectors(folder, run / read_json(run / "data" / "vectors.json")["path"])
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    inner = split.simulating_cold(cold_share, seed) if cold_share else split.held_back()
    write_split(folder / "data", inner, catalog)
