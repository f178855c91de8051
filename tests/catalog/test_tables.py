from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pressmark.catalog.tables import ROW, as_text, find_table, read_ids, read_table


def read(folder: Path, ending: str, data: bytes | str, *names: str) -> pl.DataFrame:
    file = folder / f"items.{ending}"
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(file, {name: name for name in names}, {"extra": "extra"})


def test_the_one_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").touch()
    (tmp_path / "items.txt").touch()
    assert find_table(tmp_path, "items") == tmp_path / "items.jsonl"


def test_no_file_or_two_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of items\.parquet, items\.csv, items\.jsonl"):
        find_table(tmp_path, "items")
    (tmp_path / "items.csv").touch()
    (tmp_path / "items.parquet").touch()
    with pytest.raises(ValueError, match=r"items\.parquet and items\.csv are both there\. Keep one"):
        find_table(tmp_path, "items")


@pytest.mark.parametrize(
    ("ending", "data"), [("csv", ""), ("csv", "a,b\n"), ("csv", "a,b\n\n\n"), ("jsonl", ""), ("jsonl", "\n\n")]
)
def test_an_empty_table_stops_the_run(tmp_path: Path, ending: str, data: str) -> None:
    with pytest.raises(ValueError, match=rf"items\.{ending}: .*needs at least one row"):
        read(tmp_path, ending, data, "a")


def test_an_empty_parquet_stops_the_run(tmp_path: Path) -> None:
    pl.DataFrame({"a": []}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="no row"):
        read_table(tmp_path / "items.parquet", {"a": "a"}, {})


@pytest.mark.parametrize(
    ("ending", "data"),
    [("csv", "item_idd,b\n1,2\n"), ("jsonl", '{"item_idd": 1, "b": 2}\n'), ("parquet", None)],
)
def test_a_missing_column_stops_the_run_and_the_nearest_is_named(
    tmp_path: Path, ending: str, data: str | None
) -> None:
    if data is None:
        pl.DataFrame({"item_idd": [1], "b": [2]}).write_parquet(tmp_path / "items.parquet")
        data = (tmp_path / "items.parquet").read_bytes()
    with pytest.raises(
        ValueError, match=r"no column 'item_id'; the file has 'item_idd', 'b'\. Did you mean 'item_idd'"
    ):
        read(tmp_path, ending, data, "item_id")


def test_a_csv_with_semicolons_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="separated by commas"):
        read(tmp_path, "csv", "item_id;title\n1;x\n", "item_id")


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    assert read(tmp_path, "csv", "a\n1\n", "a").columns == [ROW, "a"]
    assert read(tmp_path, "csv", "a,extra\n1,2\n", "a").columns == [ROW, "a", "extra"]


def test_csv_values_stay_strings_and_quotes_protect_commas_and_lines(tmp_path: Path) -> None:
    frame = read(tmp_path, "csv", '\ufeffa,b\n0012,"x, ""y"""\n\n2,"two\nlines"\n3,\n', "a", "b")
    assert frame["a"].to_list() == ["0012", "2", "3"]
    assert frame["b"].to_list() == ['x, "y"', "two\nlines", None]
    assert frame[ROW].to_list() == [1, 3, 4]


def test_an_inch_sign_in_an_unquoted_value_is_a_value(tmp_path: Path) -> None:
    frame = read(tmp_path, "csv", 'a,b\n1,12" pan\n2,"x, y"\n3,\n', "a", "b")
    assert frame["b"].to_list() == ['12" pan', "x, y", None]


def test_a_row_with_too_many_values_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"items\.csv: row 2, .*'c': the header has 2 columns, this row has 3\. Put quotes"
    ):
        read(tmp_path, "csv", "a,b\n1,2\n2,b,c\n", "a")


def test_a_row_with_too_few_values_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"items\.csv: row 2, .*'2': the header has 2 columns, this row has 1"):
        read(tmp_path, "csv", "a,b\n1,x\n2\n", "a")


def test_a_stray_quote_cannot_swallow_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"items\.csv: row 1, .*this row has 1"):
        read(tmp_path, "csv", 'a,b\n"1,x\n2,y"\n3,z\n', "a")


@pytest.mark.parametrize("number", [2**63, 2**70])
def test_integers_of_any_size_are_ids(tmp_path: Path, number: int) -> None:
    frame = read(tmp_path, "jsonl", f'{{"a": {number}}}\n{{"a": 1}}\n', "a")
    assert as_text(frame, "a", tmp_path, "a").to_list() == [str(number), "1"]


@pytest.mark.parametrize("line", ['{"a": ' + "9" * 5000 + "}", "[" * 100_000])
def test_what_json_cannot_hold_names_the_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"items\.jsonl: row 2, column '\(line\)'"):
        read(tmp_path, "jsonl", '{"a": 1}\n' + line, "a")


def test_a_quote_that_swallows_the_file_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"items\.csv: cannot be read as csv"):
        read(tmp_path, "csv", 'a,b\n1,"' + "x,\n" * 100_000 + '"\n2\n', "a")


def test_a_header_that_ends_in_a_comma(tmp_path: Path) -> None:
    assert read(tmp_path, "csv", "a,b,\n1,2,\n", "a", "b")["b"].to_list() == ["2"]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").mkdir()
    with pytest.raises(ValueError, match=r"items\.parquet: a folder"):
        find_table(tmp_path, "items")


def test_what_lies_there_instead_is_named(tmp_path: Path) -> None:
    (tmp_path / "items.csv.gz").touch()
    with pytest.raises(ValueError, match=r"but items\.csv\.gz"):
        find_table(tmp_path, "items")


@pytest.mark.parametrize(("text", "hint"), [("a;b\n1;2\n", "seems to be ';'"), ("a\tb\n1\t2,3\n", r"'\\t'")])
def test_other_separators_are_recognised(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"no column 'a'.*{hint}"):
        read(tmp_path, "csv", text, "a")


def test_utf16_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match="Save it as UTF-8"):
        read_table(tmp_path / "items.csv", {"a": "a"}, {})


def test_an_unclosed_quote_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"items\.csv: row 2, .*not valid CSV.*Close every quote"):
        read(tmp_path, "csv", 'a,b\n1,2\n2,"b\n3,4\n', "a")


def test_a_column_twice_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        read(tmp_path, "csv", "a,b,a\n1,2,3\n", "a")


@pytest.mark.parametrize("line", ['{"a": 1', "[1]", "3"])
def test_a_line_that_is_no_json_object_stops_the_run(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"items\.jsonl: row 2, .*Write one object a line"):
        read(tmp_path, "jsonl", '{"a": 1}\n' + line + "\n", "a")


def test_a_truncated_parquet_stops_the_run(tmp_path: Path) -> None:
    pl.DataFrame({"a": ["x"] * 100}).write_parquet(tmp_path / "items.parquet")
    data = (tmp_path / "items.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"items\.parquet: cannot be read as parquet"):
        read(tmp_path, "parquet", data[: len(data) // 2], "a")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_bytes_that_are_not_utf8_become_replacement_characters(tmp_path: Path, ending: str) -> None:
    data = {"csv": b"a,b\n1,caf\xe9\n", "jsonl": b'{"a": "1", "b": "caf\xe9"}\n'}[ending]
    assert read(tmp_path, ending, data, "b")["b"].to_list() == ["caf\ufffd"]


def test_a_parquet_string_column_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    offsets, data = pa.py_buffer(b"\x00\0\0\0\x02\0\0\0\x04\0\0\0"), pa.py_buffer(b"a\xe9bc")
    bad = pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])
    nested = pa.ListArray.from_arrays(pa.array([0, 2, 2], pa.int32()), bad)
    pq.write_table(pa.table({"a": bad, "b": nested, "extra": [1, 2]}), tmp_path / "items.parquet")
    frame = read_table(tmp_path / "items.parquet", {"a": "a", "b": "b"}, {"extra": "extra"})
    assert frame["a"].to_list() == ["a\ufffd", "bc"]
    assert frame["b"].to_list() == [["a\ufffd", "bc"], []]
    assert frame["extra"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([1.0, None, float("nan")]), ["1", None, None]),
        (pl.Series([1.5, 2.0]), ["1.5", "2.0"]),
        (pl.Series([7, None]), ["7", None]),
        (pl.Series([b"ab", b"\xff"]), ["ab", "\ufffd"]),
        (pl.Series([["a", None, "b"], None]), ["a b", None]),
        (pl.Series([1, "a", 2.0, ["x", 3]], dtype=pl.Object), ["1", "a", "2", "x 3"]),
        (pl.Series([None, None]), [None, None]),
        (pl.Series(["x", "y"], dtype=pl.Categorical), ["x", "y"]),
    ],
)
def test_any_scalar_column_becomes_text(values: pl.Series, expected: list[str | None]) -> None:
    assert as_text(pl.DataFrame({"a": values}), "a", Path("f"), "a").to_list() == expected


def test_a_struct_is_no_text() -> None:
    frame = pl.DataFrame({ROW: [4], "a": [{"x": 1}]})
    with pytest.raises(ValueError, match=r"f: row 4, column 'theirs', value .*: the value is neither a string"):
        as_text(frame, "a", Path("f"), "theirs")


def test_ids_of_any_type_meet_as_strings(tmp_path: Path) -> None:
    frame = read(tmp_path, "jsonl", '{"a": 12}\n{"a": "12"}\n{"a": 12.0}\n{"a": ""}\n{"b": 1}\n', "a")
    assert read_ids(frame, "a", Path("f"), "a").to_list() == ["12", "12", "12", None, None]


@pytest.mark.parametrize("others", ["", '{"a": 7}\n', '{"a": "x"}\n'])
def test_a_list_is_no_id(tmp_path: Path, others: str) -> None:
    frame = read(tmp_path, "jsonl", others + '{"a": ["x"]}\n', "a")
    row = 2 if others else 1
    with pytest.raises(ValueError, match=rf"f: row {row}, column 'a', value \['x'\]: an id is one string"):
        read_ids(frame, "a", Path("f"), "a")


cells = st.text(alphabet='ab,"\n 5é|>', max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_what_a_csv_writer_writes_is_read(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("a", "b"), *rows])
    frame = read(tmp_path, "csv", text.getvalue() + "end,end\n", "a", "b")
    found = [(a or "", b or "") for a, b in frame.select("a", "b").rows()]
    assert found == [row for row in rows if row != ("", "")] + [("end", "end")]
