"""Which events a run learned from: where they lie, how many, and their fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tfrs_selfattn.data.prepared import PreparedLog
from tfrs_selfattn.data.sequences import Sequences


@dataclass(frozen=True)
class DataConfig:
    """Where the events come from and how they were read.

    Args:
        path: str. File or folder of events, absolute.
        user_column: str.
        item_column: str.
        time_column: str.
        min_item_events: int. Items with fewer events were dropped.
        fingerprint: str. SHA-256 of the sequences that were trained on.
    """

    path: str
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    min_item_events: int = 1
    fingerprint: str = ""


@dataclass(frozen=True)
class DataSummary:
    """How much was trained and evaluated on; for people to read.

    Args:
        users: int.
        events: int. Of the items that were kept.
        first: int. Unix time of the first event.
        last: int. Of the last one.
    """

    users: int
    events: int
    first: int
    last: int

    @classmethod
    def of(cls, log: Sequences | PreparedLog) -> DataSummary:
        """The summary of a log."""
        if isinstance(log, PreparedLog):
            names = ("users", "events", "first_time", "last_time")
            return cls(*(log.manifest[name] for name in names))
        times = log.timestamps
        return cls(log.num_users, len(times), int(times.min()), int(times.max()))


def fingerprint(log: Sequences | PreparedLog) -> str:
    """SHA-256 of what a model learns from: items, order, times and ids."""
    digest = hashlib.sha256("\n".join(log.vocabulary.ids).encode())
    for name in ("offsets", "items", "timestamps"):
        whole = [getattr(log, name)] if isinstance(log, Sequences) else log.chunks(name)
        for part in whole:
            digest.update(part.tobytes())
    return digest.hexdigest()
