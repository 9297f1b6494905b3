"""Reads times of many spellings as Unix seconds."""

from __future__ import annotations

import polars as pl

EXPECTED = "Unix seconds, or an ISO date or date-time such as 2024-05-31T18:30:00Z"


def is_time(dtype: pl.DataType) -> bool:
    """Whether a column of this type can hold times."""
    return dtype.is_numeric() or dtype in (pl.Date, pl.String) or dtype == pl.Datetime


def unix_seconds(column: str, dtype: pl.DataType, *, numbers: bool) -> pl.Expr:
    """Returns Int64 Unix seconds, null where a value cannot be read.

    Fractions of a second are cut off; times without a zone are taken as UTC.

    Args:
        column: str. The column to read.
        dtype: its type.
        numbers: bool. Whether text holds numbers or dates; one column holds only one
            of them, so that a misplaced value is noticed.
    """
    values = pl.col(column)
    if dtype.is_integer():
        return values.cast(pl.Int64, strict=False)
    if dtype.is_numeric():
        return values.floor().cast(pl.Int64, strict=False)
    if dtype == pl.Date or dtype == pl.Datetime:
        return values.dt.epoch("s").cast(pl.Int64)
    text = values.str.strip_chars()
    if numbers:
        fractional = text.cast(pl.Float64, strict=False).floor()
        return pl.coalesce(
            text.cast(pl.Int64, strict=False), fractional.cast(pl.Int64, strict=False)
        )
    # One spelling for chrono's strict formats: "T" between, offsets as digits.
    text = text.str.replace(" ", "T", literal=True).str.replace("Z$", "+0000")
    formats = (
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%dT%H:%M:%S%.f%z",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H:%M%z",
    )
    parsed = [
        text.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s")
        for form in formats
    ]
    dates = text.str.to_date("%Y-%m-%d", strict=False).dt.epoch("s")
    return pl.coalesce(*parsed, dates).cast(pl.Int64)


def looks_like_number(value: str | None) -> bool:
    """Whether a column that starts with this value holds numbers rather than dates."""
    try:
        float(value or "")
    except ValueError:
        return False
    return True
