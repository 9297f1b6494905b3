"""Cuts user sequences into a training part and held-out targets.

A split only marks positions: no item is copied. The histories of held-out cases are
padded here, packing of training rows is in `packing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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

    def padded_histories(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Returns the whole histories of cases `start:stop`, int32 `[b, longest]`.

        Rows are padded on the left. There is always at least one column.
        """
        stops = self.history_stop[start:stop]
        starts = self.sequences.offsets[self.users[start:stop]]
        width = max(1, int((stops - starts).max(initial=0)))
        source = stops[:, None] + np.arange(-width, 0)  # [b, longest]
        real = source >= starts[:, None]
        items = self.sequences.items[np.where(real, source, 0)]
        return np.where(real, items, np.int32(PADDING))


@dataclass(frozen=True, eq=False)
class Split:
    """What to train on, what to choose a model by, what to report.

    Args:
        sequences: all events.
        train_stop: int64 `[U]`. The training part of user `u` is
            `sequences.items[offsets[u]:train_stop[u]]`.
        validation: cases to choose the best epoch by.
        test: cases to report.
    """

    sequences: Sequences
    train_stop: npt.NDArray[np.int64]
    validation: EvaluationSet
    test: EvaluationSet

    def train_counts(self) -> npt.NDArray[np.int64]:
        """Returns the training events of each item index, int64 `[N + 1]`."""
        sequences = self.sequences
        # +1 where a training part begins, -1 where it stops: the sum is 1 inside.
        inside = np.zeros(sequences.num_events + 1, np.int8)
        np.add.at(inside, sequences.offsets[:-1], 1)
        np.add.at(inside, self.train_stop, -1)
        items = sequences.items[np.cumsum(inside, dtype=np.int8)[:-1] == 1]
        return np.bincount(items, minlength=len(sequences.vocabulary) + 1)


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
        validation=_next_items(sequences, users, last - 1),
        test=_next_items(sequences, users, last),
    )


def _next_items(
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
