"""The SID table: every item of the catalog and its Semantic ID; and the register of all SIDs ever given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pressmark import files


@dataclass(frozen=True)
class SidTable:
    """The SIDs of N items, L codes each.

    Attributes:
        sids: (N, L) int64, codes from coarse to fine; row = item_index. Items may share a SID.
        level_sizes: L numbers of codes; level l holds codes 0 to level_sizes[l] - 1.
        codebook_fingerprint: Which codebooks the codes index. A generator is bound to it.
        version: Counts appends of items under the same codebooks. A generator accepts any.
    """

    sids: np.ndarray
    level_sizes: tuple[int, ...]
    codebook_fingerprint: str
    version: int = 0

    def __post_init__(self) -> None:
        if self.sids.ndim != 2 or self.sids.shape[1] != len(self.level_sizes) or not self.level_sizes:
            raise ValueError(
                f"sids have the shape {self.sids.shape}; with level_sizes {self.level_sizes} it must be "
                f"(items, {len(self.level_sizes)}), at least one level."
            )
        if self.sids.dtype != np.int64:
            raise ValueError(f"sids are {self.sids.dtype}; they must be int64.")
        wrong = (self.sids < 0) | (self.sids >= np.array(self.level_sizes))
        if wrong.any():
            row, level = np.argwhere(wrong)[0]
            raise ValueError(
                f"item_index {row} has code {self.sids[row, level]} at level {level}; codes there run from "
                f"0 to {self.level_sizes[level] - 1}."
            )

    def __len__(self) -> int:
        return len(self.sids)

    @property
    def num_levels(self) -> int:
        """L, codes a SID."""
        return len(self.level_sizes)


LISTED, WITHDRAWN, FREED = "listed", "withdrawn", "freed"
"""What became of a product: on sale; removed, its SID reserved; removed, its SID free for another product."""


@dataclass(frozen=True)
class Register:
    """Every SID ever given, in order of arrival: all of `sids.parquet`. No row is ever changed or deleted.

    Of a removed product the row stays, since histories go on naming it; a freed SID may stand in two rows.

    Attributes:
        item_id: (M,) object array of str, distinct.
        table: SIDs of the M rows, and the version of the whole.
        since: (M,) int64: the version that gave each SID; 0 is training.
        status: (M,) object array of str: "listed", "withdrawn" or "freed".
    """

    item_id: np.ndarray
    table: SidTable
    since: np.ndarray
    status: np.ndarray

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def fingerprint(self) -> str:
        """Of the ids and their SIDs, in order: later versions begin with the same rows."""
        return files.fingerprint(self.item_id, self.table.sids)

    @property
    def status_of(self) -> dict[str, str]:
        """item_id -> status."""
        return dict(zip(self.item_id, self.status, strict=True))

    def at(self, version: int) -> Register:
        """The rows as they were at an earlier version; each with the status that it has today.

        Raises:
            ValueError: If there is no such version.
        """
        if not 0 <= version <= self.table.version:
            raise ValueError(f"version is {version}; these SIDs have versions 0 to {self.table.version}.")
        kept = self.since <= version
        table = replace(self.table, sids=self.table.sids[kept], version=version)
        return Register(self.item_id[kept], table, self.since[kept], self.status[kept])


def write_sids(path: str | Path, table: SidTable, item_id: Sequence[str] | np.ndarray) -> None:
    """Writes `sids.parquet` as training leaves it: every item is listed since version 0.

    Args:
        path: The file.
        table: SIDs of N items.
        item_id: N strings, row = item_index.

    Raises:
        ValueError: If the number of ids is not the table's.
    """
    if len(item_id) != len(table):
        raise ValueError(f"{path}: {len(item_id)} item ids for {len(table)} SIDs; they must be as many.")
    status = np.full(len(table), LISTED, object)
    write_register(path, Register(np.array(item_id, object), table, np.zeros(len(table), np.int64), status))


def write_register(path: str | Path, register: Register) -> None:
    """Writes `sids.parquet`: one row an item (`item_id`, `sid`, `since`, `status`), the rest as metadata."""
    table = register.table
    codes = pa.array(table.sids.astype(np.int32).ravel())
    metadata = {
        "level_sizes": json.dumps(table.level_sizes),
        "codebook_fingerprint": table.codebook_fingerprint,
        "version": str(table.version),
    }
    columns = {
        "item_id": pa.array(list(register.item_id), pa.string()),
        "sid": pa.FixedSizeListArray.from_arrays(codes, table.num_levels),
        "since": pa.array(register.since, pa.int32()),
        "status": pa.array(list(register.status), pa.string()),
    }
    files.write_parquet(path, pa.table(columns).replace_schema_metadata(metadata))


def read_register(path: str | Path) -> Register:
    """Reads all rows of `sids.parquet`. A file without `since` and `status` is one that training left.

    Raises:
        ValueError: If the file is missing, lacks its metadata or columns, or names an item twice.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing: run train_tokenizer first.")
    data = files.read_parquet(path)
    metadata = {key.decode(): value.decode() for key, value in (data.schema.metadata or {}).items()}
    missing = {"level_sizes", "codebook_fingerprint", "version"} - metadata.keys()
    missing |= {"item_id", "sid"} - set(data.column_names)
    if missing:
        raise ValueError(
            f"{path}: lacks {', '.join(sorted(missing))}; it is no SID table. Run train_tokenizer again."
        )
    item_id = np.array(data["item_id"].to_pylist(), object)
    level_sizes = tuple(json.loads(metadata["level_sizes"]))
    codes = data["sid"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    if len(codes) != len(item_id) * len(level_sizes):
        raise ValueError(f"{path}: sids must have {len(level_sizes)} codes each. Run train_tokenizer again.")
    table = SidTable(
        codes.reshape(-1, len(level_sizes)),
        level_sizes,
        metadata["codebook_fingerprint"],
        int(metadata["version"]),
    )
    known = set(data.column_names)
    since = data["since"].to_numpy().astype(np.int64) if "since" in known else np.zeros(len(item_id), np.int64)
    status = np.array(data["status"].to_pylist() if "status" in known else [LISTED] * len(item_id), object)
    if len(set(item_id)) != len(item_id):
        row_of = {one: row for row, one in enumerate(item_id)}
        twice = next(one for row, one in enumerate(item_id) if row_of[one] != row)
        raise ValueError(f"{path}: item_id {twice!r} stands twice; every item has one SID.")
    return Register(item_id, table, since, status)


def read_sids(path: str | Path, item_id: Sequence[str] | np.ndarray) -> SidTable:
    """Reads `sids.parquet` and puts its rows in the order of the catalog.

    Items that were appended later may be in the catalog or not.

    Args:
        path: The file.
        item_id: N strings of the catalog, row = item_index.

    Raises:
        ValueError: If the file is missing, lacks its metadata or columns, names an item twice, lacks an item of
            the catalog, or was trained on one that the catalog does not have.
    """
    register = read_register(path)
    row_of = {one: row for row, one in enumerate(register.item_id)}
    lacking = [one for one in item_id if one not in row_of]
    if lacking:
        raise ValueError(
            f"{path}: item_id {lacking[0]!r} of the catalog has no SID ({len(lacking)} items lack one). "
            "Run train_tokenizer on this catalog."
        )
    foreign = sorted(set(register.item_id[register.since == 0]) - set(item_id))
    if foreign:
        raise ValueError(
            f"{path}: item_id {foreign[0]!r} is not in the catalog ({len(foreign)} items are not). "
            "The SIDs belong to another catalog: run train_tokenizer on this one."
        )
    rows = np.array([row_of[one] for one in item_id], np.int64)
    return replace(register.table, sids=register.table.sids[rows])
