"""Cuts user sequences into a training part and held-out targets.

A split only marks positions: no item is copied. By user, `leave_one_out`, or by the
clock, `temporal_split`. The histories of held-out cases are padded here, packing of
training rows is in `packing.py`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError, check_fraction
from tfrs_selfattn.data.sequences import Sequences
from tfrs_selfattn.data.vocabulary import PADDING


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """C held-out cases: a history, and the item that followed it.

    Args:
        sequences: where histories are read from.
        users: int64 `[C]`. The row of each case's user in `sequences`.
        history_stop: int64 `[C]`. The history of case `c` is
            `sequences.items[offsets[users[c]]:history_stop[c]]`.
        targets: int32 `[C]`. Item indices.
        request_times: int64 `[C]`. Unix seconds of the targets.
    """

    sequences: Sequences
    users: npt.NDArray[np.int64]
    history_stop: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]
    request_times: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    def history(self, case: int) -> npt.NDArray[np.int32]:
        """Returns the whole history of one case, oldest first."""
        start = self.sequences.offsets[self.users[case]]
        return self.sequences.items[start : self.history_stop[case]]

    def by_length(self) -> EvaluationSet:
        """Returns the same cases, shortest history first: batches of them pad less."""
        lengths = self.history_stop - self.sequences.offsets[self.users]
        order = np.argsort(lengths, kind="stable")
        return EvaluationSet(
            sequences=self.sequences,
            users=self.users[order],
            history_stop=self.history_stop[order],
            targets=self.targets[order],
            request_times=self.request_times[order],
        )

    def sample(self, max_cases: int | None, seed: int = 0) -> EvaluationSet:
        """Returns the cases of at most so many users, chosen by a hash of their ids.

        So the same users are chosen wherever and in whatever order they are read.

        Args:
            max_cases: int or None. None returns all cases.
            seed: int. Another one chooses others. Defaults to `0`.
        """
        if max_cases is None or len(self) <= max_cases:
            return self
        ids = self.sequences.user_ids.gather(self.users)
        # Users have one case at most. In the order that they had.
        chosen = np.sort(np.argsort(sampling_order(ids, seed))[:max_cases])
        return EvaluationSet(
            sequences=self.sequences,
            users=self.users[chosen],
            history_stop=self.history_stop[chosen],
            targets=self.targets[chosen],
            request_times=self.request_times[chosen],
        )

    def padded_histories(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Returns the whole histories of cases `start:stop`, int32 `[b, longest]`.

        Rows are padded on the left. There is always at least one column.
        """
        return _padded(self, self.sequences.items, start, stop)

    def padded_timestamps(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Returns when each item of `padded_histories` was taken, 0 in padding."""
        return _padded(self, self.sequences.timestamps, start, stop)


@dataclass(frozen=True, eq=False)
class Split:
    """What to train on, what to choose a model by, what to report.

    Args:
        sequences: all events.
        train_stop: int64 `[U]`. The training part of user `u` is
            `sequences.items[offsets[u]:train_stop[u]]`.
        validation: cases to choose the best epoch by.
        test: cases to report.
        times: the Unix seconds from which on validation and test cases are taken, of a
            split by the clock; None of one by user. Defaults to `None`.
    """

    sequences: Sequences
    train_stop: npt.NDArray[np.int64]
    validation: EvaluationSet
    test: EvaluationSet
    times: tuple[int, int] | None = None

    def in_training(self) -> npt.NDArray[np.bool_]:
        """Returns which events are trained on, bool `[E]`."""
        # +1 where a training part begins, -1 where it stops: the sum is 1 inside.
        inside = np.zeros(self.sequences.num_events + 1, np.int8)
        np.add.at(inside, self.sequences.offsets[:-1], 1)
        np.add.at(inside, self.train_stop, -1)
        found: npt.NDArray[np.bool_] = np.cumsum(inside, dtype=np.int8)[:-1] == 1
        return found

    def train_counts(self) -> npt.NDArray[np.int64]:
        """Returns the training events of each item index, int64 `[N + 1]`."""
        items = self.sequences.items[self.in_training()]
        return np.bincount(items, minlength=len(self.sequences.vocabulary) + 1)

    def unknown_targets(self, cases: EvaluationSet) -> npt.NDArray[np.bool_]:
        """Which cases' targets have no training event, bool `[C]`.

        No model can have learned them; they stay in the evaluation, as misses but for
        luck.
        """
        unknown: npt.NDArray[np.bool_] = self.train_counts()[cases.targets] == 0
        return unknown


def sampling_order(user_ids: pl.Series, seed: int) -> npt.NDArray[np.uint64]:
    """A number of each user by which they are sampled, lowest first: uint64 `[U]`."""
    numbers = (zlib.crc32(each.encode()) for each in user_ids)
    mixed = np.fromiter(numbers, np.uint64, len(user_ids))
    # SplitMix64, since checksums of two seeds alone would order users alike.
    mixed = (mixed << np.uint64(32)) | np.uint64(seed & 0xFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed


def leave_one_out(sequences: Sequences) -> Split:
    """Holds out two events of each user: the last for test, the one before to validate.

    The history of a test case includes the validation item. Users with fewer than
    three events train only.
    """
    users = np.flatnonzero(sequences.lengths >= 3)
    last = sequences.offsets[users + 1] - 1
    train_stop = sequences.offsets[1:].copy()
    train_stop[users] = last - 1
    return Split(
        sequences=sequences,
        train_stop=train_stop,
        validation=next_items(sequences, users, last - 1),
        test=next_items(sequences, users, last),
    )


def next_items(
    sequences: Sequences, users: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> EvaluationSet:
    """Makes a case of each target position: its history is all that came before."""
    return EvaluationSet(
        sequences=sequences,
        users=users,
        history_stop=targets,
        targets=sequences.items[targets],
        request_times=sequences.timestamps[targets],
    )


def temporal_split(
    sequences: Sequences,
    *,
    validation_time: int | None = None,
    test_time: int | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> Split:
    """Trains on what happened before one moment and evaluates on what came after.

    Nothing after `validation_time` is trained on, whoever did it: no user's future
    tells about another's. A validation case is the first event of a user from
    `validation_time` until before `test_time`, a test case the first one from
    `test_time` on. Their histories hold all earlier events of the user; those of a test
    case may thus reach past the end of training, as they do in use. Users without an
    earlier event have no case.

    Item indices are those of the whole log; see `Split.unknown_targets` for targets
    that training never showed.

    Args:
        sequences: all events.
        validation_time: int or None. Unix seconds; training ends before. None, for
            both times, takes the fractions. Defaults to `None`.
        test_time: int or None. Unix seconds, after `validation_time`. Defaults to
            `None`.
        validation_fraction: float in [0, 1). Events of the log between both times.
            Defaults to `0.1`.
        test_fraction: float in [0, 1). Events of the log from `test_time` on. Defaults
            to `0.1`.
    """
    if validation_time is None and test_time is None:
        validation_time, test_time = _cut_times(
            sequences.timestamps, validation_fraction, test_fraction
        )
    if validation_time is None or test_time is None or validation_time >= test_time:
        raise InputError(
            "`validation_time` must lie before `test_time`. Received: validation_time="
            f"{validation_time}, test_time={test_time}. Give both in Unix seconds, or "
            "neither and fractions."
        )
    validation_from, test_from = (
        sequences.offsets[:-1] + _events_before(sequences, time)
        for time in (validation_time, test_time)
    )
    has_validation = (validation_from > sequences.offsets[:-1]) & (
        validation_from < test_from
    )
    has_test = (test_from > sequences.offsets[:-1]) & (
        test_from < sequences.offsets[1:]
    )
    users, test_users = np.flatnonzero(has_validation), np.flatnonzero(has_test)
    return Split(
        sequences=sequences,
        train_stop=validation_from,
        validation=next_items(sequences, users, validation_from[users]),
        test=next_items(sequences, test_users, test_from[test_users]),
        times=(int(validation_time), int(test_time)),
    )


def _cut_times(
    timestamps: npt.NDArray[np.int64], validation: float, test: float
) -> tuple[int, int]:
    """The times from which on the given fractions of events lie."""
    validation = check_fraction("validation_fraction", validation)
    test = check_fraction("test_fraction", test)
    if validation + test >= 1.0 or 0.0 in (validation, test):
        raise InputError(
            "`validation_fraction` and `test_fraction` must be above 0 and leave "
            f"something to train on. Received: {validation} and {test}. Use for "
            "example 0.1 and 0.1."
        )
    count = len(timestamps)
    cuts = [int(count * (1.0 - validation - test)), int(count * (1.0 - test))]
    in_order = np.partition(timestamps, cuts)
    return int(in_order[cuts[0]]), int(in_order[cuts[1]])


def _events_before(sequences: Sequences, time: int) -> npt.NDArray[np.int64]:
    """Events of each user before a time, int64 `[U]`; every user has an event."""
    before = sequences.timestamps < time
    counts: npt.NDArray[np.int64] = np.add.reduceat(
        before, sequences.offsets[:-1], dtype=np.int64
    )
    return counts


_Value = TypeVar("_Value", np.int32, np.int64)


def _padded(
    cases: EvaluationSet, values: npt.NDArray[_Value], start: int, stop: int
) -> npt.NDArray[_Value]:
    """What `values` say of the histories of cases `start:stop`, `[b, longest]`."""
    stops = cases.history_stop[start:stop]
    starts = cases.sequences.offsets[cases.users[start:stop]]
    width = max(1, int((stops - starts).max(initial=0)))
    source = stops[:, None] + np.arange(-width, 0)  # [b, longest]
    real = source >= starts[:, None]
    found = values[np.where(real, source, 0)]
    return np.where(real, found, values.dtype.type(PADDING))
