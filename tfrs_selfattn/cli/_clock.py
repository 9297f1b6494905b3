"""Unix seconds as people read them."""

from __future__ import annotations

import datetime


def day(seconds: int) -> str:
    """A day, or the number itself where the times are no Unix seconds."""
    found = _utc(seconds)
    return str(seconds) if found is None else found.date().isoformat()


def moment(seconds: int) -> str:
    """A moment to the second, likewise."""
    found = _utc(seconds)
    return str(seconds) if found is None else f"{found:%Y-%m-%d %H:%M:%S} UTC"


def _utc(seconds: int) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
