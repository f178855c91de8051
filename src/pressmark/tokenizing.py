"""`pressmark tokenize --items FOLDER --out FOLDER`: the nearest SIDs of any number of products.

Items that share all their codes are not told apart here: that takes the whole catalog at once. Memory is that
of the quantizer and one batch of vectors; of one shard, where it holds texts that are to be embedded first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from pressmark import distributed, files, living, shard_work
from pressmark.tokenizer.quantizer import Quantizer
from pressmark.tokenizer.train import load_quantizer

ROWS = 16_384
"""Vectors that are read at a time."""
VECTOR = "vector"
"""Column of a shard that brings its vectors."""


def tokenize_folder(run: Path, items: Path, out: Path) -> None:
    """Codes every shard of a folder, this process its share of them.

    Args:
        run: The run folder, with a trained tokenizer.
        items: Folder of .parquet shards: `item_id` and `vector` (a list of numbers), or columns as the run's
            items have them, which are then embedded.
        out: Folder for as many files of the same names: `item_id`, `sid` (fixed-size list of int32).

    Raises:
        ValueError: For a folder without shards, or for what cannot be coded; all other shards are done then.
    """
    from pressmark.load import quiet_libraries

    state = distributed.start()
    if not items.is_dir():
        raise ValueError(f"--items {items}: --out goes with a folder of shards; one file is --append's.")
    shards = shard_work.shards_of(items, out, (".parquet",))
    quiet_libraries()
    quantizer = load_quantizer(run / "tokenizer")
    settings = {"built_on": files.file_hash(run / "tokenizer" / "model.safetensors")}
    done, failed = 0, list[ValueError]()
    for shard in shard_work.to_do(shards, "tokenize", settings):
        try:
            done += _code(quantizer, run, shard)
        except ValueError as error:
            failed.append(error)
    total = int(distributed.all_reduce_sum(torch.tensor(done, device=state.device)))
    if distributed.rank() == 0:
        print(f"{out}: {total:,} products coded now; some may share a SID")
    shard_work.failures(failed, "tokenize")


def _code(quantizer: Quantizer, run: Path, shard: shard_work.Shard) -> int:
    """Codes one shard; returns its items."""
    kind = pa.list_(pa.int32(), len(quantizer.level_sizes))
    schema = pa.schema([("item_id", pa.string()), ("sid", kind)], metadata=shard.metadata)
    number = 0
    with files.replacing(shard.place) as partial, pq.ParquetWriter(partial, schema) as writer:
        for item_id, vectors in _vectors(run, shard.source, quantizer.input_dim):
            try:
                codes = quantizer.encode(vectors)
            except ValueError as error:
                first = f"item_index 0 here is row {number + 1}"
                raise ValueError(f"{shard.source}: {error} ({first}.)") from error
            sids = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel(), pa.int32()), type=kind)
            writer.write_table(pa.table({"item_id": item_id, "sid": sids}, schema=schema))
            number += len(codes)
    return number


def _vectors(run: Path, path: Path, width: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Item ids and (n, D) float32 vectors of a shard, some rows at a time."""
    from pressmark.catalog.items import load_items_file

    try:
        with pq.ParquetFile(path) as file:
            if VECTOR in file.schema_arrow.names:
                yield from _given(file, path, width)
                return
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read as parquet ({error}). Write this shard again.") from error
    columns, embed = living.embedder(run)
    catalog, _ = load_items_file(path, columns)
    yield pa.array(catalog.item_id, pa.string()), embed(catalog)


def _given(file: pq.ParquetFile, path: Path, width: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
    if "item_id" not in file.schema_arrow.names:
        names = ", ".join(file.schema_arrow.names)
        raise ValueError(f"{path}: has the columns {names}; `{VECTOR}` needs `item_id` beside it.")
    kind, row = file.schema_arrow.field(VECTOR).type, 1
    if not hasattr(kind, "value_type") or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"{path}: {VECTOR} is {kind}; it must be a list of numbers with a fraction.")
    for batch in file.iter_batches(ROWS, columns=["item_id", VECTOR]):
        ids, column = batch.column("item_id").cast(pa.string()), batch.column(VECTOR)
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        lengths = np.where(column.is_null(), -1, lengths)
        bad = np.flatnonzero((lengths != width) | ids.is_null().to_numpy(zero_copy_only=False))
        if len(bad):
            found = "null" if lengths[bad[0]] < 0 else f"{lengths[bad[0]]} numbers"
            raise ValueError(
                f"{path}: row {row + bad[0]}: item_id {ids[int(bad[0])].as_py()!r} with a vector of {found}; "
                f"the tokenizer takes {width} numbers of each item."
            )
        row += len(batch)
        flat = column.flatten().to_numpy(zero_copy_only=False)
        yield ids, flat.astype(np.float32, copy=False).reshape(-1, width)
