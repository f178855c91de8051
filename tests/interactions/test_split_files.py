from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.interactions.same import assert_same

from pressmark.catalog.items import Catalog, write_catalog
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split, write_split

NONE = np.full(5, "", object)
CATALOG = Catalog(np.array(["a", "b", "c", "d", "é"], object), NONE, NONE, ((),) * 5)


def users(*names: str) -> np.ndarray:
    return np.array(names, object)


SPLIT = Split(
    train=Histories.from_lists([[0, 1], [4], [2, 2, 0]]),
    train_user_id=users("u", "v", "1"),
    train_timestamp=np.array([1.0, 0.1 + 0.2, np.nan, -5.25, 1318896000.123456, 0.0]),
    train_position=np.array([0, -1, 7, 1, 2, 3]),
    valid=Cases(
        np.array([0, 1]),
        users("u", "1"),
        Histories.from_lists([[], [2, 2]]),
        np.array([1, 4]),
        np.array([False, True]),
    ),
    test=Cases(np.array([2]), users("v"), Histories.from_lists([[4, 1]]), np.array([3]), np.array([True])),
    cold=np.array([False, False, False, True, False]),
    fitted_on=np.array([True, True, True, False, False]),
    counts={
        "split_protocol": "cold_items",
        "split_cases": 3,
        "split_cold_share": 0.05,
        "split_tokenizer_sees_cold": False,
    },
)
EMPTY = Cases(
    np.zeros(0, np.int64), users(), Histories.from_lists([]), np.zeros(0, np.int64), np.zeros(0, bool)
)


PLACES = dataclasses.replace(
    SPLIT,
    train_context=users("n", "", "s", "s", "n", "n"),
    valid=dataclasses.replace(SPLIT.valid, context=users("n", "")),
    test=dataclasses.replace(SPLIT.test, context=users("s")),
)


BETWEEN = dataclasses.replace(SPLIT, between=np.array([[4.0, 0.0], [2.5, 1318896000.123456]]))


@pytest.mark.parametrize(
    "split",
    [SPLIT, dataclasses.replace(SPLIT, valid=EMPTY), PLACES, BETWEEN],
    ids=["full", "no validation", "with contexts", "between cuts"],
)
def test_a_split_comes_back_bit_by_bit(tmp_path: Path, split: Split) -> None:
    write_split(tmp_path, split, CATALOG)
    again = read_split(tmp_path, CATALOG)
    assert_same(split, again)
    assert again.counts == split.counts


def test_what_was_bought_between_the_cuts_does_not_stay_behind(tmp_path: Path) -> None:
    write_split(tmp_path, BETWEEN, CATALOG)
    write_split(tmp_path, BETWEEN.held_back(), CATALOG)
    assert not (tmp_path / "between.parquet").exists()
    assert not read_split(tmp_path, CATALOG).between.size


def test_a_temporal_split_without_what_was_bought_between_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, dataclasses.replace(BETWEEN, counts={"split_protocol": "temporal"}), CATALOG)
    path, record = tmp_path / "between.parquet", json.loads((tmp_path / "split.json").read_text())
    assert record["between"] == 2
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(ValueError, match=r"between\.parquet: 1 rows, but split\.json counts 2"):
        read_split(tmp_path, CATALOG)
    path.unlink()
    with pytest.raises(ValueError, match=r"between\.parquet"):
        read_split(tmp_path, CATALOG)
    del record["between"]
    (tmp_path / "split.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"split\.json.*by an earlier version.*between the cuts"):
        read_split(tmp_path, CATALOG)


def test_the_files_are_those_of_the_evaluation_page(tmp_path: Path) -> None:
    write_split(tmp_path, SPLIT, CATALOG)
    train = pq.read_table(tmp_path / "train.parquet")
    assert train.column_names == ["user_id", "item_id", "timestamp", "position"]
    assert train.column("user_id").to_pylist() == ["u", "u", "v", "1", "1", "1"]
    assert train.column("item_id").to_pylist() == ["a", "b", "é", "c", "c", "a"]
    assert train.column("timestamp").to_pylist()[2] is None
    assert train.column("position").to_pylist() == [0, None, 7, 1, 2, 3]
    valid = pq.read_table(tmp_path / "valid.parquet")
    assert valid.schema.names == ["case_id", "user_id", "history", "item_id", "cold"]
    assert str(valid.schema.field("case_id").type) == "int64"
    assert valid.to_pylist() == [
        {"case_id": 0, "user_id": "u", "history": [], "item_id": "b", "cold": False},
        {"case_id": 1, "user_id": "1", "history": ["c", "c"], "item_id": "é", "cold": True},
    ]
    assert pq.read_table(tmp_path / "cold_items.parquet").to_pydict() == {"item_id": ["d"]}
    record = json.loads((tmp_path / "split.json").read_text())
    assert record["not_fitted_on"] == ["d", "é"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["train.parquet", "valid.parquet", "test.parquet", "cold_items.parquet", "split.json"]
    )


def test_a_split_of_another_catalog_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, SPLIT, CATALOG)
    other = dataclasses.replace(CATALOG, title=np.full(5, "x", object))
    with pytest.raises(ValueError, match=r"split\.json: made of the catalog"):
        read_split(tmp_path, other)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split\.json is missing: prepare the run first"):
        read_split(tmp_path, CATALOG)
    write_split(tmp_path, SPLIT, CATALOG)
    data = (tmp_path / "test.parquet").read_bytes()
    (tmp_path / "test.parquet").write_bytes(data[:100])
    with pytest.raises(ValueError, match=r"test\.parquet: cannot be read"):
        read_split(tmp_path, CATALOG)
    write_split(tmp_path, SPLIT, CATALOG)
    (tmp_path / "valid.parquet").unlink()
    with pytest.raises(ValueError, match=r"valid\.parquet is missing"):
        read_split(tmp_path, CATALOG)


def test_an_item_that_the_catalog_lacks_is_named(tmp_path: Path) -> None:
    write_split(tmp_path, SPLIT, CATALOG)
    cold = pq.read_table(tmp_path / "cold_items.parquet").set_column(0, "item_id", [["ghost"]])
    pq.write_table(cold, tmp_path / "cold_items.parquet")
    with pytest.raises(ValueError, match="names the item 'ghost', which the catalog lacks"):
        read_split(tmp_path, CATALOG)


def test_reading_needs_no_polars(tmp_path: Path) -> None:
    write_catalog(tmp_path / "items.parquet", CATALOG)
    write_split(tmp_path, SPLIT, CATALOG)
    code = f"""
import sys
sys.modules["polars"] = None  # importing it now fails
from pathlib import Path
from pressmark.catalog.items import read_catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.interactions.split_files import read_split
catalog = read_catalog(Path({str(tmp_path / "items.parquet")!r}))
split = read_split(Path({str(tmp_path)!r}), catalog)
print(len(split.train), build_taxonomy(catalog.category).num_nodes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["3", "0"], done.stderr
