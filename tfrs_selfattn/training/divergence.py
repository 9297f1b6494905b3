"""Stops a run whose loss is no longer a number, and says where that began."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tfrs_selfattn._keras import keras, require_legacy_keras
from tfrs_selfattn.data.packing import PackedRows, plan_rows
from tfrs_selfattn.data.pipelines import rows_of_step
from tfrs_selfattn.data.splits import Split
from tfrs_selfattn.training.config import RunConfig

require_legacy_keras("tfrs_selfattn.training")

_NAMED = 10  # users in a message
BatchUsers: TypeAlias = "Callable[[int, int], Sequence[str]]"


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number."""


class StopOnDivergence(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops at the first batch whose loss is NaN or infinite.

    Args:
        steps: int. Batches of an epoch.
        batch_users: function from epoch and step, both from 0, to the ids of the users
            in that batch; None when rows do not say. Defaults to `None`.

    Raises:
        TrainingDiverged: from `fit`, with the epoch, the step, the users of the batch
            and what to try.
    """

    _supports_tf_logs = True  # the loss as it is, not waited for

    def __init__(self, steps: int, batch_users: BatchUsers | None = None) -> None:
        super().__init__()
        self._steps = steps
        self._batch_users = batch_users
        self._epoch = 0
        self._last: tuple[int, Any] | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # The batch before this one: a GPU that is at work on this one is not stopped.
        self._check()
        self._last = batch, (logs or {}).get("loss")

    def on_test_begin(self, logs: Any = None) -> None:
        self._check()  # a model of NaN is not worth a validation

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check()

    def _check(self) -> None:
        """Looks at the loss of the last batch, the mean since the epoch began."""
        if self._last is None:
            return
        (step, loss), self._last = self._last, None
        if loss is None or math.isfinite(float(loss)):
            return
        raise TrainingDiverged(
            f"The loss of epoch {self._epoch + 1} is {float(loss)}, not a finite "
            f"number, from step {step + 1} of {self._steps} on"
            f"{self._whose(step)}. The best epoch so far is kept. Train again, into "
            "another --output, with a lower --learning-rate; if it stops at the same "
            "step, look at the events of these users."
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
