from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark.files import fingerprint
from pressmark.sids.table import (
    FREED,
    LISTED,
    Register,
    SidTable,
    read_register,
    read_sids,
    write_register,
    write_sids,
)

ITEM_ID = ["apple", "bread", "cheese"]


def table() -> SidTable:
    return SidTable(np.array([[1, 299], [0, 0], [1, 299]]), (2, 300), "abc", version=3)


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    write_sids(tmp_path / "sids.parquet", table(), ITEM_ID)
    read = read_sids(tmp_path / "sids.parquet", ITEM_ID)
    np.testing.assert_array_equal(read.sids, table().sids)
    assert read.sids.dtype == np.int64
    assert (read.level_sizes, read.codebook_fingerprint, read.version) == ((2, 300), "abc", 3)
    schema = pq.read_schema(tmp_path / "sids.parquet")
    assert schema.field("sid").type == pa.list_(pa.int32(), 2)


def test_rows_follow_the_catalog_not_the_file(tmp_path: Path) -> None:
    write_sids(tmp_path / "sids.parquet", table(), ["cheese", "apple", "bread"])
    read = read_sids(tmp_path / "sids.parquet", np.array(ITEM_ID, object))
    assert read.sids.tolist() == [[0, 0], [1, 299], [1, 299]]


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        ([*ITEM_ID, "durian"], "'durian' of the catalog has no SID"),
        (["apple", "bread"], "'cheese' is not in the catalog"),
    ],
)
def test_another_catalog_is_refused(tmp_path: Path, catalog: list[str], message: str) -> None:
    write_sids(tmp_path / "sids.parquet", table(), ITEM_ID)
    with pytest.raises(ValueError, match=message):
        read_sids(tmp_path / "sids.parquet", catalog)


def test_an_item_that_stands_twice_is_refused(tmp_path: Path) -> None:
    write_sids(tmp_path / "sids.parquet", table(), ["apple", "bread", "apple"])
    with pytest.raises(ValueError, match="'apple' stands twice"):
        read_sids(tmp_path / "sids.parquet", ITEM_ID)


def test_a_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": ITEM_ID}), tmp_path / "sids.parquet")
    with pytest.raises(ValueError, match="lacks codebook_fingerprint, level_sizes, sid, version"):
        read_sids(tmp_path / "sids.parquet", ITEM_ID)


def test_one_id_an_item(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 item ids for 3 SIDs"):
        write_sids(tmp_path / "sids.parquet", table(), ITEM_ID[:2])


@pytest.mark.parametrize(
    ("sids", "level_sizes", "message"),
    [
        ([[0, 3]], (2, 3), "item_index 0 has code 3 at level 1"),
        ([[0, 0], [-1, 0]], (2, 3), "item_index 1 has code -1 at level 0"),
        ([[0, 0]], (2, 3, 4), "shape"),
    ],
)
def test_impossible_sids_are_refused(sids: list[list[int]], level_sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SidTable(np.array(sids), level_sizes, "abc")


def test_the_register_keeps_every_row_and_the_catalog_reads_its_own(tmp_path: Path) -> None:
    sids = SidTable(np.array([[1, 299], [0, 0], [1, 2], [0, 0]]), (2, 300), "abc", version=2)
    status = np.array([LISTED, FREED, LISTED, LISTED], object)
    one = Register(np.array([*ITEM_ID, "durian"], object), sids, np.array([0, 0, 0, 2]), status)
    write_register(tmp_path / "sids.parquet", one)
    read = read_register(tmp_path / "sids.parquet")
    assert read.item_id.tolist() == [*ITEM_ID, "durian"]
    assert (read.since.tolist(), read.status.tolist()) == ([0, 0, 0, 2], status.tolist())
    assert read.fingerprint == one.fingerprint
    assert read.at(1).item_id.tolist() == ITEM_ID
    assert read.at(1).fingerprint == fingerprint(np.array(ITEM_ID, object), sids.sids[:3])
    assert read_sids(tmp_path / "sids.parquet", ITEM_ID).sids.tolist() == sids.sids[:3].tolist()
    assert read_sids(tmp_path / "sids.parquet", [*ITEM_ID, "durian"]).sids.tolist() == sids.sids.tolist()
    with pytest.raises(ValueError, match="'apple' is not in the catalog"):
        read_sids(tmp_path / "sids.parquet", [*ITEM_ID[1:], "durian"])


def test_a_table_from_before_the_register_is_read(tmp_path: Path) -> None:
    write_sids(tmp_path / "sids.parquet", table(), ITEM_ID)
    old = pq.read_table(tmp_path / "sids.parquet").drop_columns(["since", "status"])
    pq.write_table(old, tmp_path / "sids.parquet")
    read = read_register(tmp_path / "sids.parquet")
    assert (read.since.tolist(), read.status.tolist()) == ([0, 0, 0], [LISTED] * 3)


def test_a_missing_table_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sids\.parquet is missing: run train_tokenizer first"):
        read_sids(tmp_path / "sids.parquet", ["a"])
