"""A user's own table: find the file, read the wanted columns as they stand, say where a bad value is."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

# The file's row number of each record, from 1, a CSV's header not counted; no user's column has this name.
ROW = "#row"
_REPLACEMENT = "\ufffd"
_FORMATS = ("parquet", "csv", "jsonl")
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
# Stands for a value that is no text; NUL keeps it apart from anything a file can hold.
_NOT_TEXT = "\0not text"


def unusable(file: Path, row: int, column: str, value: object, rule: str, remedy: str) -> ValueError:
    """The error for a value that cannot be used."""
    return ValueError(f"{file}: row {row}, column {column!r}, value {value!r}: {rule}. {remedy}")


def find_table(folder: Path, name: str) -> Path:
    """The one file `<name>.parquet`, `<name>.csv` or `<name>.jsonl` of a folder.

    Raises:
        ValueError: If there is none, or more than one.
    """
    wanted = [Path(folder) / f"{name}.{ending}" for ending in _FORMATS]
    found = [path for path in wanted if path.is_file()]
    for path in wanted:
        if path.is_dir():
            raise ValueError(f"{path}: a folder (Spark writes such); it must be one file. Merge its parts.")
    if not found:
        names = ", ".join(path.name for path in wanted)
        there = sorted(path.name for path in Path(folder).glob("*") if not path.name.startswith("."))[:10]
        raise ValueError(
            f"{folder}: none of {names} is there, but {', '.join(there) or 'nothing'}. "
            "Put one of them in this folder (data.path)."
        )
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ValueError(
            f"{folder}: {names} are both there. Keep one: which of them holds the truth is not known."
        )
    return found[0]


def check_format(file: Path) -> None:
    """Raises ValueError unless `file` is there and of a form that `read_table` reads."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file.")
    if file.suffix[1:] not in _FORMATS:
        raise ValueError(f"{file}: the name must end in .{', .'.join(_FORMATS)}.")


def read_table(file: Path, required: Mapping[str, str], optional: Mapping[str, str]) -> pl.DataFrame:
    """The frame of `read_columns`."""
    return read_columns(file, required, optional)[0]


def read_columns(
    file: Path, required: Mapping[str, str], optional: Mapping[str, str]
) -> tuple[pl.DataFrame, list[str]]:
    """Reads columns of a parquet, CSV or JSONL file; no value is changed but undecodable bytes.

    Bytes that are not UTF-8 become U+FFFD. A CSV's blank lines are skipped.

    Args:
        file: What `find_table` found.
        required: Our name -> the file's name, for columns that must be there.
        optional: The same for columns that may be absent.

    Returns:
        A frame with the columns found, under our names, and ROW (int64). CSV columns are strings; JSONL
        columns with mixed types or lists have the dtype Object. And the names of the file's other columns.

    Raises:
        ValueError: If the file cannot be read, a required column is absent, or there is no row.
    """
    import polars as pl

    reader = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}[file.suffix]
    try:
        present, frame = reader(file, [*required.values(), *optional.values()])
    except (pl.exceptions.PolarsError, csv.Error, OSError) as error:
        raise ValueError(
            f"{file}: cannot be read as {file.suffix[1:]} ({str(error).splitlines()[0]})."
        ) from error
    if frame.is_empty() and not present:
        raise ValueError(f"{file}: the file is empty. It needs at least one row.")
    for name in required.values():
        if name not in present:
            raise _missing_column(file, name, present)
    if frame.is_empty():
        raise ValueError(f"{file}: the table has columns but no row. It needs at least one row.")
    names = {ours: theirs for ours, theirs in {**required, **optional}.items() if theirs in present}
    unread = [name for name in present if name and name not in names.values()]
    return frame.select(ROW, *(pl.col(theirs).alias(ours) for ours, theirs in names.items())), unread


def as_text(frame: pl.DataFrame, name: str, file: Path, column: str) -> pl.Series:
    """A column as strings; null stays null.

    Numbers that a writer turned into floats because of a null (12.0) come back whole ("12"); a list of
    strings is joined with spaces.

    Args:
        frame: From `read_table`.
        name: Our name of the column.
        file: For the message.
        column: The file's name of the column.

    Raises:
        ValueError: If a value is neither a string, a number nor a list of them.
    """
    import polars as pl

    values = frame[name]
    kind = values.dtype
    if kind == pl.String:
        return values
    if kind.is_float():
        values = values.fill_nan(None)
        whole = bool(((values % 1 == 0) & (values.abs() < 2**53)).all())
        return (values.cast(pl.Int64) if whole else values).cast(pl.String)
    if kind.is_nested() or kind in (pl.Object, pl.Binary):
        texts = [_text(one) for one in values.to_list()]
        if _NOT_TEXT in texts:
            bad = texts.index(_NOT_TEXT)
            rule = "the value is neither a string, a number nor a list of them"
            raise unusable(file, int(frame[ROW][bad]), column, values.to_list()[bad], rule, "Write one string.")
        return pl.Series(name, texts, pl.String)
    return values.cast(pl.String)


def not_utf8(column: pl.Series) -> pl.Series:
    """Which strings held bytes that were not UTF-8: bool, False for null."""
    return column.str.contains(_REPLACEMENT, literal=True).fill_null(False)


def read_ids(frame: pl.DataFrame, name: str, file: Path, column: str) -> pl.Series:
    """An id column as strings, exactly as written; null for null and "". Arguments as for `as_text`.

    Raises:
        ValueError: For an id that is a list, that is not UTF-8 (replacing its bytes could make two ids one), or
            that holds a line break (a stray quote has swallowed the rows behind it).
    """
    import polars as pl

    kind = frame[name].dtype
    lists = kind.is_nested() or kind == pl.Object
    for row, value in zip(frame[ROW], frame[name].to_list(), strict=True) if lists else ():
        if isinstance(value, (list, tuple, dict)):
            raise unusable(file, row, column, value, "an id is one string or number", "Write no list.")
    ids = as_text(frame, name, file, column)
    for bad, rule, remedy in (
        (not_utf8(ids), "an id must be valid UTF-8", "Save the file as UTF-8."),
        (ids.str.contains("\n", literal=True), "an id holds no line break", "Close the quote before it."),
    ):
        if bad.any():
            row = int(bad.arg_true()[0])
            raise unusable(file, int(frame[ROW][row]), column, ids[row][:80], rule, remedy)
    return ids.to_frame().select(pl.when(pl.col(name) != "").then(pl.col(name))).to_series()


def _missing_column(file: Path, name: str, present: Sequence[str]) -> ValueError:
    near = difflib.get_close_matches(name, present, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    other = next((mark for mark in (";", "\t", "|") if any(mark in one for one in present)), "")
    comma = f" Fields of a CSV are separated by commas; here it seems to be {other!r}." if other else ""
    if any("\0" in one or _REPLACEMENT in one for one in present):
        comma = " Is it UTF-16? Save it as UTF-8."
    return ValueError(
        f"{file}: no column {name!r}; the file has {', '.join(map(repr, present))}.{hint}{comma} "
        "Column names are mapped by data.columns, such as --data.columns.item_id sku."
    )


def _read_parquet(file: Path, wanted: Sequence[str]) -> tuple[list[str], pl.DataFrame]:
    import polars as pl

    present = list(pl.read_parquet_schema(file))
    columns = [name for name in present if name in wanted]
    try:
        frame = pl.read_parquet(file, columns=columns)
    except pl.exceptions.ComputeError as error:
        if "UTF-8" not in str(error):
            raise
        frame = _decoded_parquet(file, columns)
    return present, _with_row_numbers(frame)


def _decoded_parquet(file: Path, columns: list[str]) -> pl.DataFrame:
    """Some writers put Latin-1 bytes in a column that they call UTF-8; polars refuses the whole file."""
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(one) for one in value]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def as_bytes(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return pa.large_binary()
        return pa.large_list(as_bytes(kind.value_type)) if hasattr(kind, "value_type") else kind

    table = pq.read_table(file, columns=columns)
    raw = {name: table[name].cast(as_bytes(table[name].type)).to_pylist() for name in columns}
    return pl.DataFrame({name: [decode(value) for value in values] for name, values in raw.items()})


def _read_csv(file: Path, wanted: Sequence[str]) -> tuple[list[str], pl.DataFrame]:
    import polars as pl

    data = _utf8(file.read_bytes())
    header = next(csv.reader(io.StringIO(data[:100_000].decode("utf-8-sig", "ignore"))), [])
    if header and not set(wanted) & set(header):
        raise _missing_column(file, wanted[0], header)
    try:
        # Every column as strings: "0012" is an id, not the number 12.
        frame = pl.read_csv(io.BytesIO(data), infer_schema=False)
    except pl.exceptions.NoDataError:
        return [], pl.DataFrame()
    except pl.exceptions.ComputeError:
        frame = _tolerant_csv(file, data)
    for name in wanted:
        if f"{name}_duplicated_0" in frame.columns:
            raise ValueError(f"{file}: two columns are called {name!r}. Rename or delete one of them.")
    numbered = _with_row_numbers(frame).filter(~pl.all_horizontal(pl.exclude(ROW).is_null()))
    # polars fills a short row up with nulls.
    if len(header) > 1 and numbered[header[-1]].null_count():
        _refuse_short_rows(file, data)
    return frame.columns, numbered


def _refuse_short_rows(file: Path, data: bytes) -> None:
    """A row with fewer values than the header: a stray quote has swallowed its end, or a value is missing."""
    records = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    header = next(records)
    for row, record in enumerate(records, 1):
        if record and len(record) < len(header):
            rule = f"the header has {len(header)} columns, this row has {len(record)}"
            remedy = "Write an empty value for each one that is missing; close every quote."
            raise unusable(file, row, "(row)", ",".join(record)[:80], rule, remedy)


def _tolerant_csv(file: Path, data: bytes) -> pl.DataFrame:
    """Python's parser: slower, takes an inch sign in an unquoted value (5" pipe), knows the row it stops at."""
    import polars as pl

    records = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    header = next(records)
    rows: list[list[str | None]] = []
    try:
        for record in records:
            if len(record) > len(header):
                rule = f"the header has {len(header)} columns, this row has {len(record)}"
                remedy = "Put quotes around values that hold a comma."
                raise unusable(file, len(rows) + 1, "(behind the last)", record[len(header)], rule, remedy)
            rows.append([one or None for one in record] + [None] * (len(header) - len(record)))
    except csv.Error as error:
        rule, remedy = f"not valid CSV ({error})", 'Close every quote; write a quote inside quotes as "".'
        lines = data.decode("utf-8-sig").splitlines()
        seen = lines[min(records.line_num, len(lines)) - 1][:80]
        raise unusable(file, len(rows) + 1, "(row)", seen, rule, remedy) from None
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
    return pl.DataFrame(
        [pl.Series(name, values, pl.String) for name, values in zip(header, columns, strict=True)]
    )


def _read_jsonl(file: Path, wanted: Sequence[str]) -> tuple[list[str], pl.DataFrame]:
    import polars as pl

    present: dict[str, None] = {}
    rows: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    # Lines end at \n alone: str.splitlines would also break a title at U+2028.
    for row, line in enumerate(_utf8(file.read_bytes()).decode("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        record = _json_object(file, row, line)
        present.update(dict.fromkeys(record))
        rows.append(row)
        for name, values in columns.items():
            values.append(record.get(name))
    series = [_json_series(name, values) for name, values in columns.items() if name in present]
    return list(present), pl.DataFrame([pl.Series(ROW, rows, pl.Int64), *series])


def _json_object(file: Path, row: int, line: str) -> dict[str, Any]:
    remedy = 'Write one object a line, such as {"item_id": "1"}.'
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise unusable(file, row, "(line)", line[:80], f"not valid JSON ({error})", remedy) from None
    if not isinstance(record, dict):
        raise unusable(file, row, "(line)", line[:80], "not a JSON object", remedy)
    return _without_half_characters(record) if _HALF_CHARACTER.search(line) else record


def _without_half_characters(value: Any) -> Any:
    """Half of a surrogate pair, as a cut-off emoji leaves it, is no UTF-8: it becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_half_characters(one) for one in value]
    if isinstance(value, dict):
        return {_without_half_characters(key): _without_half_characters(one) for key, one in value.items()}
    return value


def _json_series(name: str, values: list[Any]) -> pl.Series:
    import polars as pl

    kinds = {type(value) for value in values} - {type(None)}
    dtype = {str: pl.String, int: pl.Int64, float: pl.Float64}.get(kinds.pop()) if len(kinds) == 1 else None
    try:
        return pl.Series(name, values, dtype or pl.Object)
    except (OverflowError, TypeError):  # an integer beyond 64 bits is still a fine id
        return pl.Series(name, values, pl.Object)


def _utf8(data: bytes) -> bytes:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode("utf-8")
    return data


def _text(value: Any) -> str | None:
    if value is None or value != value:  # NaN is JSON's and pandas' missing value
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        parts = [_text(one) for one in value]
        return _NOT_TEXT if _NOT_TEXT in parts else " ".join(filter(None, parts))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, (str, int, float)) else _NOT_TEXT


def _with_row_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW))
