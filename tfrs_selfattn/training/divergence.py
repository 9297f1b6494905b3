"""Stops a run whose loss is no longer a number, or explodes, and says where."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tfrs_selfattn._keras import keras, require_legacy_keras
from tfrs_selfattn.data.packing import PackedRows, plan_rows
from tfrs_selfattn.data.pipelines import rows_of_step, training_dataset
from tfrs_selfattn.data.prepared import PreparedLog
from tfrs_selfattn.data.shards import ShardedRows
from tfrs_selfattn.data.splits import Split
from tfrs_selfattn.training.config import RunConfig

require_legacy_keras("tfrs_selfattn.training")

_NAMED = 10  # users in a message
# Times the loss of the untrained model, which knows nothing: an epoch with a mean above
# that has unlearned, and goes on doing so.
_EXPLODED = 2.0
BatchUsers: TypeAlias = "Callable[[int, int], Sequence[str]]"


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number, or far above that of no training."""


class StopOnDivergence(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops at the first batch whose loss is NaN or infinite, and when it explodes.

    An epoch has exploded when its mean loss is above twice the loss of the first batch
    of the run, which the untrained model had; of a run that goes on after a kill, above
    twice the mean of its first epoch.

    Args:
        steps: int. Batches of an epoch.
        first: float. Mean loss of the first epoch of a run that goes on; None of a new
            one. Defaults to `None`.
        batch_users: function from epoch and step, both from 0, to the ids of the users
            in that batch; None when rows do not say. Defaults to `None`.

    Raises:
        TrainingDiverged: from `fit`, with the epoch, the step, the users of the batch
            and what to try.
    """

    _supports_tf_logs = True  # the loss as it is, not waited for

    def __init__(
        self,
        steps: int,
        batch_users: BatchUsers | None = None,
        *,
        first: float | None = None,
    ) -> None:
        super().__init__()
        self._steps = steps
        self._batch_users = batch_users
        self._first = first
        self._epoch = 0
        self._last: tuple[int, Any] | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # The batch before this one: a GPU that is at work on this one is not stopped.
        self._check()
        self._last = batch, (logs or {}).get("loss")

    def on_test_begin(self, logs: Any = None) -> None:
        self._check(whole=True)  # a model of NaN is not worth a validation

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check(whole=True)

    def _check(self, *, whole: bool = False) -> None:
        """Looks at the loss of the last batch, the mean since the epoch began."""
        if self._last is None:
            return
        (step, loss), self._last = self._last, None
        if loss is None:
            return
        if self._first is None:
            self._first = float(loss)
        if math.isfinite(float(loss)):
            if whole:
                self._check_explosion(float(loss))
            return
        raise TrainingDiverged(
            f"The loss of epoch {self._epoch + 1} is {float(loss)}, not a finite "
            f"number, from step {step + 1} of {self._steps} on"
            f"{self._whose(step)}. The best epoch so far is kept. Train again, into "
            "another --output, with a lower --learning-rate; if it stops at the same "
            "step, look at the events of these users."
        )

    def _check_explosion(self, mean: float) -> None:
        first = self._first
        if first is None or first <= 0.0 or mean <= _EXPLODED * first:
            return
        raise TrainingDiverged(
            f"The mean loss of epoch {self._epoch + 1} is {mean:.4g}, more than "
            f"{_EXPLODED:g} times the {first:.4g} that training began with. The best "
            "epoch so far is kept. Train again, into another --output, with a lower "
            "--learning-rate, or with --warmup-steps."
        )

    def _whose(self, step: int) -> str:
        if self._batch_users is None:
            return ""
        users = self._batch_users(self._epoch, step)
        more = f" and {len(users) - _NAMED} more" if len(users) > _NAMED else ""
        named = ", ".join(repr(user) for user in users[:_NAMED])
        return f" (the batch of the users {named}{more})"


def users_of_batches(
    split: Split, rows: PackedRows, config: RunConfig, *, times: bool
) -> BatchUsers:
    """A function from epoch and step to the users of a batch, for `StopOnDivergence`.

    Nothing is computed before it is asked: the rows are then planned once more.

    Args:
        split: what `rows` were packed of.
        rows: training rows in memory, packed as the configuration says.
        config: of the run.
        times: bool. Whether the rows have times.
    """
    training = config.training

    def batch_users(epoch: int, step: int) -> Sequence[str]:
        plan = plan_rows(
            split,
            row_length=config.model.max_length,
            windows=training.windows,
            stride=training.stride,
            pack=True,
            times=times,
            starts=config.features.starts,
            seed=training.seed,
        )
        chosen = rows_of_step(
            rows,
            batch_size=training.batch_size,
            seed=training.seed,
            epoch=epoch,
            step=step,
        )
        users = plan.users_of(np.asarray(chosen))
        return [str(user) for user in split.sequences.user_ids.gather(users)]

    return batch_users


def users_of_shards(
    log: Split | PreparedLog,
    rows: ShardedRows,
    config: RunConfig,
    *,
    worker: int = 0,
    num_workers: int = 1,
) -> BatchUsers:
    """The same of rows in shards, which do not say whose they are.

    The batch is read once more, and its sequences are looked for among those of the
    users: whoever has the same events in a row is named too.

    Args:
        log: what the shards were written of; a prepared one is read part by part.
        rows: training rows in shards.
        config: of the run.
        worker: int. As of `training_dataset`. Defaults to `0`.
        num_workers: int. Defaults to `1`.
    """
    training = config.training

    def batch_users(epoch: int, step: int) -> Sequence[str]:
        batches = training_dataset(
            rows,
            batch_size=training.batch_size,
            seed=training.seed,
            start_epoch=epoch,
            worker=worker,
            num_workers=num_workers,
        )
        batch = next(iter(batches.skip(step).take(1)))
        columns = (
            batch[name].numpy() for name in ("history", "targets", "segment_ids")
        )
        wanted = [
            items for row in zip(*columns, strict=True) for items in _sequences_of(*row)
        ]
        return [
            str(user)
            for split in (log.splits() if isinstance(log, PreparedLog) else (log,))
            for user in split.sequences.user_ids.gather(_owners(split, wanted))
        ]

    return batch_users


_Items: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"


def _sequences_of(history: _Items, targets: _Items, segments: _Items) -> list[_Items]:
    """The events of each segment of a row, its last target behind them."""
    found = [
        np.append(history[places], targets[places[-1]])
        for number in range(1, segments.max(initial=0) + 1)
        if len(places := np.flatnonzero(segments == number))
    ]
    return [items[items > 0] for items in found]  # before a first event stands 0


def _owners(
    split: Split, sequences: Sequence[_Items]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The users whose training part has the events of one of these in a row."""
    log, offsets = split.sequences.items, split.sequences.offsets
    found = [np.zeros(0, np.int64)]
    for items in sequences:
        starts = np.flatnonzero(log[: max(len(log) - len(items) + 1, 0)] == items[0])
        for place, item in enumerate(items):
            starts = starts[log[starts + place] == item]
        users = np.searchsorted(offsets, starts, side="right") - 1
        found.append(users[starts + len(items) <= split.train_stop[users]])
    return np.unique(np.concatenate(found))
