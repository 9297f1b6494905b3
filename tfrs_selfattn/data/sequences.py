"""Turns an event log into one time-ordered item sequence per user.

All sequences share three flat arrays (the CSR layout), so that millions of users cost
no Python objects. Splitting and padding are not done here: see `splits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn.data.events import Events
from tfrs_selfattn.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tfrs_selfattn.data.side import SideTable


@dataclass(frozen=True, eq=False)
class Sequences:
    """What every user did, oldest first.

    Args:
        user_ids: string series `[U]`, in the order users first appear in the log.
        offsets: int64 `[U + 1]`. User `u` owns the slice
            `offsets[u]:offsets[u + 1]` of the next two.
        items: int32 `[E]`. Item indices, 1 to N.
        timestamps: int64 `[E]`. Unix seconds.
        vocabulary: the meaning of the item indices.
        columns: by name, raw values `[E]` of further columns of the log. Defaults to
            none.
        sides: what is known of events and requests beside ids, encoded; see
            `tfrs_selfattn.data.with_sides`. Defaults to none.
    """

    user_ids: pl.Series
    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    timestamps: npt.NDArray[np.int64]
    vocabulary: Vocabulary
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    sides: Mapping[str, SideTable] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_events(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 `[U]`. Events of each user."""
        return np.diff(self.offsets)

    def user(self, row: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Returns the items and timestamps of the user at this row, oldest first."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        return self.items[part], self.timestamps[part]

    def index_of(self, user_id: str) -> int:
        """Returns the row of a user."""
        row = self.user_ids.index_of(user_id)
        if row is None:
            raise InputError(
                f"`user_id` must be a user of the event log. Received: {user_id!r}. "
                f"The log has {self.num_users} users, the first is "
                f"{self.user_ids[0]!r}."
            )
        return row


@dataclass(frozen=True)
class EventSummary:
    """Counts that describe an event log.

    Args:
        users: int. U.
        items: int. N.
        events: int.
        duplicate_events: int. Events that repeat an earlier one (same user, item and
            time). They are kept.
        one_event_users: int. Users with a single event.
        first_time: int. Unix seconds of the first event.
        last_time: int. Unix seconds of the last event.
    """

    users: int
    items: int
    events: int
    duplicate_events: int
    one_event_users: int
    first_time: int
    last_time: int


def build_sequences(
    events: Events,
    *,
    min_item_events: int = 1,
    min_user_events: int = 1,
    columns: Mapping[str, Callable[[pl.Series, str], npt.NDArray[Any]]] | None = None,
) -> Sequences:
    """Orders the events of every user by time.

    Events of the same second keep the order of the log. Events of rare items and users
    are dropped until every item and user left has the given number of events.

    Args:
        events: the log, from `read_events` or `events_from_frame`.
        min_item_events: int. Defaults to `1`.
        min_user_events: int. Defaults to `1`.
        columns: further columns of the log to read, by name a function from the column
            and the log's name to checked values of its rows, such as `Feature.read`.
            None reads none. Defaults to `None`.
    """
    min_item_events = check_positive_int("min_item_events", min_item_events)
    min_user_events = check_positive_int("min_user_events", min_user_events)
    readers = columns or {}
    log = events.collect(tuple(readers))
    values = {
        name: read(log[f"more/{name}"].alias(name), events.name)
        for name, read in readers.items()
    }
    users, user_ids = _codes(log["user_id"])
    items, item_ids = _codes(log["item_id"])
    times = log["timestamp"].to_numpy()
    del log

    keep = _frequent(users, items, min_user_events, min_item_events)
    if keep is not None:
        users, items, times = users[keep], items[keep], times[keep]
        values = {name: column[keep] for name, column in values.items()}
    if len(items) == 0:
        raise InputError(
            f"No events are left in {events.name}. Received: "
            f"min_item_events={min_item_events}, min_user_events={min_user_events}. "
            "Lower these limits."
        )

    user_rows, kept_users = _rank_by_appearance(users)
    item_indices, vocabulary = _rank_by_frequency(items, item_ids)
    rows = user_rows[users]
    order = np.lexsort((times, rows))  # Stable: the log's order breaks ties.
    lengths = np.bincount(rows, minlength=len(kept_users))
    return Sequences(
        user_ids=user_ids.gather(kept_users),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=item_indices[items[order]],
        timestamps=times[order],
        vocabulary=vocabulary,
        columns={name: column[order] for name, column in values.items()},
    )


def summarize(sequences: Sequences) -> EventSummary:
    """Counts what a log holds, without reading it again."""
    return EventSummary(
        users=sequences.num_users,
        items=len(sequences.vocabulary),
        events=sequences.num_events,
        duplicate_events=_count_duplicates(sequences),
        one_event_users=int(np.count_nonzero(sequences.lengths == 1)),
        first_time=int(sequences.timestamps.min()),
        last_time=int(sequences.timestamps.max()),
    )


def _codes(column: pl.Series) -> tuple[npt.NDArray[np.uint32], pl.Series]:
    """Splits a categorical column into codes 0, 1, … and the string of each code."""
    physical = column.to_physical().to_numpy()
    distinct = column.unique()
    known = distinct.to_physical().to_numpy()
    # Categories are numbered for the whole process: other logs leave gaps.
    renumber = np.zeros(int(known.max(initial=0)) + 1, np.uint32)
    renumber[known] = np.arange(len(known), dtype=np.uint32)
    return renumber[physical], distinct.cast(pl.String)


def _frequent(
    users: npt.NDArray[np.uint32],
    items: npt.NDArray[np.uint32],
    min_user_events: int,
    min_item_events: int,
) -> npt.NDArray[np.intp] | None:
    """Returns the events to keep, None for all of them."""
    if min_user_events == 1 and min_item_events == 1:
        return None
    keep = np.arange(len(items))
    while True:
        enough = np.bincount(items[keep])[items[keep]] >= min_item_events
        enough &= np.bincount(users[keep])[users[keep]] >= min_user_events
        if enough.all():
            return keep
        keep = keep[enough]


def _rank_by_appearance(
    codes: npt.NDArray[np.uint32],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.intp]]:
    """Returns the rank of each code, and the codes in the order they first appear."""
    first = np.full(int(codes.max()) + 1, len(codes))
    # Of repeated indices NumPy keeps the last value: walk backwards for the first.
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    present = np.argsort(first)[: np.count_nonzero(first < len(codes))]
    ranks = np.zeros(len(first), np.uint32)
    ranks[present] = np.arange(len(present), dtype=np.uint32)
    return ranks, present


def _rank_by_frequency(
    codes: npt.NDArray[np.uint32], ids: pl.Series
) -> tuple[npt.NDArray[np.int32], Vocabulary]:
    """Returns the item index of each code, and the vocabulary."""
    counts = np.bincount(codes, minlength=len(ids))
    table = pl.DataFrame(
        {"id": ids, "count": counts, "code": np.arange(len(ids))}
    ).filter(pl.col("count") > 0)
    table = table.sort("count", "id", descending=[True, False])
    indices = np.zeros(len(ids), np.int32)
    indices[table["code"].to_numpy()] = np.arange(1, len(table) + 1, dtype=np.int32)
    frequencies = table["count"].to_numpy().astype(np.int64)
    return indices, Vocabulary(tuple(table["id"].to_list()), frequencies)


def _count_duplicates(sequences: Sequences) -> int:
    """Counts events equal to an earlier one, looking only where times are equal."""
    same_time = np.diff(sequences.timestamps) == 0
    same_time[sequences.offsets[1:-1] - 1] = False  # Neighbours of different users.
    # Events in one run of equal user and time share a number.
    runs = np.concatenate([[0], np.cumsum(~same_time)])
    tied = np.flatnonzero(
        np.concatenate([[False], same_time]) | np.concatenate([same_time, [False]])
    )
    runs, items = runs[tied], sequences.items[tied]
    order = np.lexsort((items, runs))
    runs, items = runs[order], items[order]
    return int(np.count_nonzero((np.diff(runs) == 0) & (np.diff(items) == 0)))
