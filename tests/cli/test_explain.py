"""What `explain` prints, draws and refuses."""

from __future__ import annotations

import re

import pytest

from tests.cli.test_commands import cells
from tfrs_selfattn.cli.explain import bar


@pytest.fixture
def history(exported):
    """Four items that the export knows."""
    vocabulary = (exported / "1" / "assets" / "vocabulary.txt").read_text()
    return vocabulary.split("\n")[:4]


def test_explains_the_first_recommendation(cli, exported, history, tmp_path):
    asked = (exported, "--history", ",".join([*history, "nobody"]))
    machine = cli("explain", *asked, "--json").json
    assert list(machine) == ["item", "contributions", "unknown", "method"]
    best = cli("recommend", *asked, "--json").json["recommendations"][0]
    assert machine["item"] == {"id": best["id"], "title": None}
    found = machine["contributions"]
    assert [one["id"] for one in found] == [*history, "nobody"]
    assert machine["unknown"] == ["nobody"]
    assert [one["contribution"] == 0 for one in found] == [False] * 4 + [True]

    # What the number says it is: the score less the score without the item.
    shorter = ",".join(history[1:])
    among = cli("recommend", exported, "--history", shorter, "--json").json
    scores = {one["id"]: one["score"] for one in among["recommendations"]}
    if best["id"] in scores:
        lost = best["score"] - scores[best["id"]]
        assert found[0]["contribution"] == pytest.approx(lost, abs=1e-4)

    done = cli("explain", *asked, "--limit", "2")
    assert (done.status, done.err) == (0, "")
    assert f"Why {best['id']}?" in done.out
    strongest = sorted(found, key=lambda one: -abs(one["contribution"]))[:2]
    shown = [row[:3] for row in cells(done.out)]
    for one in strongest:
        assert [one["id"], "", f"{one['contribution']:+.3f}"] in shown
    assert len(shown) == 2
    assert "3 items that count less are not shown" in done.out


def test_explains_an_item_and_draws_it(cli, exported, history, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    picture = tmp_path / "why.png"
    asked = (exported, "--history", ",".join(history[:3]), "--item", history[3])
    done = cli("explain", *asked, "--plot", picture)
    assert (done.status, done.err) == (0, "")
    assert f"Why {history[3]}?" in done.out
    assert f"Drawn to {picture}" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--history", "nobody"), "--history must hold an item that"),
        (
            ("--history", "", "--item", "x"),
            "--history must hold an item that",
        ),
        (("--history", "KNOWN", "--item", "who"), "Received: 'who', which .* not know"),
        (("--history", "KNOWN", "--times", "a"), "--times must hold Unix seconds"),
    ],
)
def test_what_cannot_be_explained(refused, exported, history, words, line):
    words = [history[0] if word == "KNOWN" else word for word in words]
    assert re.search(line, refused("explain", exported, *words))


@pytest.mark.parametrize(
    ("share", "wanted"),
    [
        (1.0, " " * 16 + "│" + "█" * 16),
        (-1.0, "█" * 16 + "│"),
        (0.0, " " * 16 + "│"),
        (9 / 128, " " * 16 + "│█▏"),
        (-1.5 / 16, " " * 14 + "▐█│"),
    ],
)
def test_bars(share, wanted):
    assert bar(share) == wanted
