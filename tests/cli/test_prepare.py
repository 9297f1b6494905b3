"""prepare, train --shards, and recommend-all to those who were prepared."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest

from tests.cli.conftest import SMALL
from tfrs_selfattn import training
from tfrs_selfattn.cli import _steps
from tfrs_selfattn.cli._provenance import _protocol
from tfrs_selfattn.data import PreparedLog, prepare_events, read_events, read_prepared
from tfrs_selfattn.evaluation import evaluate_ranking


@pytest.fixture(scope="module")
def prepared(events, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "log"
    log = read_events(events, user_column="visitor", item_column="article")
    prepare_events(log, folder, row_length=16, num_shards=2)
    return folder


def test_prepare_says_what_it_kept_and_left_out(cli, events, columns, tmp_path):
    text = events.read_text()
    (tmp_path / "events.csv").write_text(f"{text}u1,i1,never\n")
    out = tmp_path / "out"
    words = ("prepare", "--data", tmp_path / "events.csv", *columns, "--output", out)
    done = cli(*words, "--max-length", "16", "--num-shards", "2")
    assert (done.status, done.err) == (0, "")
    assert "events of 60 users with 20 items: " in done.out
    assert "  1 rows could not be read; see" in done.out
    assert f"tfrs-selfattn train --shards {out}" in done.out
    done = cli(*words, "--json", "--max-user-events", "3")
    assert done.json["rejected"] == 1
    assert done.json["beyond_newest"] > 0
    assert (
        done.json["events"]
        == pl.read_parquet(out / done.json["generation"] / "sequences" / "*.parquet")[
            "items"
        ]
        .list.len()
        .sum()
    )


def test_a_run_on_shards_trains_evaluates_and_answers_everyone(
    cli, prepared, exported, tmp_path
):
    run = tmp_path / "run"
    words = ("train", "--shards", prepared, *SMALL, "--output", run)
    done = cli(*words, "--epochs", "1", "--json")
    assert done.status == 0, done.err
    assert done.json["users"] == 60
    folder = training.RunFolder.open(run)
    assert folder.config.data.path == str(prepared)
    assert cli("evaluate", run, "--json").json["users"] > 0

    # Same vocabulary, other model: whoever was prepared can be answered.
    answers = tmp_path / "answers"
    words = ("recommend-all", exported, "--users", prepared, "--output", answers)
    done = cli(*words, "--json", "--users-per-file", "25")
    assert (done.json["users"], done.json["resumed"]) == (60, 0)
    assert len(pl.read_parquet(answers / "*.parquet")) == 60
    assert cli(*words, "--json", "--users-per-file", "25").json["resumed"] == 60


def test_training_on_shards_reads_no_more_than_it_validates_on(
    cli, prepared, tmp_path, monkeypatch
):
    words = ("train", "--shards", prepared, *SMALL, "--epochs", "1", "--json")
    whole = read_prepared(prepared).split()
    metrics = []
    with monkeypatch.context() as patch:
        patch.delattr(PreparedLog, "split")
        read = []
        held_out = PreparedLog.held_out
        patch.setattr(
            PreparedLog,
            "held_out",
            lambda *known, **options: (
                read.append(held_out(*known, **options)) or read[-1]
            ),
        )
        for number, few in enumerate(((), ("--validation-users", "7"))):
            run = tmp_path / f"{number}"
            done = cli(*words, *few, "--output", run)
            assert done.status == 0, done.err
            folder = training.RunFolder.open(run)
            model = training.load_model(folder)
            # As it was trained, not as it was read.
            cases = whole.validation.sample(folder.config.training.validation_users)
            expected = evaluate_ranking(model.scorer(), cases).metrics
            metrics.append(done.json["validation"])
            assert metrics[-1]["ndcg@10"] == pytest.approx(expected["ndcg@10"])
    assert metrics[0] != metrics[1]
    all_users, few_users = read
    assert len(all_users.validation) == len(whole.validation) > 7
    assert few_users.sequences.num_users == 7
    events = few_users.sequences.num_events
    assert events == len(few_users.sequences.items) < whole.sequences.num_events / 3


def test_many_users_are_validated_on_in_part(prepared, monkeypatch):
    assert _steps.validation_bound(prepared) is None
    monkeypatch.setattr(_steps, "_VALIDATION", 20)
    assert _steps.validation_bound(prepared) == 20
    assert _steps.validation_bound(None) is None


@pytest.fixture(scope="module")
def by_the_clock(events, tmp_path_factory):
    """The same events as `prepared`, split by the clock."""
    folder = tmp_path_factory.mktemp("prepared") / "clock"
    log = read_events(events, user_column="visitor", item_column="article")
    times = log.collect()["timestamp"].sort()
    first, last = int(times[len(times) // 2]), int(times[3 * len(times) // 4])
    prepare_events(
        log,
        folder,
        row_length=16,
        num_shards=2,
        validation_time=first,
        test_time=last,
    )
    return folder, first, last


def test_the_split_of_a_run_is_kept_and_mixed_with_no_other(
    cli, prepared, by_the_clock, tmp_path
):
    """Both folders hold the same events; the ones train on what the others test."""
    folder, first, last = by_the_clock
    run = tmp_path / "run"
    words = ("--shards", folder, *SMALL, "--epochs", "1", "--output", run)
    assert cli("train", *words).status == 0
    done = cli("evaluate", run)
    assert done.status == 0, done.err
    assert "Leave-one-out" not in done.out
    assert re.search(
        r"Split by the clock \(training before \d{4}-.* UTC, test from .* UTC on\): te",
        " ".join(done.out.split()),
    )
    split = {"kind": "clock", "validation_time": first, "test_time": last}
    assert training.RunFolder.open(run).metrics()["test"]["split"] == split

    done = cli("evaluate", run, "--data", prepared)
    assert done.status == 2
    assert "Received: leave-one-out, where the run has split by the cl" in done.err
    done = cli("train", "--shards", prepared, *words[2:])
    assert done.status == 2
    assert f"made with --validation-time {first} (now None), --test-" in done.err

    # A run of a version that did not write the split down.
    old = tmp_path / "old"
    old.mkdir()
    config = json.loads((run / "config.json").read_text())
    del config["data"]["validation_time"], config["data"]["test_time"]
    (old / "config.json").write_text(json.dumps(config))
    (old / "checkpoints").symlink_to(run / "checkpoints")
    done = cli("evaluate", run, "--against", old)
    assert done.status == 2
    assert "split as " in done.err and "with leave-one-out. Runs can" in done.err
    done = cli("evaluate", old)
    assert done.status == 2
    assert "where the run has leave-one-out. Pass the original" in done.err


def test_the_model_card_names_the_split(by_the_clock):
    _, first, last = by_the_clock
    card = _protocol(None, (first, last))
    assert card.startswith("Split by the clock: events before ")
    assert "Leave-one-out" not in card
    assert _protocol(None, None).startswith("Leave-one-out: ")


def test_shards_must_fit_the_run(refused, prepared, tmp_path):
    options = ("train", "--shards", prepared, "--output", tmp_path / "run")
    line = refused("train", "--output", tmp_path / "run")
    assert line.startswith("One of --data and --shards must be given. Received: nei")
    assert "Received: both" in refused(*options, "--data", prepared)
    wrong = ("train", "--shards", tmp_path, "--output", tmp_path / "run")
    assert "A folder written by `tfrs-selfattn prepare` was expected" in refused(*wrong)
    line = refused(*options)
    assert "--max-length 200. Received: " in line
    assert "with --max-length 16. Prepare the events anew" in line
    line = refused(*options, *SMALL, "--preset", "hstu")
    assert "Prepare the events with --times" in line


def test_pipeline_options_need_a_runner(refused, events, columns, tmp_path):
    words = ("prepare", "--data", events, *columns, "--output", tmp_path / "out")
    line = refused(*words, "--parallelism=4")
    assert line.startswith("An option of this command was expected. Received: --par")
    assert "pipeline options need --runner" in line
