"""Groups training windows by length into rows of a few widths.

An alternative to packing for models that know no segments: padding is bounded by the
ratio of neighbouring widths, and every window has a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.data.packing import PackedRows, RowPlan, learnable_windows
from tfrs_selfattn.data.splits import Split

_SMALLEST = 8  # Narrower rows save nothing: a step has a fixed cost.


@dataclass(frozen=True, eq=False)
class BucketedRows:
    """Training rows of several widths, one window a row, padded on the left.

    Args:
        buckets: rows of each width, narrowest first; no bucket is empty.
    """

    buckets: tuple[PackedRows, ...]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.buckets)

    @property
    def row_length(self) -> int:
        """The width of the widest rows, T."""
        return self.buckets[-1].row_length

    @property
    def num_targets(self) -> int:
        """Targets to learn in one epoch."""
        return sum(rows.num_targets for rows in self.buckets)

    @property
    def fill(self) -> float:
        """The fraction of slots that hold a real item."""
        slots = sum(rows.items.size for rows in self.buckets)
        return sum(rows.fill * rows.items.size for rows in self.buckets) / slots


def bucket_rows(
    split: Split,
    *,
    row_length: int,
    widths: Sequence[int] | None = None,
    windows: str = "all",
    stride: int | None = None,
    times: bool = False,
    starts: bool = False,
    seed: int = 0,
) -> BucketedRows:
    """Makes training rows, each in the narrowest bucket that holds its window.

    Args:
        split: what to train on.
        row_length: int. T, of the widest rows.
        widths: ints or None. Widths of the narrower rows. None halves T again and
            again, down to 8. Defaults to `None`.
        windows: str. As of `pack_rows`. Defaults to `"all"`.
        stride: int or None. As of `pack_rows`. Defaults to `None`.
        times: bool. Also give timestamps and request times. Defaults to `False`.
        starts: bool. As of `pack_rows`. Defaults to `False`.
        seed: int. The order of rows. Defaults to `0`.
    """
    cut = learnable_windows(
        split, row_length=row_length, windows=windows, stride=stride, starts=starts
    )
    edges = _widths(row_length, widths)
    bucket = np.searchsorted(edges, cut.lengths)  # [W], the narrowest that fits
    buckets = []
    for number, width in enumerate(edges):
        chosen = np.flatnonzero(bucket == number)
        if len(chosen):
            plan = RowPlan.make(
                split,
                cut.take(chosen),
                row_length=width,
                pack=False,
                times=times,
                seed=seed,
            )
            buckets.append(plan.lay_out(0, plan.num_rows))
    return BucketedRows(tuple(buckets))


def _widths(row_length: int, widths: Sequence[int] | None) -> list[int]:
    """All widths, ascending, the last one T."""
    if widths is None:
        halves = [row_length]
        while halves[-1] // 2 >= _SMALLEST:
            halves.append(halves[-1] // 2)
        return halves[::-1]
    narrower = {check_positive_int("widths", width) for width in widths}
    if max(narrower, default=0) > row_length:
        raise ValueError(
            "`widths` must not exceed `row_length`, the widest. Received: "
            f"widths={list(widths)}, row_length={row_length}. Leave the wider ones out."
        )
    return sorted(narrower | {row_length})
