"""The SID table: every item of the catalog and its Semantic ID."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
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


def write_sids(path: str | Path, table: SidTable, item_id: Sequence[str] | np.ndarray) -> None:
    """Writes `sids.parquet`: one row an item (`item_id`, `sid`), the rest in the schema's metadata.

    Args:
        path: The file.
        table: SIDs of N items.
        item_id: N strings, row = item_index.

    Raises:
        ValueError: If the number of ids is not the table's.
    """
    if len(item_id) != len(table):
        raise ValueError(f"{path}: {len(item_id)} item ids for {len(table)} SIDs; they must be as many.")
    codes = pa.array(table.sids.astype(np.int32).ravel())
    metadata = {
        "level_sizes": json.dumps(table.level_sizes),
        "codebook_fingerprint": table.codebook_fingerprint,
        "version": str(table.version),
    }
    columns = {
        "item_id": pa.array(list(item_id), pa.string()),
        "sid": pa.FixedSizeListArray.from_arrays(codes, table.num_levels),
    }
    files.write_parquet(path, pa.table(columns).replace_schema_metadata(metadata))


def read_sids(path: str | Path, item_id: Sequence[str] | np.ndarray) -> SidTable:
    """Reads `sids.parquet` and puts its rows in the order of the catalog.

    Args:
        path: The file.
        item_id: N strings of the catalog, row = item_index.

    Raises:
        ValueError: If the file lacks its metadata or columns, names an item twice, lacks an item of the
            catalog, or holds one that the catalog does not have.
    """
    data = files.read_parquet(path)
    metadata = {key.decode(): value.decode() for key, value in (data.schema.metadata or {}).items()}
    missing = {"level_sizes", "codebook_fingerprint", "version"} - metadata.keys()
    missing |= {"item_id", "sid"} - set(data.column_names)
    if missing:
        raise ValueError(
            f"{path}: lacks {', '.join(sorted(missing))}; it is no SID table. Run train_tokenizer again."
        )
    rows = _rows_in_catalog_order(path, data["item_id"].to_pylist(), item_id)
    level_sizes = tuple(json.loads(metadata["level_sizes"]))
    codes = data["sid"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    if len(codes) != len(rows) * len(level_sizes):
        raise ValueError(f"{path}: sids must have {len(level_sizes)} codes each. Run train_tokenizer again.")
    sids = codes.reshape(-1, len(level_sizes))[rows]
    return SidTable(sids, level_sizes, metadata["codebook_fingerprint"], int(metadata["version"]))


def _rows_in_catalog_order(
    path: str | Path, found: list[str], item_id: Sequence[str] | np.ndarray
) -> np.ndarray:
    """(N,) int64: for each item of the catalog its row in the file."""
    row_of = {one: row for row, one in enumerate(found)}
    if len(row_of) != len(found):
        twice = next(one for row, one in enumerate(found) if row_of[one] != row)
        raise ValueError(f"{path}: item_id {twice!r} stands twice; every item has one SID.")
    lacking = [one for one in item_id if one not in row_of]
    if lacking:
        raise ValueError(
            f"{path}: item_id {lacking[0]!r} of the catalog has no SID ({len(lacking)} items lack one). "
            "Run train_tokenizer on this catalog."
        )
    if len(found) != len(item_id):
        foreign = sorted(row_of.keys() - set(item_id))
        raise ValueError(
            f"{path}: item_id {foreign[0]!r} is not in the catalog ({len(foreign)} items are not). "
            "The SIDs belong to another catalog: run train_tokenizer on this one."
        )
    return np.array([row_of[one] for one in item_id], np.int64)
