"""SIDs that somebody else made: read from a file, with codebooks made to fit them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pressmark import files


def read_given(path: Path, item_id: np.ndarray, level_sizes: Sequence[int]) -> np.ndarray:
    """The SIDs of `item_id` in a parquet file with the columns `item_id` and `sid`, a list of codes a row.

    Args:
        path: The file; items beside those of the catalog may be in it.
        item_id: (N,) object.
        level_sizes: Codes a level.

    Returns:
        (N, L) int64.

    Raises:
        ValueError: If an item has no SID there or two, or one that is no SID of these levels.
    """
    table = files.read_parquet(path)
    names = ("item_id", "sid")
    if missing := set(names) - set(table.column_names):
        raise ValueError(f"{path}: the column {min(missing)} is missing; given SIDs need item_id and sid.")
    kind = table.schema.field("sid").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_integer(kind.value_type):
        raise ValueError(f"{path}: the column sid is of type {kind}; it must be a list of integers.")
    found: dict[str, list[int]] = {}
    columns = (table[name].to_pylist() for name in names)
    for row, (one, sid) in enumerate(zip(*columns, strict=True), 1):
        if str(one) in found:
            raise ValueError(f"{path}, row {row}: item_id {one!r} has a SID already.")
        if sid is None or len(sid) != len(level_sizes) or None in sid:
            raise ValueError(
                f"{path}, row {row}: the SID of item_id {one!r} is {sid}; tokenizer.level_sizes "
                f"{tuple(level_sizes)} asks for {len(level_sizes)} codes."
            )
        if not all(0 <= code < size for code, size in zip(sid, level_sizes, strict=True)):
            raise ValueError(
                f"{path}, row {row}: the SID of item_id {one!r} is {sid}; its codes must lie below "
                f"tokenizer.level_sizes {tuple(level_sizes)}."
            )
        found[str(one)] = sid
    without = [one for one in item_id if one not in found]
    if without:
        raise ValueError(
            f"{path}: {len(without)} items of the catalog have no SID there, the first is {without[0]!r}."
        )
    return np.array([found[one] for one in item_id], np.int64).reshape(len(item_id), len(level_sizes))


def fitted_codebooks(latents: np.ndarray, codes: np.ndarray, level_sizes: Sequence[int]) -> list[np.ndarray]:
    """Codebooks for codes that are there: an entry is the mean of what the coarser ones leave of its items.

    Args:
        latents: (n, d) float32.
        codes: (n, L) int64.
        level_sizes: Codes a level.

    Returns:
        L arrays (K, d) float32; zeros for a code that no item has. A new product may come to have one.
    """
    rest, books = latents.astype(np.float64), []
    for level, size in enumerate(level_sizes):
        code = codes[:, level]
        book = np.zeros((size, latents.shape[1]))
        np.add.at(book, code, rest)
        book /= np.maximum(np.bincount(code, minlength=size), 1)[:, None]
        rest = rest - book[code]
        books.append(book.astype(np.float32))
    return books
