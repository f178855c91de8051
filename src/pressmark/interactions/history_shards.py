"""Histories larger than memory: a folder of parquet shards, one history a row, read as they are needed.

    histories/part-000.parquet   history: a list of item ids, or of item_index where a catalog is large

Every epoch reads the shards in another order; of k processes each reads its own shards where k divides their
number, and otherwise all of them, of which it keeps every k-th history. Memory is that of a few row groups.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pressmark.files import write_parquet
from pressmark.interactions.histories import Histories

HISTORY = "history"
"""The column that is read; a shard may have others."""
READ_ROWS = 16_384
"""Histories that a file is asked for at a time."""


@dataclass(frozen=True)
class HistoryShards:
    """S shards of a folder, by name.

    Attributes:
        paths: The S files.
        num_rows: (S,) int64 histories of each.
        item_id: (N,) object array of str, the catalog; row = item_index.
    """

    paths: tuple[Path, ...]
    num_rows: np.ndarray
    item_id: np.ndarray

    def __len__(self) -> int:
        return int(self.num_rows.sum())

    def share(self, rank: int, world: int, order: np.ndarray) -> int:
        """Histories that `read` gives one of `world` processes."""
        if len(self.paths) % world == 0:
            return int(self.num_rows[order[rank::world]].sum())
        return len(range(rank, len(self), world))

    def read(self, rank: int, world: int, order: np.ndarray, rows: int) -> Iterator[Histories]:
        """One process's histories, `rows` at a time (the last time fewer).

        Args:
            rank: The process.
            world: Processes in all; together they read each history once.
            order: (S,) int64 in which order the shards are read.
            rows: Histories at a time; they may be of several shards.

        Raises:
            ValueError: If a shard cannot be read, or holds what is no history of the catalog.
        """
        from datasets import load_dataset
        from datasets.distributed import split_dataset_by_node

        files = [str(self.paths[number]) for number in order]
        # Left to itself it reads by row groups, which may be whole shards, and stumbles over an empty one.
        options: dict[str, Any] = {"columns": [HISTORY], "batch_size": READ_ROWS, "streaming": True}
        stream = load_dataset("parquet", data_files=files, split="train", **options)
        stream = split_dataset_by_node(stream, rank, world).with_format("arrow")
        try:
            for table in stream.iter(batch_size=rows):
                yield self._histories(table.column(HISTORY), str(self.paths[0].parent), 0)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{self.paths[0].parent}: a shard has changed or cannot be read any more ({error})."
            ) from error

    def read_one(self, number: int, rows: int = READ_ROWS) -> Iterator[Histories]:
        """The histories of one shard, `rows` at a time.

        Raises:
            ValueError: Naming the file and the row, if it cannot be read or holds what is no history.
        """
        path, first = self.paths[number], 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(rows, columns=[HISTORY]):
                    yield self._histories(pa.chunked_array([batch.column(HISTORY)]), str(path), first)
                    first += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: cannot be read as parquet ({error}). Write this shard again.") from error

    @functools.cached_property
    def _ids(self) -> pa.Array:
        return pa.array(self.item_id, pa.string())

    def _histories(self, column: pa.ChunkedArray, place: str, first: int) -> Histories:
        """Rows of a column as item_index; `place` and the number of the `first` row are for errors."""
        array = column.combine_chunks()
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if array.null_count:
            row = first + int(np.flatnonzero(array.is_null())[0]) + 1
            raise ValueError(f"{place}: row {row}: history is null; an empty history is an empty list.")
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        items = array.flatten()
        if pa.types.is_integer(items.type):
            found = items.to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(~((found >= 0) & (found < len(self.item_id))))
        else:
            index = pc.index_in(items, value_set=self._ids)
            bad = np.flatnonzero(index.is_null())
            found = index.fill_null(-1).to_numpy(zero_copy_only=False)
        if len(bad):
            row = first + int(np.searchsorted(offsets, bad[0], side="right"))
            raise ValueError(
                f"{place}: row {row}: history holds {items[int(bad[0])].as_py()!r}, which is no item of the "
                f"run's catalog of {len(self.item_id)}: give its item ids, or rows of data/items.parquet."
            )
        return Histories(found.astype(np.int64), offsets)


def write_shard(path: Path, histories: Histories, item_id: np.ndarray | None = None) -> None:
    """Writes histories as one shard: as item ids, or without `item_id` (N,) as item_index."""
    items = pa.array(histories.values)
    if item_id is not None:
        items = pa.array(item_id, pa.string()).take(items)
    column = pa.ListArray.from_arrays(pa.array(histories.offsets, pa.int32()), items)
    write_parquet(path, pa.table({HISTORY: column}))


def open_shards(folder: Path, item_id: np.ndarray) -> HistoryShards:
    """Looks at every shard of a folder, without reading a history.

    Args:
        folder: Holds .parquet files, all with a column `history`.
        item_id: (N,) object array of str, the catalog.

    Raises:
        ValueError: If there is no shard, one is cut off, or their columns differ; the message names the file.
    """
    paths = tuple(sorted(Path(folder).glob("*.parquet")))
    if not paths:
        raise ValueError(f"{folder}: no .parquet file in it. Give the folder with the shards of histories.")
    num_rows, kinds = [], []
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{path}: cannot be read as parquet ({error}): cut off? Write this shard again."
            ) from error
        if HISTORY not in schema.names:
            raise ValueError(
                f"{path}: has the columns {', '.join(schema.names)}; a shard needs `{HISTORY}`, a list of item "
                "ids a row."
            )
        kinds.append(schema.field(HISTORY).type)
        num_rows.append(rows)
        if not _is_history(kinds[-1]):
            raise ValueError(
                f"{path}: {HISTORY} is {kinds[-1]}; it must be a list of item ids (strings) or of item_index "
                "(whole numbers)."
            )
        if _of_ids(kinds[-1]) != _of_ids(kinds[0]):
            raise ValueError(
                f"{path}: {HISTORY} is {kinds[-1]}, but {kinds[0]} in {paths[0].name}. Write all shards alike."
            )
    return HistoryShards(paths, np.array(num_rows, np.int64), item_id)


def _is_history(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return _of_ids(kind) or pa.types.is_integer(kind.value_type)


def _of_ids(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
