"""Packs training windows of many users into rows of equal length.

Most users are short: padded to one row each, more than half of a batch is padding.
Packing puts whole windows side by side, and `segment_ids` keep them apart. The other
way to save padding, rows of several widths, is `bucketing.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data._placement import place
from tfrs_selfattn.data.side import of_pairs, side_columns
from tfrs_selfattn.data.splits import Split
from tfrs_selfattn.data.windows import Windows, training_windows

_CHUNK = 1 << 22  # Slots laid out at a time; bounds what is held beside the rows.


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Training rows; a window occupies one segment of one row.

    Args:
        items: int32 `[R, T]`. Input item indices, 0 = padding.
        targets: int32 `[R, T]`. The item after each input, 0 = nothing to learn.
        segment_ids: int32 `[R, T]`. 1, 2, … within a row, 0 = padding.
        timestamps: int64 `[R, T]`, or None without times. Unix seconds of the inputs,
            0 in padding. Defaults to `None`.
        request_times: int64 `[R, T]`, or None without times. Unix seconds of the item
            after each input: when it was asked for. Defaults to `None`.
        sides: by name, further columns `[R, T, …]`, 0 in padding: what is known beside
            ids, see `tfrs_selfattn.data.with_sides`. Defaults to none.
    """

    items: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    segment_ids: npt.NDArray[np.int32]
    timestamps: npt.NDArray[np.int64] | None = None
    request_times: npt.NDArray[np.int64] | None = None
    sides: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def row_length(self) -> int:
        """T."""
        return int(self.items.shape[1])

    @property
    def num_targets(self) -> int:
        """Targets to learn in one epoch."""
        return int(np.count_nonzero(self.targets))

    @property
    def fill(self) -> float:
        """The fraction of slots that hold a real item."""
        return float(np.count_nonzero(self.segment_ids)) / self.segment_ids.size

    @property
    def features(self) -> dict[str, npt.NDArray[Any]]:
        """The columns under the names that a model's training rows have."""
        columns: dict[str, npt.NDArray[Any] | None] = {
            "history": self.items,
            "targets": self.targets,
            "segment_ids": self.segment_ids,
            "timestamps": self.timestamps,
            "request_times": self.request_times,
        }
        found = {name: each for name, each in columns.items() if each is not None}
        return {**found, **self.sides}


@dataclass(frozen=True, eq=False)
class RowPlan:
    """Where every window goes, decided before any row is laid out.

    Windows are ordered by row, so that any run of rows is laid out by itself: shards
    are written without all rows in memory.

    Args:
        split: where the items are.
        windows: W windows, ordered by row.
        rows: int64 `[W]`, ascending. The row of each window.
        columns: int64 `[W]`. The first slot of each window.
        segments: int64 `[W]`. The segment number of each window.
        num_rows: int. R.
        row_length: int. T.
        times: bool. Lay out timestamps and request times too.
    """

    split: Split
    windows: Windows
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    num_rows: int
    row_length: int
    times: bool

    @classmethod
    def make(
        cls,
        split: Split,
        windows: Windows,
        *,
        row_length: int,
        pack: bool,
        times: bool,
        seed: int,
    ) -> RowPlan:
        """Places windows into rows, and the rows into a random order."""
        if pack:
            rows, columns, segments = place(windows.lengths, row_length, seed)
            num_rows = int(rows.max()) + 1
        else:
            num_rows = len(windows)
            rows = np.arange(num_rows)
            columns = row_length - windows.lengths
            segments = np.ones_like(windows.lengths)
        # Best fit leaves long windows first; any run of rows has to be a fair sample.
        rows = np.random.default_rng([seed, 1]).permutation(num_rows)[rows]
        order = np.lexsort((columns, rows))
        return cls(
            split=split,
            windows=windows.take(order),
            rows=rows[order],
            columns=columns[order],
            segments=segments[order],
            num_rows=num_rows,
            row_length=row_length,
            times=times,
        )

    def lay_out(self, start: int, stop: int) -> PackedRows:
        """Makes the rows `start:stop`."""
        rows = empty_rows(
            stop - start,
            self.row_length,
            times=self.times,
            sides=side_columns(self.split),
        )
        for first in range(start, stop, self._chunk):
            last = min(first + self._chunk, stop)
            self._fill(
                {
                    name: column[first - start : last - start]
                    for name, column in rows.features.items()
                },
                first,
                last,
            )
        return rows

    def users_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The users with a window in any of these rows, ascending: int64 `[n]`."""
        starts = self.windows.starts[np.isin(self.rows, rows)]
        offsets = self.split.sequences.offsets
        # By the first target: a window may start one before the events of its user.
        # Users without an event own an empty slice; the last of equal offsets has one.
        return np.unique(np.searchsorted(offsets, starts + 1, side="right") - 1)

    @property
    def _chunk(self) -> int:
        return max(1, _CHUNK // self.row_length)

    def _fill(
        self, features: dict[str, npt.NDArray[Any]], start: int, stop: int
    ) -> None:
        """Writes the rows `start:stop` into columns of zeros."""
        part = slice(*np.searchsorted(self.rows, [start, stop]))
        lengths, contexts = self.windows.lengths[part], self.windows.contexts[part]
        first_slots = (self.rows[part] - start) * self.row_length + self.columns[part]
        # From here on, one element per (input, target) pair.
        within = np.arange(lengths.sum())
        within -= np.repeat(np.cumsum(lengths) - lengths, lengths)
        source = np.repeat(self.windows.starts[part], lengths) + within
        slots = np.repeat(first_slots, lengths) + within
        learned = within >= np.repeat(contexts, lengths)
        log = self.split.sequences
        # One before a user's first event there is no input; see `training_windows`.
        blank = np.zeros(log.num_events + 1, bool)
        blank[log.offsets[:-1]] = True
        blank = np.repeat(blank[self.windows.starts[part] + 1], lengths) & (within == 0)
        values: dict[str, npt.NDArray[Any]] = {
            "history": np.where(blank, 0, log.items[source]),
            "targets": np.where(learned, log.items[source + 1], 0),
            "segment_ids": np.repeat(self.segments[part], lengths),
        }
        if self.times:
            values["timestamps"] = np.where(blank, 0, log.timestamps[source])
            values["request_times"] = log.timestamps[source + 1]
        values |= of_pairs(log.sides, source, blank)
        for name, value in values.items():
            column = features[name]
            # Not -1 for all slots: a column may have no width.
            shape = column.shape[0] * column.shape[1], *column.shape[2:]
            column.reshape(shape)[slots] = value


def pack_rows(
    split: Split,
    *,
    row_length: int,
    windows: str = "all",
    stride: int | None = None,
    pack: bool = True,
    times: bool = False,
    starts: bool = False,
    seed: int = 0,
) -> PackedRows:
    """Makes training rows of the training part of every user, in random order.

    Args:
        split: what to train on.
        row_length: int. T.
        windows: str. How histories longer than T are cut: `"all"`, `"sliding"` or
            `"newest"`; see `training_windows`. Defaults to `"all"`.
        stride: int or None. Of sliding windows; None takes half of `row_length`.
            Defaults to `None`.
        pack: bool. Share rows between users, padded on the right. `False` gives one
            window a row, padded on the left. Defaults to `True`.
        times: bool. Also give timestamps and request times, which a time-aware model
            needs. Defaults to `False`.
        starts: bool. Also train each user's first item, after no input: for models that
            know more of a request than its history. Defaults to `False`.
        seed: int. Which users share a row, and the order of rows. Defaults to `0`.
    """
    plan = plan_rows(
        split,
        row_length=row_length,
        windows=windows,
        stride=stride,
        pack=pack,
        times=times,
        starts=starts,
        seed=seed,
    )
    return plan.lay_out(0, plan.num_rows)


def plan_rows(
    split: Split,
    *,
    row_length: int,
    windows: str,
    stride: int | None,
    pack: bool,
    times: bool,
    starts: bool,
    seed: int,
) -> RowPlan:
    """Decides what `pack_rows` lays out; the same arguments, the same rows."""
    cut = learnable_windows(
        split, row_length=row_length, windows=windows, stride=stride, starts=starts
    )
    return RowPlan.make(
        split, cut, row_length=row_length, pack=pack, times=times, seed=seed
    )


def learnable_windows(
    split: Split, *, row_length: int, windows: str, stride: int | None, starts: bool
) -> Windows:
    """`training_windows`, of which there must be one.

    Raises:
        InputError: when there is none.
    """
    cut = training_windows(
        split, row_length=row_length, windows=windows, stride=stride, starts=starts
    )
    if len(cut) == 0:
        raise InputError(
            "There is nothing to train on: a user needs at least two training events, "
            "so four in all under leave-one-out. Received: "
            f"{split.sequences.num_users} users with {split.sequences.num_events} "
            "events. Pass a log with longer histories."
        )
    return cut


def empty_rows(
    num_rows: int,
    row_length: int,
    *,
    times: bool,
    sides: Mapping[str, tuple[str, int]],
) -> PackedRows:
    """Rows of nothing but padding; further columns have a type and a width."""
    shape = num_rows, row_length
    items, targets, segment_ids = (np.zeros(shape, np.int32) for _ in range(3))
    stamps, requests = (np.zeros(shape, np.int64) if times else None for _ in range(2))
    more = {n: np.zeros([*shape, width], kind) for n, (kind, width) in sides.items()}
    return PackedRows(items, targets, segment_ids, stamps, requests, more)
