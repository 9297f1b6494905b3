"""Decides which windows share a row: best-fit decreasing, in groups of equals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Placement = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def place(lengths: npt.NDArray[np.int64], row_length: int, seed: int) -> Placement:
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
