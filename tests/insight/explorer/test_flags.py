from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark.insight.categories.findings import SCHEMA
from pressmark.insight.explorer.flags import Flag, read_flags


def test_the_file_of_an_audit(tmp_path: Path) -> None:
    rows = [
        {"item_id": "a", "suggested": ["Dairy > Milk", "Vegan"], "confidence": 0.9, "severity": 0.254},
        {"item_id": "b", "suggested": [], "confidence": 0.5, "severity": 1.0},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "audit.parquet")
    assert read_flags(tmp_path / "audit.parquet") == [
        Flag("a", "Dairy > Milk", 0.9, 0.254),
        Flag("b", "", 0.5, 1.0),
    ]


def test_what_is_no_audit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_flags(tmp_path / "none.parquet")
    pq.write_table(pa.table({"item_id": ["a"], "suggested": [["x"]]}), tmp_path / "d.parquet")
    with pytest.raises(ValueError, match="no column 'confidence', but item_id, suggested"):
        read_flags(tmp_path / "d.parquet")
    (tmp_path / "e.parquet").write_text("no")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read_flags(tmp_path / "e.parquet")
