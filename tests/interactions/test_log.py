from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pressmark.catalog.items import Catalog, Columns
from pressmark.interactions.log import RULES, Log, load_interactions, summary

COLUMNS = Columns()
NONE = np.full(5, "", object)
CATALOG = Catalog(np.array(list("abcde"), object), NONE, NONE, ((),) * 5)
DROPPED = ("without_user", "without_item", "unknown_item", "duplicate", "without_order")


def load(
    folder: Path, rows: list[tuple[Any, ...]] | str, *names: str
) -> tuple[list[tuple[str, str]], dict[str, int], Log]:
    """(user, item) in the log's order, the counts, and the log; of a CSV text or of rows for a JSONL file."""
    if isinstance(rows, str):
        (folder / "interactions.csv").write_text(rows)
    else:
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        (folder / "interactions.jsonl").write_text("\n".join(lines))
    log, counts = load_interactions(folder, COLUMNS, CATALOG)
    assert list(counts) == list(RULES)
    assert counts["interactions_read"] == counts["interactions"] + sum(
        counts[f"interactions_{one}"] for one in DROPPED
    )
    return list(zip(log.user_id, CATALOG.item_id[log.item_index], strict=True)), counts, log


def items_of(pairs: list[tuple[str, str]], user: str = "u") -> str:
    return "".join(item for one, item in pairs if one == user)


TIMED = ("user_id", "item_id", "timestamp")
PLACED = ("user_id", "item_id", "position")
BOTH = (*TIMED, "position")


def test_rows_are_sorted_by_user_then_position(tmp_path: Path) -> None:
    rows = [("v", "b", 1), ("u", "c", 2), ("u", "a", 3), ("u", "b", 1), ("v", "a", 0)]
    pairs, counts, log = load(tmp_path, rows, *PLACED)
    assert pairs == [("u", "b"), ("u", "c"), ("u", "a"), ("v", "a"), ("v", "b")]
    assert log.position.tolist() == [1, 2, 3, 0, 1]
    assert np.isnan(log.timestamp).all()
    assert counts["interactions_unsorted"] == 2
    assert log.user_offsets().tolist() == [0, 3, 5]


def test_position_goes_before_time_and_ties_of_both_by_item_id(tmp_path: Path) -> None:
    rows = [("u", "d", 5, 1), ("u", "a", 9, 0), ("u", "c", 5, 1), ("u", "b", 4, 1)]
    pairs, _, log = load(tmp_path, rows, *BOTH)
    assert items_of(pairs) == "abcd"
    assert log.timestamp.tolist() == [9, 4, 5, 5]


def test_without_position_time_then_item_id(tmp_path: Path) -> None:
    pairs, counts, log = load(tmp_path, [("u", "c", 7), ("u", "b", 7), ("u", "a", 3)], *TIMED)
    assert items_of(pairs) == "abc"
    assert log.position.tolist() == [-1, -1, -1]
    assert counts["interactions_unsorted"] == 1  # b and c are tied, only a stands behind a later one


def test_sorted_rows_are_not_counted_as_unsorted(tmp_path: Path) -> None:
    rows = [("v", "c", 1), ("u", "c", 5), ("v", "a", 1), ("u", "a", 6)]
    assert load(tmp_path, rows, *TIMED)[1]["interactions_unsorted"] == 0


def test_a_user_with_fewer_positions_than_times_is_ordered_by_time(tmp_path: Path) -> None:
    rows = [("u", "a", 3, 0), ("u", "b", 1, None), ("v", "c", 9, 0), ("v", "d", None, 1), ("v", "e", 5, 2)]
    pairs, counts, _ = load(tmp_path, rows, *BOTH)
    assert items_of(pairs) == "ba"
    assert items_of(pairs, "v") == "cde"
    assert counts["interactions_without_order"] == 0


def test_rows_that_cannot_be_placed_are_dropped(tmp_path: Path) -> None:
    rows = [("u", "a", 3), ("u", "b", None), ("u", "c", "soon"), ("v", "d", 1)]
    pairs, counts, _ = load(tmp_path, rows, *TIMED)
    assert pairs == [("u", "a"), ("v", "d")]
    assert counts["interactions_without_order"] == 2
    assert counts["interactions_unparsable_time"] == 1
    assert counts["interactions_without_time"] == 0


def test_null_and_unparsable_times_are_kept_where_position_gives_the_order(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp,position\nu,a,2011-10-18,0\nu,b,,1\nu,c,soon,2\nu,d,1318896001,3\n"
    pairs, counts, log = load(tmp_path, text)
    assert items_of(pairs) == "abcd"
    np.testing.assert_array_equal(log.timestamp, [1318896000, np.nan, np.nan, 1318896001])
    assert counts["interactions_without_time"] == 2
    assert counts["interactions_unparsable_time"] == 1


def test_duplicates_are_the_same_in_all_four_columns(tmp_path: Path) -> None:
    rows = [("u", "a", 1, 0), ("u", "a", 1, 0), ("u", "a", 1, 1), ("u", "a", 2, 2), ("v", "a", 1, 0)]
    pairs, counts, _ = load(tmp_path, rows, *BOTH)
    assert items_of(pairs) == "aaa"
    assert counts["interactions_duplicate"] == 1


def test_rows_without_times_are_duplicates_of_each_other_too(tmp_path: Path) -> None:
    pairs, counts, _ = load(tmp_path, [("u", "a", None, 0), ("u", "a", None, 0), ("u", "b", None, 1)], *BOTH)
    assert items_of(pairs) == "ab"
    assert counts["interactions_duplicate"] == 1


def test_buying_again_at_another_time_is_no_duplicate(tmp_path: Path) -> None:
    pairs, counts, _ = load(tmp_path, [("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("u", "a", 3)], *TIMED)
    assert items_of(pairs) == "aba"
    assert counts["interactions_duplicate"] == 1


def test_unknown_items_and_missing_ids_are_dropped(tmp_path: Path) -> None:
    rows = [("u", "a", 1), ("u", "x", 2), (None, "a", 3), ("", "a", 4), ("u", None, 5), (None, None, 6)]
    pairs, counts, _ = load(tmp_path, rows, *TIMED)
    assert pairs == [("u", "a")]
    assert counts["interactions_unknown_item"] == 1
    assert counts["interactions_without_user"] == 3
    assert counts["interactions_without_item"] == 1


def test_rows_whose_times_cannot_be_read_are_no_duplicates(tmp_path: Path) -> None:
    rows = [("u", "a", "01.05."), ("u", "a", "02.05."), ("u", "a", "2024-05-03"), ("u", "b", "2024-05-04")]
    _, counts, _ = load(tmp_path, rows, *TIMED)
    assert counts["interactions_duplicate"] == 0
    assert counts["interactions_without_order"] == 2


def test_a_log_of_another_catalog_stops_the_run(tmp_path: Path) -> None:
    rows = [("u", "a", 0)] + [("u", f"0{number}", number) for number in range(20)]
    with pytest.raises(ValueError, match=r"value '00': 20 of 21 rows name an item that the catalog lacks"):
        load(tmp_path, rows, *TIMED)


def test_many_unknown_items_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("u", "a", number) for number in range(10)]
    load(tmp_path, [*rows, ("u", "b0", 10)], *TIMED)
    assert capsys.readouterr().out == ""
    load(tmp_path, [*rows[:4], ("u", "b0", 10), ("u", "c0", 11)], *TIMED)
    assert capsys.readouterr().out == (
        "mind: 33% of the interactions (2) name an item that the catalog lacks and are dropped. "
        "The first is 'b0' (row 5); the catalog has 'b'.\n"
    )


def test_rows_that_are_lost_for_want_of_a_time_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(tmp_path, [("u", "a", 1), ("u", "b", None), ("u", "c", 3)], *TIMED)
    assert capsys.readouterr().out == (
        "mind: 33% of the interactions (1): neither position nor timestamp to place it among its user's: "
        "dropped.\n"
    )


def test_an_item_may_be_called_otherwise_here(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,sku,timestamp\nu,a,1\nu,z,2\n")
    columns = Columns(item_id="id", interaction_item_id="sku")
    log, counts = load_interactions(tmp_path, columns, CATALOG)
    assert log.item_index.tolist() == [0]
    assert counts["interactions_unknown_item"] == 1


def test_a_list_is_no_user(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"interactions\.jsonl: row 2, column 'user_id', value \['u'\]"):
        load(tmp_path, [("u", "a", 1), (["u"], "b", 2)], *TIMED)


def test_short_users_and_items_never_bought_are_counted(tmp_path: Path) -> None:
    rows = [("u", "a", 1), ("v", "a", 1), ("v", "b", 2), ("w", "a", 1), ("w", "b", 2), ("w", "b", 3)]
    _, counts, _ = load(tmp_path, rows, *TIMED)
    assert counts["users"] == 3
    assert counts["users_with_one_interaction"] == 1
    assert counts["users_with_two_interactions"] == 1
    assert counts["items_never_bought"] == 3


def test_ids_meet_whatever_their_type(tmp_path: Path) -> None:
    catalog = Catalog(np.array(["1", "2"], object), NONE[:2], NONE[:2], ((), ()))
    frame = pl.DataFrame({"user_id": [7, 7], "item_id": [2.0, 1.0], "position": [0.0, 1.0]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    log, _ = load_interactions(tmp_path, COLUMNS, catalog)
    assert log.user_id.tolist() == ["7", "7"]
    assert log.item_index.tolist() == [1, 0]


def test_datetimes_of_a_parquet_file(tmp_path: Path) -> None:
    times = [datetime.datetime(2011, 10, 18), None]
    frame = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": times, "position": [0, 1]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    log, counts = load_interactions(tmp_path, COLUMNS, CATALOG)
    assert log.timestamp[0] == 1318896000.0
    assert (counts["interactions_without_time"], counts["interactions_unparsable_time"]) == (1, 0)


def test_columns_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("who,sku,when,comment\nu,b,2,x\nu,a,1,y\n")
    columns = Columns(item_id="sku", user_id="who", timestamp="when")
    log, _ = load_interactions(tmp_path, columns, CATALOG)
    assert log.item_index.tolist() == [0, 1]


# ---- what cannot be used stops the run ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "user_id,item_id,position\nu,a,0\nu,b,one\n",
            "row 2, column 'position', value 'one': a position is an integer",
        ),
        ("user_id,item_id,position\nu,a,0\nu,b,-1\n", "row 2, column 'position', value '-1'"),
        ("user_id,item_id,position\nu,a,0\nu,b,1.5\n", "row 2, column 'position', value '1.5'"),
        (
            "user_id,item_id,timestamp\nu,a,0\nu,b,1318896000000\n",
            "row 2, column 'timestamp', value '1318896000000'",
        ),
        (
            "user_id,item_id,timestamp\nu,a,\nu,b,soon\n",
            "row 2, column 'timestamp', value 'soon': 1 of 2 times cannot be read",
        ),
        ("user_id,item_id,timestamp,position\nu,a,x,1\n", "row 1, column 'timestamp', value 'x'"),
        (
            "user_id,item_id,timestamp\nu,x,1\nu,y,2\n",
            "row 1, column 'item_id', value 'x': 2 of 2 rows name an item",
        ),
        (
            "user_id,item_id,timestamp\nu,a,20240531\nu,b,20240601\n",
            "row 1, column 'timestamp', value '20240531': every time of the file reads as a date",
        ),
        (
            'user_id,item_id,timestamp\n"u,a,1\nu",b,2\n',
            "row 1, column 'user_id', value 'u,a,1\\nu': an id holds no line break",
        ),
        ("user_id,item_id,timestamp\nu,a,\nu,b,\n", "not one row has a timestamp or a position"),
        (
            "user_id,item_id,timestamp\n,a,1\nu,,2\n",
            "row 1, column 'item_id', value None: not one row of the file",
        ),
        ("user_id,item_id\nu,a\n", "neither a column 'timestamp' nor 'position'"),
        ("user_id,timestamp\nu,1\n", "no column 'item_id'"),
        ("user_id,item_id,timestamp\n", "no row"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "interactions.csv").write_text(text)
    with pytest.raises(ValueError, match=r"interactions\.csv: .*" + re.escape(message)):
        load_interactions(tmp_path, COLUMNS, CATALOG)


def test_an_id_that_is_not_utf8_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_bytes(b"user_id,item_id,position\nu,a,0\n\xe9,a,0\n")
    with pytest.raises(ValueError, match="row 2, column 'user_id', value '\ufffd'"):
        load_interactions(tmp_path, COLUMNS, CATALOG)


def test_two_files_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").touch()
    (tmp_path / "interactions.jsonl").touch()
    with pytest.raises(ValueError, match="both there"):
        load_interactions(tmp_path, COLUMNS, CATALOG)


def test_the_summary_shows_what_was_found() -> None:
    text = summary(
        {
            "items": 12101,
            "items_duplicate_id": 0,
            "items_without_title": 0,
            "interactions_duplicate": 0,
            "split_seed": 0,
            "split_protocol": "cold_items",
            "split_cold_share": 0.05,
            "split_cases": 7,
            "split_cold_items": 0,
        }
    )
    assert text.splitlines() == [
        "12,101  items in the catalog",
        "     7  split cases",
        "     0  items: duplicate id, without title; interactions: duplicate",
        "        protocol cold_items, seed 0, cold_share 0.05",
    ]


# ---- against a slow oracle that knows only the rules ----

rows = st.tuples(
    st.sampled_from(["u", "v", "w"]),
    st.sampled_from("abcx"),
    st.one_of(st.none(), st.integers(0, 3)),
    st.one_of(st.none(), st.integers(0, 3)),
)


def oracle(rows: list[tuple[str, str, int | None, int | None]]) -> list[tuple[str, str]]:
    distinct = [row for row in dict.fromkeys(rows) if row[1] != "x"]
    log = []
    for user in sorted({row[0] for row in distinct}):
        own = [row for row in distinct if row[0] == user]
        by_position = sum(row[3] is not None for row in own) >= sum(row[2] is not None for row in own)
        placed = [row for row in own if row[3 if by_position else 2] is not None]

        def key(row: tuple[Any, ...], by_position: bool = by_position) -> tuple[Any, ...]:
            time = -1 if row[2] is None else row[2]
            return (row[3], time, row[1]) if by_position else (time, row[1])

        log += [(user, row[1]) for row in sorted(placed, key=key)]
    return log


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, max_size=20))
def test_the_log_agrees_with_the_oracle(
    tmp_path: Path, rows: list[tuple[str, str, int | None, int | None]]
) -> None:
    rows = [*rows, ("z", "a", 1, 1)]
    assert load(tmp_path, rows, *BOTH)[0] == oracle(rows)


def test_where_an_interaction_took_place_is_kept(tmp_path: Path) -> None:
    rows = [("v", "b", 1, "north"), ("u", "c", 2, None), ("u", "a", 1, " web ")]
    _, _, log = load(tmp_path, rows, *PLACED, "context")
    assert log.context is not None
    assert log.context.tolist() == ["web", "", "north"]


def test_without_such_a_column_nothing_is_known_of_it(tmp_path: Path) -> None:
    assert load(tmp_path, [("v", "b", 1)], *PLACED)[2].context is None
