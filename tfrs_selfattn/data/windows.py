"""Cuts long histories into training windows without losing a target.

Which windows share a row is decided in `packing.py` and `bucketing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn.data.splits import Split

KINDS = ("all", "newest", "sliding")


@dataclass(frozen=True, eq=False)
class Windows:
    """W runs of consecutive (input, target) pairs, each of one user.

    Args:
        starts: int64 `[W]`. Where each window's first input stands in
            `sequences.items`; the target of an input is the item after it. One before
            a user's first event stands for no input: see `starts` of
            `training_windows`.
        lengths: int64 `[W]`. Inputs in each window, at least 1.
        contexts: int64 `[W]`. So many of a window's oldest inputs are there to be
            attended to only: another window has their targets.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    contexts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, chosen: npt.NDArray[np.int64]) -> Windows:
        """Returns the windows at these places, in this order."""
        return Windows(self.starts[chosen], self.lengths[chosen], self.contexts[chosen])


def training_windows(
    split: Split,
    *,
    row_length: int,
    windows: str = "all",
    stride: int | None = None,
    starts: bool = False,
) -> Windows:
    """Cuts each user's training part into windows of at most `row_length` inputs.

    A user with n training items has n - 1 (input, target) pairs. Windows are counted
    from the newest pair, so that only the oldest may be short.

    - `"all"`: windows lie end to end. The first target of a window sees one item.
    - `"sliding"`: windows overlap, each starts `stride` pairs before the next one, and
      trains its newest `stride` targets. Every target is trained once and sees at
      least `row_length - stride` items, or all there are. The cost of a long history
      is `row_length / stride` times that of `"all"`.
    - `"newest"`: one window of each user; older targets are not trained.

    Args:
        split: what to train on.
        row_length: int. T.
        windows: str, `"all"`, `"sliding"` or `"newest"`. Defaults to `"all"`.
        stride: int from 1 to `row_length`, for `"sliding"` only. None takes half of
            `row_length`. Defaults to `None`.
        starts: bool. Put a pair of no input and the first item before those of each
            user: what is to be recommended to an empty history. Defaults to `False`.
    """
    step = check_windows(row_length, windows, stride)
    offsets = split.sequences.offsets[:-1] - int(starts)
    pairs = np.maximum(split.train_stop - offsets - 1, 0)  # [U]
    more = -(-np.maximum(pairs - row_length, 0) // step)
    per_user = np.where(pairs > 0, 1 + more, 0)
    if windows == "newest":
        per_user = np.minimum(per_user, 1)
    users = np.repeat(np.arange(len(pairs)), per_user)  # [W]
    # 0 for the newest window of a user, 1 for the one before, …
    age = np.arange(len(users)) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    stops = pairs[users] - age * step
    firsts = np.maximum(stops - row_length, 0)
    # The oldest window trains all it has: nobody else does.
    oldest = age == per_user[users] - 1
    return Windows(
        starts=offsets[users] + firsts,
        lengths=stops - firsts,
        contexts=np.where(oldest, 0, row_length - step),
    )


def check_windows(row_length: int, windows: str, stride: int | None) -> int:
    """Checks arguments of `training_windows`.

    Returns:
        int. By how many pairs one window of a user starts before the next.
    """
    row_length = check_positive_int("row_length", row_length)
    check_choice("windows", windows, KINDS)
    if windows != "sliding":
        if stride is not None:
            raise ValueError(
                f"`stride` belongs to windows='sliding'. Received: stride={stride}, "
                f"windows={windows!r}. Leave it out, or let the windows slide."
            )
        return row_length
    if stride is None:
        return max(1, row_length // 2)
    if check_positive_int("stride", stride) > row_length:
        raise ValueError(
            "`stride` must not exceed `row_length`: targets between two windows would "
            f"be lost. Received: stride={stride}, row_length={row_length}. Use a "
            "smaller stride."
        )
    return stride
