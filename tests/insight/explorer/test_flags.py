from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark.insight.explorer.flags import Flag, read_flags


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_all_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path / "audit.parquet",
        item_id=["a", "b", "c"],
        kind=["wrong_category", "no_category", None],
        suggested_path=[["Dairy", "Milk"], [], None],
        confidence=[0.9, float("nan"), None],
        severity=["high", None, "2"],
    )
    assert read_flags(path) == [
        Flag("a", "wrong category", "Dairy > Milk", 0.9, "high"),
        Flag("b", "no category", "", None, ""),
        Flag("c", "flagged", "", None, "2"),
    ]


def test_paths_as_text_and_as_lists_of_paths_and_absent_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", item_id=[1], suggested_path=[[["Dairy", "Milk"], ["Vegan"]]])
    assert read_flags(path) == [Flag("1", "flagged", "Dairy > Milk")]
    path = write(tmp_path / "b.parquet", item_id=["a"], suggested_path=["Dairy > Milk"], severity=[0.25])
    assert read_flags(path) == [Flag("a", "flagged", "Dairy > Milk", None, "0.25")]
    assert read_flags(write(tmp_path / "c.parquet", item_id=["a", None])) == [Flag("a", "flagged")]


def test_what_is_no_audit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_flags(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no column 'item_id', but name"):
        read_flags(write(tmp_path / "d.parquet", name=["a"]))
    (tmp_path / "e.parquet").write_text("no")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read_flags(tmp_path / "e.parquet")
