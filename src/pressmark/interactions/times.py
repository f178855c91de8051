"""Times as users write them: seconds since 1970 or ISO 8601, to float64 seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

# Date, then perhaps time of day with seconds and fraction, then perhaps an offset from UTC.
_ISO = (
    r"^(?<date>\d{4}-\d{2}-\d{2})(?:[Tt ](?<hour>\d{2}):(?<minute>\d{2})(?::(?<second>\d{2}(?:\.\d+)?))?)?"
    r" ?(?:[Zz]|(?<sign>[+-])(?<offset_hour>\d{2}):?(?<offset_minute>\d{2})?)?$"
)
# The year 5138 in seconds, 1973 in milliseconds: a larger number is not in seconds.
LATEST = 1e11
# 1990 in seconds: no shop has older purchases, but a clock that was never set stands at 1970.
EARLIEST = 631_152_000
DAY = 86_400


def parse_times(column: pl.Series) -> pl.Series:
    """Seconds since 1970-01-01 UTC.

    Args:
        column: Numbers (seconds), strings (seconds or ISO 8601, UTC where they name no offset), dates or
            datetimes.

    Returns:
        Float64, null where the value is null or cannot be parsed. float64 holds microseconds until 2255.
    """
    import polars as pl

    if isinstance(column.dtype, (pl.Datetime, pl.Date)):
        return column.cast(pl.Datetime("us")).to_physical().cast(pl.Float64) / 1e6
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    number = (
        column.cast(pl.Float64, strict=False).to_frame("s").select(pl.when(pl.col("s").is_finite()).then("s"))
    )
    seconds = number.to_series().rename(column.name)
    if column.dtype != pl.String or seconds.null_count() == column.null_count():
        return seconds
    return seconds.zip_with(seconds.is_not_null(), _iso_seconds(column))


def looks_like_dates(seconds: pl.Series) -> bool:
    """Whether all numbers are dates such as 20240531: as seconds they would be days of August 1970."""
    import polars as pl

    known = seconds.drop_nulls()
    in_range = (known >= 19700101) & (known <= 21001231) & (known % 1 == 0)
    if known.is_empty() or not in_range.all():
        return False
    dates = known.unique().cast(pl.Int64).cast(pl.String).str.to_date("%Y%m%d", strict=False)
    return dates.null_count() == 0


def strange_times(timestamp: np.ndarray) -> list[str]:
    """What is to be minded of (M,) seconds since 1970, NaN where unknown: a wrong clock moves a cut in time."""
    says = []
    for strange, when in (
        (timestamp > time.time() + DAY, "after today"),
        (timestamp < EARLIEST, f"before {_date(EARLIEST)}"),
    ):
        if strange.any():
            first = _date(timestamp[strange][0])
            says.append(
                f"{strange.sum():,} interactions are dated {when}, the first of them {first}: they count as "
                "they say, in the order of a history and in every cut in time."
            )
    return says


def _date(second: float) -> str:
    return str(np.datetime64(int(second), "s").astype("datetime64[D]"))


def _iso_seconds(text: pl.Series) -> pl.Series:
    import polars as pl

    parts = text.str.extract_groups(_ISO).struct.unnest()
    days = pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)
    parts = parts.select("sign", days.alias("days"), pl.exclude("date", "sign").cast(pl.Float64).fill_null(0))
    offset = pl.col("offset_hour") * 3600 + pl.col("offset_minute") * 60
    signed = pl.when(pl.col("sign") == "-").then(-offset).otherwise(offset)
    time = pl.col("hour") * 3600 + pl.col("minute") * 60 + pl.col("second")
    in_range = pl.all_horizontal(
        pl.col("hour", "offset_hour") < 24, pl.col("minute", "second", "offset_minute") < 60
    )
    return parts.select(pl.when(in_range).then(pl.col("days") * 86400 + time - signed)).to_series()
