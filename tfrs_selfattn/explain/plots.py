"""Pictures of explanations. Needs matplotlib, the extra `plot`.

Figures are made without pyplot, so that no window system and no global state is
touched; a notebook shows what is returned.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError

_FOR, _AGAINST = "#1f77b4", "#d1495b"
_LONGEST_LABEL = 40
_DPI = 120


def bar_plot(
    contribution: npt.ArrayLike,
    labels: Sequence[str],
    *,
    title: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draws the contributions of one history as bars, the oldest item on top.

    Args:
        contribution: float `[T]`.
        labels: list of T str, ids or titles.
        title: str. Defaults to `""`.
        path: file to write to; its suffix says in which format. None writes none.
            Defaults to `None`.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: when there is not one label for each contribution.
        InputError: when matplotlib is not installed.
    """
    values = np.asarray(contribution, np.float64)
    _check_labels(values, labels)
    figure = _figure(8.0, 1.4 + 0.24 * len(values))
    axes = figure.subplots()
    places = np.arange(len(values))
    axes.barh(places, values, color=np.where(values >= 0, _FOR, _AGAINST))
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(places, [_short(label) for label in labels])
    axes.set_ylim(len(values) - 0.4, -0.6)  # the oldest on top
    axes.set_xlabel("contribution to the score")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return _finished(figure, axes, title, path)


def heat_map(
    weights: npt.ArrayLike,
    labels: Sequence[str],
    *,
    title: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draws attention weights: each row an item that looks, each column one looked at.

    Args:
        weights: float `[T, T]`, of one head or the mean of several.
        labels: list of T str, ids or titles.
        title: str. Defaults to `""`.
        path: file to write to; its suffix says in which format. None writes none.
            Defaults to `None`.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: when there is not one label for each row.
        InputError: when matplotlib is not installed.
    """
    values = np.asarray(weights, np.float64)
    _check_labels(values, labels)
    figure = _figure(4.4 + 0.26 * len(values), 3.2 + 0.26 * len(values))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Blues", vmin=0.0)
    places = np.arange(len(values))
    names = [_short(label) for label in labels]
    axes.set_yticks(places, names)
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("this item looks at …")
    axes.set_xlabel("… this one")
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.8)
    return _finished(figure, axes, title, path)


def _check_labels(values: npt.NDArray[Any], labels: Sequence[str]) -> None:
    if len(values) != len(labels):
        raise ValueError(
            "`labels` must hold a label for each item. Received: "
            f"{len(labels)} labels for {len(values)} items. Pass the ids or titles of "
            "the history, oldest first."
        )


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError(
            "Pictures need matplotlib. Received: an environment without it. Run: pip "
            "install 'tfrs-selfattn[plot]'."
        ) from None
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _finished(
    figure: Any, axes: Any, title: str, path: str | os.PathLike[str] | None
) -> Any:
    if title:
        # A dollar would start a formula.
        axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=10)
    if path is not None:
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise InputError(
                "A picture must go to a file that can be written, such as plot.png. "
                f"Received: {os.fspath(path)} ({error}). Name another one."
            ) from None
    return figure


def _short(label: str) -> str:
    if len(label) > _LONGEST_LABEL:
        label = label[: _LONGEST_LABEL - 1] + "…"
    return label.replace("$", r"\$")
