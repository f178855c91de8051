"""Vectors that the user brings along, matched to the catalog by item id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.catalog import tables
from pressmark.catalog.items import Catalog

_IDS_NAMED = 3
"""Ids that an error lists before it says how many more there are."""


def read_precomputed(path: Path, catalog: Catalog) -> np.ndarray:
    """The user's vectors in the catalog's order; ids that the catalog lacks are ignored.

    Args:
        path: A parquet file with item_id and one list column, or NAME.npy (rows, D) beside NAME.ids.txt (one
            id a line) or NAME.ids.parquet (column item_id).
        catalog: N items.

    Returns:
        (N, D) float32, all finite.

    Raises:
        ValueError: If an item has no vector or two, a vector is not finite, or widths differ; names the item.
    """
    if not path.is_file():
        raise ValueError(f"vectors.path {path}: no such file.")
    if path.suffix == ".parquet":
        item_id, vectors = _read_parquet_vectors(path)
    elif path.suffix == ".npy":
        item_id, vectors = _read_npy_vectors(path)
    else:
        raise ValueError(f"vectors.path {path}: a .parquet or .npy file is expected.")
    row_of = {one: row for row, one in enumerate(item_id)}
    if len(row_of) < len(item_id):
        twice = next(one for row, one in enumerate(item_id) if row_of[one] != row)
        raise ValueError(f"{path}: item_id {twice!r} has several vectors; keep one.")
    missing = [one for one in catalog.item_id if one not in row_of]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of {len(catalog)} items have no vector: {_named(missing)}. "
            "Every item of the catalog needs one."
        )
    return _finite(path, vectors[[row_of[one] for one in catalog.item_id]], catalog.item_id)


def _named(ids: Sequence[str]) -> str:
    rest = len(ids) - _IDS_NAMED
    return ", ".join(map(repr, ids[:_IDS_NAMED])) + (f" and {rest} more" if rest > 0 else "")


def _finite(path: Path, vectors: np.ndarray, item_id: np.ndarray) -> np.ndarray:
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{path}: the vectors of {bad.sum()} items hold NaN or infinity: {_named(item_id[bad].tolist())}. "
            "Give each item finite numbers."
        )
    if not vectors.shape[1]:
        raise ValueError(f"{path}: the vectors have no numbers in them.")
    return np.ascontiguousarray(vectors)


def _read_parquet_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = files.read_parquet(path)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    lists = [field.name for field in table.schema if any(kind(field.type) for kind in kinds)]
    if "item_id" not in table.column_names or len(lists) != 1:
        raise ValueError(
            f"{path}: columns {', '.join(table.column_names)}; expected are item_id and one list column."
        )
    present = table.filter(table[lists[0]].is_valid())
    item_id = present["item_id"].cast(pa.string()).to_pylist()
    column = present[lists[0]].combine_chunks()
    if not len(column):
        raise ValueError(f"{path}: no vectors in it.")
    width = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if (width != width[0]).any():
        odd = int(np.flatnonzero(width != width[0])[0])
        raise ValueError(
            f"{path}: the vector of item_id {item_id[odd]!r} has {width[odd]} numbers, that of "
            f"{item_id[0]!r} has {width[0]}. All must be of one width."
        )
    try:
        numbers = column.flatten().cast(pa.float32(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: the list column {lists[0]!r} must hold numbers ({error}).") from error
    return item_id, numbers.to_numpy(zero_copy_only=False).reshape(len(item_id), -1)


def _read_npy_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a plain array of numbers ({error}).") from error
    real = np.issubdtype(vectors.dtype, np.integer) or np.issubdtype(vectors.dtype, np.floating)
    if vectors.ndim != 2 or not real:
        raise ValueError(
            f"{path}: shape {vectors.shape} of {vectors.dtype}; (items, width) real numbers are expected."
        )
    lines, table = path.with_suffix(".ids.txt"), path.with_suffix(".ids.parquet")
    if lines.exists():
        item_id = files.read_lines(lines, "vectors: the ids")
        if item_id[-1] == "":
            item_id.pop()
    elif table.exists():
        frame = tables.read_table(table, {"item_id": "item_id"}, {})
        item_id = tables.read_ids(frame, "item_id", table, "item_id").to_list()
    else:
        raise ValueError(
            f"{path}: neither {lines.name} nor {table.name} beside it says whose vectors these are."
        )
    if len(item_id) != len(vectors):
        raise ValueError(f"{path}: {len(vectors)} vectors, but {len(item_id)} ids beside it.")
    return item_id, vectors.astype(np.float32)
