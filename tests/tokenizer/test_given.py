from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark.tokenizer.config import Config
from pressmark.tokenizer.given import fitted_codebooks, read_given

NAMES = np.array(["a", "b", "c"], object)


def write(path: Path, rows: list[tuple[str, list[int | None] | None]]) -> Path:
    pq.write_table(pa.table({"item_id": [one for one, _ in rows], "sid": [sid for _, sid in rows]}), path)
    return path


def test_sids_come_in_the_order_of_the_catalog_and_may_be_shared(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", [("c", [1, 0]), ("z", [0, 0]), ("a", [2, 1]), ("b", [1, 0])])
    assert read_given(path, NAMES, (3, 2)).tolist() == [[2, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", [0, 0]), ("c", [0, 0])], r"1 items of the catalog have no SID there, the first is 'b'"),
        ([("a", [0, 0]), ("a", [0, 0])], r"row 2: item_id 'a' has a SID already"),
        ([("a", [0])], r"row 1: the SID of item_id 'a' is \[0\]; .* asks for 2 codes"),
        ([("a", [0, 2])], r"row 1: .* must lie below tokenizer\.level_sizes \(3, 2\)"),
        ([("a", [-1, 0])], r"row 1: .* must lie below"),
        ([("a", None), ("b", [0, 0])], r"row 1: the SID of item_id 'a' is None"),
        ([("a", [0, None]), ("b", [0, 0])], r"row 1: the SID of item_id 'a' is \[0, None\]"),
    ],
)
def test_what_is_no_sid_is_named(
    tmp_path: Path, rows: list[tuple[str, list[int | None] | None]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_given(write(tmp_path / "s.parquet", rows), NAMES, (3, 2))


def test_a_file_without_the_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": ["a"], "codes": [[0, 0]]}), tmp_path / "s.parquet")
    with pytest.raises(ValueError, match="the column sid is missing"):
        read_given(tmp_path / "s.parquet", NAMES, (3, 2))
    for codes in ([[0.5, 0.0]], ["0_0"], [7]):
        pq.write_table(pa.table({"item_id": ["a"], "sid": codes}), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match=r"the column sid is of type .*; it must be a list of integers"):
            read_given(tmp_path / "t.parquet", NAMES, (3, 2))
    with pytest.raises(ValueError, match=r"nowhere\.parquet is missing"):
        read_given(tmp_path / "nowhere.parquet", NAMES, (3, 2))


def test_an_entry_is_the_mean_of_what_is_left_of_its_items() -> None:
    latents = np.array([[0.0, 2], [4, 2], [10, 0]], np.float32)
    books = fitted_codebooks(latents, np.array([[0, 0], [0, 1], [2, 1]]), (3, 2))
    assert books[0].tolist() == [[2, 2], [0, 0], [10, 0]]
    # Left are (-2, 0), (2, 0) and (0, 0); the last two share code 1.
    assert books[1].tolist() == [[-2, 0], [1, 0]]


def test_a_file_and_its_kind_go_together() -> None:
    with pytest.raises(ValueError, match="go together"):
        Config(kind="given")
    with pytest.raises(ValueError, match="go together"):
        Config(given="sids.parquet")
