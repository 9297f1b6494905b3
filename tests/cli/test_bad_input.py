"""Every wrong use: one line that names what is wrong, status 2, nothing written."""

from __future__ import annotations

import json
import os
import re

import pytest

HEADER = "user_id,item_id,timestamp\n"
GOOD = HEADER + "".join(f"u{n % 3},i{n % 5},{n}\n" for n in range(30))


@pytest.fixture
def train(tmp_path, refused):
    """A function that trains on a file of this text and returns the refusal."""

    def train(text, *options, name="events.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        output = () if "--output" in options else ("--output", tmp_path / "run")
        return refused("train", "--data", path, *output, *options)

    return train


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"events\.csv is empty\. A header line and at least one event"),
        (HEADER, r"events\.csv holds no events"),
        (
            "user_id,film,timestamp\n1,2,3\n",
            r"events\.csv must have a column 'item_id'\. Received: columns user_id, "
            r"film, timestamp\. Name the column with --item-column\.$",
        ),
        (
            HEADER + "1,2,1999-12-31\n1,3,yesterday\n",
            r"events\.csv, row 2 \(line 3\): column 'timestamp' must hold Unix .*"
            r"Received: 'yesterday'",
        ),
        (
            HEADER + "1,2,3\n1,,4\n",
            r"events\.csv, row 2 \(line 3\): column 'item_id' must hold an id.*nothing",
        ),
        (
            HEADER + ",2,3\n",
            r"events\.csv, row 1 \(line 2\): column 'user_id' must hold an id",
        ),
        (HEADER + "1,2,3,4\n", r"events\.csv cannot be read: line 2 has 4 fields"),
        (HEADER + "1,2,3\n1,4,5\n", r"one user with 3 or more events"),
        (HEADER + "1,2,3\n1,4,5\n1,6,7\n", r"one user with 4 or more events"),
    ],
)
def test_events_that_cannot_be_used(train, text, message):
    assert re.search(message, train(text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "0"), r"'--epochs'.*See tfrs-selfattn train --help\.$"),
        (("--epochs", "many"), r"'--epochs'"),
        (("--batch-size", "0"), r"'--batch-size'"),
        (("--min-item-events", "0"), r"'--min-item-events'"),
        (("--seed", "-1"), r"'--seed'"),
        (("--seed", "5000000000"), r"^--seed must be .*Received: --seed 5000000000\."),
        (("--dropout", "1.5"), r"^--dropout must be .*Received: --dropout 1\.5\."),
        (("--learning-rate", "0"), r"^--learning-rate must be a positive"),
        (("--learning-rate", "nan"), r"^--learning-rate must be a positive"),
        (
            ("--num-heads", "3"),
            r"^--num-heads must divide --embedding-dim\. Received: --num-heads 3, "
            r"--embedding-dim 64\.",
        ),
        (("--preset", "gru4rec"), r"^--preset must be one of 'sasrec', .*'gru4rec'"),
        (("--min-item-events", "99"), r"No events are left.*--min-item-events 99"),
        (("--colour", "red"), r"No such option: --colour"),
    ],
)
def test_options_that_cannot_be_used(train, options, message):
    assert re.search(message, train(GOOD, *options))


def test_a_file_that_is_not_there(refused, tmp_path):
    line = refused("train", "--data", tmp_path / "no.csv", "--output", tmp_path / "run")
    assert re.search(r"no\.csv, which does not exist", line)


def test_a_kind_of_file_that_is_not_known(train):
    assert re.search(
        r"ending, one of \.csv.*events\.xlsx", train("", name="events.xlsx")
    )


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, (), r"items\.csv, which is none"),
        ("id,title\n1,Tea\n", (), r"items\.csv must have a column 'item_id'"),
        (
            "item_id,name\n1,Tea\n",
            (),
            r"items\.csv must have a column 'title'.*--title-column",
        ),
        (
            "item_id,name\n1,Tea\n",
            ("--title-column", "nom"),
            r"column 'nom'\. Received: columns item_id, name",
        ),
    ],
)
def test_an_item_file_that_cannot_be_used(train, tmp_path, text, options, message):
    items = tmp_path / "items.csv"
    if text is not None:
        items.write_text(text)
    assert re.search(message, train(GOOD, "--items", items, *options))


def test_an_output_that_cannot_be_used(train, tmp_path):
    def output(path):
        return train("", "--output", path)  # looked at before the events are

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    assert re.search(r"full, which holds other files\.", output(tmp_path / "full"))
    assert re.search(r"which is a file", output(tmp_path / "full" / "thesis.tex"))
    below = tmp_path / "full" / "thesis.tex" / "run"
    assert re.search(r"must be writable\. .*Not a directory", output(below))
    if os.path.isdir("/proc/self"):
        assert re.search(r"must be writable\. Received: /proc/run", output("/proc/run"))


def test_an_output_that_holds_another_run(refused, trained, events, columns):
    options = ("--data", events, *columns, "--output", trained)
    line = refused("train", *options, "--num-blocks", "1", "--max-length", "16")
    assert re.search(
        r"run holds another run, made with --embedding-dim 8 \(now 64\), --epochs 2 "
        r"\(now 100\)\. Choose another --output",
        line,
    )


def test_commands_need_a_run(refused, tmp_path):
    for command in (("evaluate",), ("export", "--to", tmp_path / "base")):
        assert re.search(r"Missing argument", refused(*command))
        assert re.search(
            r"run folder.*no such folder", refused(*command, tmp_path / "no")
        )
        assert re.search(r"no config\.json in it", refused(*command, tmp_path))


def test_a_run_without_an_epoch_is_to_be_continued(
    refused, trained, events, columns, tmp_path
):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "vocabulary.txt", "items.csv"):
        (tmp_path / "run" / name).write_bytes((trained / name).read_bytes())
    for command in (("evaluate",), ("export", "--to", tmp_path / "base")):
        line = refused(*command, tmp_path / "run")
        assert re.search(r"no complete epoch yet\. Repeat the `train` command", line)


def test_evaluate_needs_the_events_of_the_run(refused, trained, tmp_path):
    (tmp_path / "other.csv").write_text(
        GOOD.replace("user_id", "visitor").replace("item_id", "article")
    )
    line = refused("evaluate", trained, "--data", tmp_path / "other.csv")
    assert re.search(r"other\.csv must be those that .*run was trained on", line)
    line = refused("evaluate", trained, "--data", tmp_path / "none.csv")
    assert re.search(r"none\.csv, which does not exist", line)


def test_evaluate_compares_runs_on_the_same_events_only(refused, trained, tmp_path):
    (tmp_path / "run").mkdir()
    config = json.loads((trained / "config.json").read_text())
    config["data"]["fingerprint"] = "another"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    line = refused("evaluate", trained, "--against", tmp_path / "run")
    assert re.search(
        r"^--against must name a run on the same events as .*run, which", line
    )


def test_recommend_needs_an_export(refused, trained, tmp_path):
    for base in (tmp_path / "none", tmp_path, trained):
        line = refused("recommend", base, "--history", "i1")
        assert re.search(rf"export must .*Received: {base}, which", line)
    assert re.search(r"Missing option '--history'", refused("recommend", trained))


def test_export_needs_a_place(refused, trained, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused("export", trained, "--to", tmp_path / "file" / "base")
    assert re.search(r"must be one that can be written to", line)
    assert re.search(r"'--k'", refused("export", trained, "--to", tmp_path, "--k", "0"))


def test_quickstart_needs_movielens(refused, tmp_path, monkeypatch):
    output = ("--output", tmp_path / "out")
    (tmp_path / "other.csv").write_text(GOOD)
    line = refused("quickstart", "--data", tmp_path, *output)
    assert re.search(r"^--data must name a folder with MovieLens-100K", line)
    monkeypatch.setenv("TFRS_SELFATTN_DATA", str(tmp_path))
    assert re.search(r"^TFRS_SELFATTN_DATA must name", refused("quickstart", *output))
