"""Side information from the command line: train, evaluate, go on, export, refresh."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest

from tfrs_selfattn import training

SMALL = ("--embedding-dim", "8", "--num-blocks", "1", "--max-length", "16")
TASTES = ("sweet", "salty", "sour")


@pytest.fixture(scope="session")
def items(events, tmp_path_factory):
    """A table of the articles of the log: 19 of 20, and 5 more."""
    ids = pl.read_csv(events, infer_schema=False)["article"].unique(maintain_order=True)
    ids = [*ids.sort().to_list()[1:], *(f"new {number}" for number in range(5))]
    draw = np.random.default_rng(0)
    frame = {
        "article": ids,
        "title": [f"Word{n % 4} word{n % 3}" for n in range(len(ids))],
        "tastes": ["|".join(draw.choice(TASTES, 2, replace=False)) for _ in ids],
        "price": [None if n == 3 else float(n) for n in range(len(ids))],
    }
    path = tmp_path_factory.mktemp("items") / "items.csv"
    pl.DataFrame(frame).write_csv(path)
    return path


@pytest.fixture(scope="session")
def features(items):
    return f"{items}:title=text,tastes=multi,price=number"


@pytest.fixture(scope="session")
def known(events, columns, features, tmp_path_factory):
    """A run with item features, not to be changed; its folder."""
    from tfrs_selfattn.cli.main import main

    folder = tmp_path_factory.mktemp("runs") / "known"
    words = ["train", "--data", str(events), *columns, *SMALL, "--epochs", "2"]
    with pytest.raises(SystemExit) as exit:
        main([*words, "--output", str(folder), "--item-features", features])
    assert exit.value.code == 0
    return folder


def test_the_run_keeps_what_it_needs(known, features, items):
    folder = training.RunFolder.open(known)
    assert folder.config.features.items == features
    assert folder.config.model.id_dropout == 0.2
    side = folder.side()
    assert side.items.features.names == ("title", "tastes", "price")
    assert side.items.features["tastes"].vocabulary
    assert tuple(side.items.table.ids) == folder.vocabulary().ids
    assert side.fingerprint() == folder.config.features.fingerprint


def test_items_that_the_table_lacks_are_counted_and_named(
    cli, events, columns, features, tmp_path
):
    words = ("train", "--data", events, *columns, *SMALL, "--epochs", "1")
    done = cli(*words, "--output", tmp_path / "run", "--item-features", features)
    assert done.status == 0
    assert re.search(
        r"1 of 20 items are not in \S*items.csv, the first is '\w+'",
        re.sub(r"\s+", " ", done.out + done.err),
    )


def test_evaluate_needs_the_run_and_the_events_only(cli, known):
    done = cli("evaluate", known, "--json")
    assert done.status == 0
    assert 0 < done.json["metrics"]["model"]["hr@10"] <= 1


def test_a_trained_run_is_continued_by_the_same_features_only(
    cli, known, events, columns, features
):
    words = ("train", "--data", events, *columns, *SMALL, "--epochs", "2")
    words = (*words, "--output", known, "--json", "--item-features")
    done = cli(*words, features)
    assert done.status == 0
    assert done.json["resumed_from"] == 2
    done = cli(*words, features.replace(",price=number", ""))
    assert done.status == 2
    assert "item_features" in done.err or "--item-features" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--item-features items.csv", "--item-features must be written as items.csv:"),
        ("--item-features no.csv:a=text", "file of features must be a file. .*no.csv"),
        ("--item-features {items}:a=text", "must have a column 'a'"),
        ("--item-features {items}:title=number", "column 'title' must hold finite"),
        ("--user-features {items}:title=text", "must have a column 'visitor'"),
        ("--id-dropout 0.5", "--id-dropout and --oov-buckets need item features"),
        ("--oov-buckets 5", "--id-dropout and --oov-buckets need item features"),
        ("--id-dropout 1", r"--id-dropout must be a number in \[0, 1\)"),
    ],
)
def test_options_that_are_refused(
    refused, events, columns, items, tmp_path, options, message
):
    words = ("train", "--data", events, *columns, *SMALL, "--output", tmp_path / "run")
    given = options.format(items=items).split()
    assert re.search(message, refused(*words, *given))


def test_separate_tables_of_items(cli, events, columns, features, tmp_path):
    words = ("train", "--data", events, *columns, *SMALL, "--epochs", "1", "--json")
    done = cli(
        *(*words, "--output", tmp_path / "run", "--item-features", features),
        *("--separate-items", "--oov-buckets", "3", "--id-dropout", "0.5"),
    )
    assert done.status == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["share_items"] is False
    assert config["model"]["oov_buckets"] == 3
    model = training.load_model(training.RunFolder.open(tmp_path / "run"))
    assert not model.shares_table
