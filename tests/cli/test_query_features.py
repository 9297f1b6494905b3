"""Users, requests and events from the command line: train, evaluate, go on, export."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from tests.cli.conftest import SMALL
from tests.cli.test_commands import cells
from tests.export.conftest import ask_in_this_process
from tfrs_selfattn import data, training
from tfrs_selfattn.export import verification


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log with a device, a price and a kind for each event; its path."""
    folder = tmp_path_factory.mktemp("log")
    frame = data.generate_events(60, 20, 9.0, seed=1)
    draw = np.random.default_rng(0)
    size = len(frame)
    frame = frame.rename({"user_id": "visitor", "item_id": "article"}).with_columns(
        device=pl.Series(draw.choice(["phone", "desk", ""], size).tolist()),
        kind=pl.Series(draw.choice(["buy", "look"], size).tolist()),
        price=pl.Series(draw.choice([1.0, 2.5, 9.0], size)),
    )
    frame.write_csv(folder / "events.csv")
    visitors = frame["visitor"].unique(maintain_order=True).sort()[2:]
    pl.DataFrame(
        {
            "visitor": visitors,
            "country": draw.choice(["it", "fr"], len(visitors)).tolist(),
            "age": draw.integers(18, 80, len(visitors)),
        }
    ).write_csv(folder / "users.csv")
    return folder / "events.csv"


@pytest.fixture(scope="module")
def words(log, columns):
    """The command that trains with all of it, but for --output."""
    return (
        *("train", "--data", log, *columns, *SMALL, "--epochs", "1", "--json"),
        *("--user-features", f"{log.parent / 'users.csv'}:country=category,age=number"),
        *("--context-features", "device:category"),
        *("--event-features", "price:number[log],kind:category"),
    )


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    from tfrs_selfattn.cli.main import main

    folder = tmp_path_factory.mktemp("runs") / "told"
    with pytest.raises(SystemExit) as exit:
        main([*map(str, words), "--output", str(folder)])
    assert exit.value.code == 0
    return folder


def test_the_run_keeps_what_it_needs(run):
    folder = training.RunFolder.open(run)
    side = folder.side()
    assert side.users.features.names == ("country", "age")
    assert side.query.names == ("country", "age", "device")
    assert side.events.names == ("price", "kind")
    assert side.events["price"].high == 9.0
    assert folder.config.features.context == "device:category"
    model = training.load_model(folder)
    assert model.query_tower.query_projection.features == side.query


def test_users_that_the_table_lacks_are_counted_and_named(cli, words, tmp_path):
    done = cli(
        *(word for word in words if word != "--json"), "--output", tmp_path / "r"
    )
    assert done.status == 0
    assert re.search(
        r"2 of 60 users are not in \S*users.csv, the first is '\w+'",
        re.sub(r"\s+", " ", done.out + done.err),
    )


def test_evaluate_reads_the_features_again(cli, run, trained, log, tmp_path):
    done = cli("evaluate", run, "--json")
    assert done.status == 0, done.err
    assert 0 < done.json["metrics"]["model"]["hr@10"] <= 1
    # Against a run that knows ids alone, of the same events.
    done = cli("evaluate", run, "--against", trained, "--json")
    assert done.status == 0, done.err
    # A log whose prices are others is not what was trained on.
    frame = pl.read_csv(log)
    other = tmp_path / "other.csv"
    frame.with_columns(pl.col("price") + 1).write_csv(other)
    done = cli("evaluate", run, "--data", other)
    assert done.status == 2
    assert "columns device, price, kind of the event log must hold" in done.err


def test_a_trained_run_is_continued_by_the_same_features_only(cli, run, words):
    done = cli(*words, "--output", run)
    assert done.status == 0, done.err
    assert done.json["resumed_from"] == 1
    changed = [str(word).replace(",kind:category", "") for word in words]
    done = cli(*changed, "--output", run)
    assert done.status == 2
    assert "event_features" in done.err or "--event-features" in done.err


def test_a_run_of_events_is_not_explained_from_its_folder(cli, run):
    done = cli("explain", run, "--history", "anything")
    assert done.status == 2
    assert (
        "error: A run folder must know no features of events to be explained. "
        f"Received: {run}, trained with --event-features. Export it, and explain the "
        "export with --event-feature."
    ) == done.err.strip()


@pytest.fixture(scope="module")
def of_users(words, log, tmp_path_factory):
    """A run that knows its users, requests and titles, with pictures of attention."""
    from tfrs_selfattn.cli.main import main

    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    folder = tmp_path_factory.mktemp("runs") / "users"
    kept = [word for word in map(str, words) if "price" not in word]
    kept.remove("--event-features")
    articles = sorted(set(pl.read_csv(log, infer_schema=False)["article"]))[1:]
    titles = {"article": articles, "title": [f"Tea no. {a}" for a in articles]}
    pl.DataFrame(titles).write_csv(folder.parent / "titles.csv")
    options = ("--attention-images", "1", "--output", str(folder))
    options += ("--items", str(folder.parent / "titles.csv"))
    with pytest.raises(SystemExit) as exit:
        main([*kept, *options])
    assert exit.value.code == 0
    return folder


def test_attention_of_a_run_of_users_is_drawn(of_users):
    assert list((of_users / "tensorboard" / "attention").glob("events.*"))


def test_a_run_of_users_is_explained_as_its_export_is(
    cli, of_users, tmp_path, monkeypatch
):
    monkeypatch.setattr(verification, "ask", ask_in_this_process)
    done = cli("export", of_users, "--to", tmp_path / "base", "--k", "5")
    assert done.status == 0, done.err
    known = training.RunFolder.open(of_users).vocabulary().ids
    words = ("--history", ",".join([*known[:3], "nobody"]), "--json")
    told = ("--feature", "country=it", "--feature", "age=70")
    found = {}
    for more in ((), told):
        by_run, by_export = (
            cli("explain", base, *words, *more).json
            for base in (of_users, tmp_path / "base")
        )
        assert by_run["item"] == by_export["item"]
        for one, other in zip(
            by_run["contributions"], by_export["contributions"], strict=True
        ):
            assert (one["id"], one["title"]) == (other["id"], other["title"])
            assert one["contribution"] == pytest.approx(other["contribution"], abs=1e-4)
        found[more] = by_run
    assert found[()] != found[told]
    words = ("explain", of_users, *words)
    for method in ("integrated_gradients", "attention_rollout"):
        done = cli(*words, *told, "--method", method)
        assert done.status == 0, done.err
        assert len(done.json["contributions"]) == 4
    # Titles where there are any, ids for the others.
    listed = pl.read_csv(of_users.parent / "titles.csv", infer_schema=False)["article"]
    (bare,) = set(known) - set(listed)
    history = ",".join([*listed[:2], bare])
    words = ("explain", of_users, "--history", history, "--item", listed[2])
    done = cli(*words)
    assert f"Why Tea no. {listed[2]}? What its score loses without" in done.out
    shown = {row[0]: row[1] for row in cells(done.out)}
    assert [shown[item] for item in (*listed[:2], bare)] == [
        *(f"Tea no. {item}" for item in listed[:2]),
        "",
    ]
    looks = cli(*words, "--attention", "--json").json["attention"]
    assert looks["labels"] == [*(f"Tea no. {item}" for item in listed[:2]), bare]
    done = cli(*words, "--feature", "zip=1")
    assert done.status == 2
    assert "that the model takes: age, country, device. Received: 'zip=1'" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--event-features price", "--event-features must be written as"),
        ("--event-features price:vector", "kinds that a column of the event log can"),
        ("--event-features dear:number", "must have the column 'dear' of a feature"),
        ("--event-features kind:number", "column 'kind' must hold finite numbers"),
        (
            "--event-features price:number --context-features price:bucket",
            "names of their own. Received: 'price' more than once",
        ),
        (
            "--event-features price:number --attention-images 2",
            "--attention-images with --event-features price:number",
        ),
        ("--user-features users.csv", "--user-features must be written as"),
        ("--user-features {users}:zip=category", "users.csv must have a column 'zip'"),
        ("--user-features {users}:country=number", "column 'country' must hold finite"),
    ],
)
def test_options_that_are_refused(refused, log, columns, tmp_path, options, message):
    users = log.parent / "users.csv"
    words = ("train", "--data", log, *columns, *SMALL, "--output", tmp_path / "run")
    assert re.search(message, refused(*words, *options.format(users=users).split()))


def test_what_prepare_wrote_has_no_features(cli, log, columns, words, tmp_path):
    prepared = tmp_path / "prepared"
    options = ("--max-length", "16", "--output", prepared)
    done = cli("prepare", "--data", log, *columns, *options)
    assert done.status == 0, done.err
    shards = ("train", "--shards", prepared, *SMALL, "--output", tmp_path / "run")
    done = cli(*shards, "--event-features", "price:number")
    assert done.status == 2
    assert "must be columns of the event log. Received: price, for" in done.err
    users = f"{log.parent / 'users.csv'}:country=category"
    done = cli(*shards, "--user-features", users, "--user-column", "visitor")
    assert done.status == 2
    assert "Features of users need the event log itself. Received: --user-" in done.err
    assert not (tmp_path / "run").exists()
