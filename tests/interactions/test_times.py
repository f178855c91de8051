from __future__ import annotations

import datetime
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pressmark.interactions.times import parse_times, strange_times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 1318896000.25 ", 1318896000.25),
        ("2011-10-18", 1318896000.0),
        ("2011-10-18T00:00:00Z", 1318896000.0),
        ("2011-10-18 01:00:00+01:00", 1318896000.0),
        ("2011-10-17T22:30-0130", 1318896000.0),
        ("2011-10-18T00:00:00.5", 1318896000.5),
        ("1969-12-31T23:59:59Z", -1.0),
        ("2011-02-30", None),
        ("2011-10-18T24:00", None),
        ("2011-10-18T00:60", None),
        ("18.10.2011", None),
        ("yesterday", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_seconds_and_iso_8601(text: str | None, seconds: float | None) -> None:
    assert parse_times(pl.Series("t", [text, "2011-10-18"])).to_list() == [seconds, 1318896000.0]


def test_numbers_are_seconds() -> None:
    assert parse_times(pl.Series("t", [1, None])).to_list() == [1.0, None]
    assert parse_times(pl.Series("t", [1.5, float("nan"), float("inf")])).to_list() == [1.5, None, None]
    assert parse_times(pl.Series("t", [None, None])).to_list() == [None, None]


def test_dates_and_datetimes_of_a_parquet_file() -> None:
    noon = datetime.datetime(2011, 10, 18, 12)
    assert parse_times(pl.Series("t", [noon.date()])).to_list() == [1318896000.0]
    assert parse_times(pl.Series("t", [noon, None])).to_list() == [1318939200.0, None]
    berlin = pl.Series("t", [noon]).dt.replace_time_zone("Europe/Berlin")
    assert parse_times(berlin).to_list() == [1318932000.0]
    assert parse_times(pl.Series("t", [noon], dtype=pl.Datetime("ns"))).to_list() == [1318939200.0]


zones = st.integers(-14 * 60, 14 * 60).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)


@given(st.datetimes(datetime.datetime(1, 1, 3), datetime.datetime(9999, 12, 29), timezones=zones))
def test_what_python_writes_is_read(moment: datetime.datetime) -> None:
    assert parse_times(pl.Series("t", [moment.isoformat()])).item() == pytest.approx(
        moment.timestamp(), abs=1e-4
    )


def test_times_that_a_shop_cannot_have_are_said() -> None:
    later = time.time() + 2 * 86_400
    assert strange_times(np.array([np.nan, 631_152_000.0, time.time()])) == []
    after, before = strange_times(np.array([-5.0, later, 0.0, np.nan]))
    day = datetime.datetime.fromtimestamp(later, datetime.UTC).date()
    assert after.startswith(f"1 interactions are dated after today, the first of them {day}: ")
    assert before.startswith("2 interactions are dated before 1990-01-01, the first of them 1969-12-31: ")
