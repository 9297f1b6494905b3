"""Which events a run learned from: where they lie, how split, and their fingerprint."""

from __future__ import annotations

import dataclasses
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
        validation_time: int or None. Unix seconds from which on validation cases were
            taken, of a split by the clock. None, for both times, is leave-one-out.
        test_time: int or None. Likewise, of test cases.
    """

    path: str
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    min_item_events: int = 1
    fingerprint: str = ""
    validation_time: int | None = None
    test_time: int | None = None

    @property
    def times(self) -> tuple[int, int] | None:
        """Both times, as `Split.times` has them."""
        if self.validation_time is None or self.test_time is None:
            return None
        return self.validation_time, self.test_time

    def at(self, times: tuple[int, int] | None) -> DataConfig:
        """The same data, split at other times."""
        validation, test = times or (None, None)
        return dataclasses.replace(self, validation_time=validation, test_time=test)


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
