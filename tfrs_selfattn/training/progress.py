"""How far a run has come, for people who wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tfrs_selfattn._keras import keras, require_legacy_keras
from tfrs_selfattn.training.checkpoints import MONITOR, SPEED

require_legacy_keras("tfrs_selfattn.training")


class RunProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """Says after every epoch what came of it, and how long the others will take.

    The time is the mean of the epochs of this process, their validation included, for
    each epoch that may follow: patience can end the run sooner.

    Args:
        epochs: int. At most so many, those of before included.
        say: function of a line.
        clock: function that gives seconds. Defaults to `time.perf_counter`.
    """

    def __init__(
        self,
        epochs: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self._epochs = epochs
        self._say = say
        self._clock = clock
        self._started = 0.0
        self._done = 0
        self._line: str | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._started, self._done = self._clock(), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._say_it()

    def on_train_end(self, logs: Any = None) -> None:
        self._say_it()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        self._done += 1
        mean = (self._clock() - self._started) / self._done
        left = self._epochs - epoch - 1
        parts = [f"Epoch {epoch + 1}/{self._epochs}"]
        if SPEED in logs:
            parts.append(f"{logs[SPEED]:,.0f} items/s")
        if MONITOR in logs:
            parts.append(f"validation NDCG@10 {logs[MONITOR]:.4f}")
        parts.append(f"{duration(mean * left)} left" if left else "the last one")
        # Keras ends the line of its progress bar after this: see below.
        self._line = ", ".join(parts)

    def _say_it(self) -> None:
        """Between two progress bars."""
        if self._line is not None:
            self._say(self._line)
            self._line = None


def duration(seconds: float) -> str:
    """A time as people say it: "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
