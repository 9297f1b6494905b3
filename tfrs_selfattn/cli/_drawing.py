"""Pictures in characters, for terminals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_HALF_WIDTH = 16  # of a bar, in characters
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SHADES = " ░▒▓█"


def bar(share: float) -> str:
    """A bar for a number from -1 to 1, to the left or to the right of an axis."""
    eighths = round(abs(share) * _HALF_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    if share >= 0:
        return " " * _HALF_WIDTH + "│" + "█" * full + _EIGHTHS[rest].strip()
    # There are no blocks that grow from the right; a half is the nearest.
    left = ("▐" if rest >= 4 else "") + "█" * full
    return f"{left:>{_HALF_WIDTH}}│"


def shaded_rows(
    weights: npt.NDArray[np.float32], labels: Sequence[str], limit: int
) -> list[tuple[str, str, str, str]]:
    """A heat map as rows of a table, of the newest `limit` items.

    Args:
        weights: float32 `[T, T]`, row: the item that looks.
        labels: list of T str.
        limit: int.

    Returns:
        For each item its number (1 = the oldest of all), its label, two characters a
        column, dark where it looked most, and the number of that item with its weight.
    """
    first = max(len(labels) - limit, 0)
    shown = weights[first:, first:]
    # Of the largest weight that is shown: one dark cell at least.
    levels = np.ceil(shown / max(float(shown.max()), 1e-9) * (len(_SHADES) - 1))
    rows = []
    for row, label in enumerate(labels[first:]):
        cells = "".join(_SHADES[int(level)] * 2 for level in levels[row])
        most = int(weights[first + row].argmax())
        rows.append(
            (
                f"{first + row + 1}",
                label,
                cells,
                f"{most + 1} ({weights[first + row, most]:.2f})",
            )
        )
    return rows
