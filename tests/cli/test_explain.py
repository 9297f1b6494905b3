"""What `explain` prints, draws and refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.cli.test_commands import cells
from tfrs_selfattn.cli._drawing import bar, shaded_rows


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


def test_a_run_is_explained_as_its_export_is(cli, trained, exported, history):
    words = ("--history", ",".join([*history, "nobody"]), "--json")
    by_export, by_run = (
        cli("explain", base, *words).json for base in (exported, trained)
    )
    assert by_run["item"] == by_export["item"]
    assert by_run["unknown"] == by_export["unknown"] == ["nobody"]
    for one, other in zip(
        by_run["contributions"], by_export["contributions"], strict=True
    ):
        assert one["id"] == other["id"]
        assert one["contribution"] == pytest.approx(other["contribution"], abs=1e-4)


def test_other_methods_of_a_run(cli, trained, history):
    asked = ("explain", trained, "--history", ",".join(history))
    found = {}
    for method in ("integrated_gradients", "attention_rollout"):
        machine = cli(*asked, "--method", method, "--json").json
        assert machine["method"] == method
        found[method] = [one["contribution"] for one in machine["contributions"]]
        assert [one["id"] for one in machine["contributions"]] == history
    assert min(found["attention_rollout"]) > 0
    assert sum(found["attention_rollout"]) == pytest.approx(1, abs=1e-5)
    assert found["integrated_gradients"] != found["attention_rollout"]
    done = cli(*asked, "--method", "attention_rollout")
    assert "Where the model looked, which need not be what counted" in done.out


def test_attention_is_printed_and_drawn(cli, trained, history, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    picture = tmp_path / "attention.png"
    asked = ("explain", trained, "--history", ",".join([*history[:3], "nobody"]))
    machine = cli(*asked, "--attention", "--block", "1", "--json").json["attention"]
    assert (machine["block"], machine["labels"]) == (1, history[:3])
    weights = np.array(machine["weights"])
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert not np.triu(weights, 1).any()
    done = cli(*asked, "--attention", "--attention-plot", picture, "--limit", "2")
    assert (done.status, done.err) == (0, "")
    assert "Where block 1 looked, the mean of its heads" in done.out
    assert "The newest 2 of 3 items are shown" in done.out
    assert f"Drawn to {picture}" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    newest = int(weights[2].argmax())
    assert f"{newest + 1} ({weights[2, newest]:.2f})" in done.out


def test_a_heat_map_in_characters():
    weights = np.array(
        [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.1, 0.3, 0.6, 0], [0.8, 0.05, 0.05, 0.1]]
    )
    rows = shaded_rows(weights.astype(np.float32), ["a", "b", "c", "d"], 3)
    assert rows == [
        ("2", "b", "██    ", "1 (0.50)"),
        ("3", "c", "▒▒██  ", "3 (0.60)"),
        ("4", "d", "░░░░░░", "1 (0.80)"),
    ]


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
        (("--history", "KNOWN", "--method", "lime"), "--method must be one of leave_"),
        (
            ("--history", "KNOWN", "--method", "integrated_gradients"),
            r"A run folder must be explained.*Received: --method integrated_gradients",
        ),
        (("--history", "KNOWN", "--attention"), "Received: attention weights of"),
        (
            ("--history", "KNOWN", "--attention-plot", "a.png"),
            "Received: attention weights of",
        ),
    ],
)
def test_what_cannot_be_explained(refused, exported, history, words, line):
    words = [history[0] if word == "KNOWN" else word for word in words]
    assert re.search(line, refused("explain", exported, *words))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--item", "who"), "--item must be an item of the run. Received: 'who'"),
        (("--attention", "--block", "2"), "--block must be from 1 to 1, .*Received: 2"),
    ],
)
def test_what_a_run_cannot_explain(refused, trained, history, words, line):
    words = ("--history", history[0], *words)
    assert re.search(line, refused("explain", trained, *words))


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
