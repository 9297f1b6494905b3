"""Pictures: what is drawn, where it goes, what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.explain import bar_plot, heat_map

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra `plot`")


def test_bars_stand_for_the_contributions_oldest_on_top(tmp_path):
    path = tmp_path / "bars.png"
    figure = bar_plot([0.5, -0.25, 0.0], ["a", "$b$", "x" * 80], title="t", path=path)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, -0.25, 0.0]
    first, second, _ = (bar.get_facecolor() for bar in axes.patches)
    assert first != second
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["a", r"\$b\$", "x" * 39 + "…"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_heat_map_shows_the_weights():
    weights = np.tri(3) / np.arange(1, 4)[:, None]
    figure = heat_map(weights, ["a", "b", "c"])
    axes, _ = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)


@pytest.mark.parametrize("draw", [bar_plot, heat_map])
def test_wrong_use_is_refused(draw, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Received: 1 labels for 2 items"):
        draw(np.zeros([2, 2][: 2 if draw is heat_map else 1]), ["a"])
    values = np.zeros([1, 1] if draw is heat_map else [1])
    for path in (tmp_path / "no" / "plot.png", tmp_path / "plot.nothing"):
        with pytest.raises(InputError, match=r"can be written, such as plot\.png\. Re"):
            draw(values, ["a"], path=path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"need matplotlib.*tfrs-selfattn\[plot\]"):
        draw(values, ["a"])
