"""Packs training windows of many users into rows of equal length.

Most users are short: padded to one row each, more than half of a batch is padding.
Packing puts whole windows side by side, and `segment_ids` keep them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError, check_choice, check_positive_int
from tfrs_selfattn.data.splits import Split


@dataclass(frozen=True, eq=False)
class Windows:
    """W runs of consecutive (input, target) pairs, each of one user.

    Args:
        starts: int64 `[W]`. Where each window's first input stands in
            `sequences.items`; the target of an input is the item after it.
        lengths: int64 `[W]`. Pairs in each window, at least 1.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Training rows; a window occupies one segment of one row.

    Args:
        items: int32 `[R, T]`. Input item indices, 0 = padding.
        targets: int32 `[R, T]`. The item after each input, 0 = nothing to learn.
        segment_ids: int32 `[R, T]`. 1, 2, … within a row, 0 = padding.
    """

    items: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    segment_ids: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def row_length(self) -> int:
        return int(self.items.shape[1])

    @property
    def num_targets(self) -> int:
        return int(np.count_nonzero(self.targets))

    @property
    def fill(self) -> float:
        """The fraction of slots that hold a real item."""
        return float(np.count_nonzero(self.segment_ids)) / self.segment_ids.size


def training_windows(split: Split, *, row_length: int, windows: str = "all") -> Windows:
    """Cuts each user's training part into windows of at most `row_length` pairs.

    A user with n training items has n - 1 (input, target) pairs. Windows do not
    overlap and are counted from the newest pair, so that only the oldest may be short.

    Args:
        split: what to train on.
        row_length: int. T.
        windows: `"all"`, or `"newest"` to keep one window of each user.
    """
    row_length = check_positive_int("row_length", row_length)
    check_choice("windows", windows, ("all", "newest"))
    offsets = split.sequences.offsets[:-1]
    pairs = np.maximum(split.train_stop - offsets - 1, 0)  # [U]
    per_user = -(-pairs // row_length)
    if windows == "newest":
        per_user = np.minimum(per_user, 1)
    users = np.repeat(np.arange(len(pairs)), per_user)  # [W]
    # 0 for the newest window of a user, 1 for the one before, …
    age = np.arange(len(users)) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    stops = pairs[users] - age * row_length
    starts = np.maximum(stops - row_length, 0)
    return Windows(starts=offsets[users] + starts, lengths=stops - starts)


def pack_rows(
    split: Split,
    *,
    row_length: int,
    windows: str = "all",
    pack: bool = True,
    seed: int = 0,
) -> PackedRows:
    """Makes training rows of the training part of every user.

    Args:
        split: what to train on.
        row_length: int. T.
        windows: `"all"` pairs of a user, or only its `"newest"` window.
            Defaults to `"all"`.
        pack: bool. Share rows between users, padded on the right. `False` gives one
            window a row, padded on the left. Defaults to `True`.
        seed: int. Which users share a row. Defaults to `0`.
    """
    cut = training_windows(split, row_length=row_length, windows=windows)
    if len(cut) == 0:
        raise InputError(
            "There is nothing to train on: a user needs at least two training events, "
            "so four in all under leave-one-out. Received: "
            f"{split.sequences.num_users} users with {split.sequences.num_events} "
            "events. Pass a log with longer histories."
        )
    if pack:
        rows, columns, segments = _pack(cut.lengths, row_length, seed)
    else:
        rows = np.arange(len(cut))
        columns, segments = row_length - cut.lengths, np.ones_like(cut.lengths)

    # From here on, one element per (input, target) pair.
    within = np.arange(cut.lengths.sum())
    within -= np.repeat(np.cumsum(cut.lengths) - cut.lengths, cut.lengths)
    source = np.repeat(cut.starts, cut.lengths) + within
    slots = np.repeat(rows * row_length + columns, cut.lengths) + within
    shape = int(rows.max()) + 1, row_length
    packed = PackedRows(*(np.zeros(shape, np.int32) for _ in range(3)))
    packed.items.reshape(-1)[slots] = split.sequences.items[source]
    packed.targets.reshape(-1)[slots] = split.sequences.items[source + 1]
    packed.segment_ids.reshape(-1)[slots] = np.repeat(segments, cut.lengths)
    return packed


_Placement = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _pack(lengths: npt.NDArray[np.int64], row_length: int, seed: int) -> _Placement:
    """Places windows by best-fit decreasing: longest first, each in the fullest row.

    Windows of one length are interchangeable and so are rows with the same room left:
    both are handled as groups, and the cost grows with T squared, not with W squared.

    Returns:
        row, first column and segment number of each window, int64 `[W]`.
    """
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    by_length = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    sorted_lengths = lengths[by_length]
    rows, columns, segments = (np.zeros(len(lengths), np.int64) for _ in range(3))
    segments_in_row = np.zeros(len(lengths), np.int64)  # There are at most W rows.
    roomy: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(row_length + 1)]
    num_rows = 0

    for length in range(min(row_length, int(sorted_lengths[0])), 0, -1):
        first, last = np.searchsorted(-sorted_lengths, [-length, -length + 1])
        waiting = by_length[first:last]
        for room in range(length, row_length + 1):
            if len(waiting) == 0:
                break
            per_row = room // length
            needed = -(-len(waiting) // per_row)
            if room < row_length:
                open_rows = _take(roomy[room], needed)
            else:
                open_rows = np.arange(num_rows, num_rows + needed)
                num_rows += needed
            placed = waiting[: len(open_rows) * per_row]
            waiting = waiting[len(placed) :]
            row, turn = np.divmod(np.arange(len(placed)), per_row)
            rows[placed] = open_rows[row]
            columns[placed] = row_length - room + turn * length
            segments[placed] = segments_in_row[open_rows[row]] + turn + 1
            added = np.bincount(row, minlength=len(open_rows))
            segments_in_row[open_rows] += added
            for count in np.unique(added).tolist():
                roomy[room - count * length].append(open_rows[added == count])
    return rows, columns, segments


def _take(groups: list[npt.NDArray[np.int64]], count: int) -> npt.NDArray[np.int64]:
    """Removes up to `count` rows from a list of groups and returns them."""
    taken = [np.zeros(0, np.int64)]
    while groups and count > 0:
        group = groups.pop()
        taken.append(group[:count])
        if len(group) > count:
            groups.append(group[count:])
        count -= min(count, len(group))
    return np.concatenate(taken)
