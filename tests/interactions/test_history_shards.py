from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark.interactions.histories import Histories
from pressmark.interactions.history_shards import HistoryShards, open_shards, write_shard

ITEM_ID = np.array([f"item{number:02d}" for number in range(30)], object)
SIZES = (7, 0, 12, 5)


def written(
    folder: Path, sizes: tuple[int, ...] = SIZES, ids: bool = True
) -> tuple[HistoryShards, list[list[int]]]:
    """Shards of so many histories, and the histories: the first item of each is its number."""
    rng, every = np.random.default_rng(0), []
    for shard, size in enumerate(sizes):
        rows = [[len(every) + row, *rng.integers(0, 30, rng.integers(0, 6)).tolist()] for row in range(size)]
        every += rows
        write_shard(folder / f"part-{shard}.parquet", Histories.from_lists(rows), ITEM_ID if ids else None)
    return open_shards(folder, ITEM_ID), every


def read(
    shards: HistoryShards, rank: int, world: int, order: list[int], rows: int = 4
) -> list[list[list[int]]]:
    """What `read` yields, as lists."""
    chunks = shards.read(rank, world, np.array(order), rows)
    return [[chunk[row].tolist() for row in range(len(chunk))] for chunk in chunks]


@pytest.mark.parametrize("ids", [True, False])
def test_shards_are_read_in_the_order_asked_for(tmp_path: Path, ids: bool) -> None:
    shards, every = written(tmp_path, ids=ids)
    assert len(shards) == 24
    parts = [every[:7], [], every[7:19], every[19:]]
    chunks = read(shards, 0, 1, [2, 3, 0, 1])
    assert [one for chunk in chunks for one in chunk] == parts[2] + parts[3] + parts[0]
    assert [len(chunk) for chunk in chunks] == [4] * 6


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_processes_read_each_history_once(tmp_path: Path, world: int) -> None:
    shards, every = written(tmp_path)
    order = np.array([3, 0, 2, 1])
    shares = [
        [one for chunk in read(shards, rank, world, order.tolist()) for one in chunk] for rank in range(world)
    ]
    assert sorted(one[0] for share in shares for one in share) == list(range(24))
    assert [len(share) for share in shares] == [shards.share(rank, world, order) for rank in range(world)]
    assert sorted(map(str, every)) == sorted(str(one) for share in shares for one in share)
    # Where processes have shards of their own a shard is one process's.
    if world == 2:
        assert {one[0] for one in shares[0]} == {*range(19, 24), *range(7, 19)}


def test_one_shard_alone(tmp_path: Path) -> None:
    shards, every = written(tmp_path)
    chunks = list(shards.read_one(2, rows=5))
    assert [len(chunk) for chunk in chunks] == [5, 5, 2]
    assert chunks[2][1].tolist() == every[18]


def test_a_shard_that_is_cut_off_is_named_before_anything_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    whole = (tmp_path / "part-2.parquet").read_bytes()
    (tmp_path / "part-2.parquet").write_bytes(whole[:-20])
    with pytest.raises(
        ValueError, match=r"part-2\.parquet: cannot be read as parquet .*Write this shard again"
    ):
        open_shards(tmp_path, ITEM_ID)


def test_a_shard_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    shards, _ = written(tmp_path)
    broken = bytearray((tmp_path / "part-2.parquet").read_bytes())
    broken[4:40] = bytes(36)
    (tmp_path / "part-2.parquet").write_bytes(broken)
    with pytest.raises(ValueError, match=r"part-2\.parquet: cannot be read as parquet"):
        list(shards.read_one(2))
    with pytest.raises(ValueError, match="a shard has changed or cannot be read any more"):
        read(shards, 0, 1, [0, 1, 2, 3])


def table(column: str, values: list[object], kind: pa.DataType) -> pa.Table:
    return pa.table({column: pa.array(values, kind)})


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            table("items", [["item01"]], pa.list_(pa.string())),
            r"part-9\.parquet: has the columns items; .*`history`",
        ),
        (table("history", ["item01"], pa.string()), r"part-9\.parquet: history is string; it must be a list"),
        (table("history", [[1.5]], pa.list_(pa.float32())), r"history is list<.*float>; it must be a list"),
        (
            table("history", [[1]], pa.list_(pa.int64())),
            r"part-9\.parquet: history is list<.*int64>, but list<.*str",
        ),
    ],
)
def test_shards_of_other_columns_are_named(tmp_path: Path, odd: pa.Table, message: str) -> None:
    written(tmp_path)
    pq.write_table(odd, tmp_path / "part-9.parquet")
    with pytest.raises(ValueError, match=message):
        open_shards(tmp_path, ITEM_ID)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            [["item01"], ["gone", "item02"]],
            pa.list_(pa.string()),
            r"row 2: history holds 'gone', which is no item",
        ),
        ([["item01"], [], None], pa.list_(pa.string()), "row 3: history is null"),
        ([["item01", None]], pa.list_(pa.string()), "row 1: history holds None"),
        ([[], [29], [3, 30]], pa.list_(pa.int32()), r"row 3: history holds 30, .*of 30"),
        ([[-1]], pa.list_(pa.int64()), "row 1: history holds -1"),
    ],
)
def test_what_is_no_history_is_named_with_its_row(
    tmp_path: Path, values: list[object], kind: pa.DataType, message: str
) -> None:
    pq.write_table(table("history", values, kind), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: " + message):
        list(open_shards(tmp_path, ITEM_ID).read_one(0))


def test_a_folder_without_shards(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.parquet file in it"):
        open_shards(tmp_path, ITEM_ID)
