"""Answers in files are those that a server gives to each user alone."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from tests.export.tiny import IDS, K, make_model, quick_export
from tfrs_selfattn import InputError
from tfrs_selfattn.data import events_from_frame, prepare_events
from tfrs_selfattn.export import batch_job, load_recommender, recommend_all

SMALL = {"batch_size": 5, "users_per_file": 8}


def draw_users(count, exclude=False, seed=0):
    """Users with histories of 0 to 24 items, some of them unknown to the export."""
    draw = np.random.default_rng(seed)
    pick = lambda most: [  # noqa: E731
        str(draw.choice([*IDS, "unknown"])) for _ in range(draw.integers(0, most))
    ]
    columns = {
        "user_id": [f"u{n:03d}" for n in range(count)],
        "history": [pick(25) for _ in range(count)],
    }
    if exclude:
        columns["exclude"] = [pick(15) for _ in range(count)]
    schema = dict.fromkeys(("history", "exclude"), pl.List(pl.String))
    return pl.DataFrame(
        columns, schema_overrides={n: schema[n] for n in columns if n in schema}
    )


def read(folder):
    return pl.read_parquet(folder / "answers-*.parquet").sort("user_id")


def assert_online(answers, users, export, **times):
    """Compares with one call of the recommender for every user."""
    recommender = load_recommender(export)
    assert answers["user_id"].to_list() == sorted(users["user_id"])
    users = users.sort("user_id")
    for row, answer in zip(users.to_dicts(), answers.to_dicts(), strict=True):
        left_out = [row["exclude"]] if "exclude" in row else None
        own = {name: [row[name]] for name in times}
        (online,) = recommender.recommend([row["history"]], left_out, **own)
        assert answer["items"] == [item.id for item in online]
        assert not set(answer["items"]) & {*row["history"], *row.get("exclude", [])}
        np.testing.assert_allclose(
            answer["scores"], [item.score for item in online], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("exclude", [False, True])
def test_answers_are_the_online_ones(export, exclude, tmp_path):
    users = draw_users(30, exclude)
    users[:17].write_parquet(tmp_path / "0.parquet")
    users[17:].write_parquet(tmp_path / "1.parquet")
    done = recommend_all(export.path.parent, tmp_path, tmp_path / "out", **SMALL)
    assert (done.users, done.resumed, done.files) == (30, 0, 5)
    answers = read(tmp_path / "out")
    assert answers.schema == {
        "user_id": pl.String,
        "items": pl.List(pl.String),
        "scores": pl.List(pl.Float32),
    }
    assert_online(answers, users, export.path)
    # Whoever has seen or barred nearly everything gets a shorter answer.
    assert answers["items"].list.len().max() == K


def test_nothing_left_to_recommend_is_an_empty_list(export, tmp_path):
    users = pl.DataFrame(
        {"user_id": ["all", "none"], "history": [list(IDS), None]},
        schema_overrides={"history": pl.List(pl.String)},
    )
    users.write_parquet(tmp_path / "users.parquet")
    recommend_all(export.path, tmp_path / "users.parquet", tmp_path / "out")
    answers = read(tmp_path / "out")
    assert answers["items"].list.len().to_list() == [0, K]
    assert answers["scores"].list.len().to_list() == [0, K]


def test_a_stopped_run_goes_on_to_the_same_answers(export, tmp_path, monkeypatch):
    draw_users(30).write_parquet(tmp_path / "users.parquet")
    arguments = export.path, tmp_path / "users.parquet"
    recommend_all(*arguments, tmp_path / "whole", **SMALL)

    class StoppedError(Exception):
        pass

    answer = batch_job.BatchRecommender.answer
    asked = []

    def stop(self, users):
        asked.append(len(users))
        if len(asked) == 4:  # in the second chunk
            raise StoppedError
        return answer(self, users)

    with monkeypatch.context() as patch:
        patch.setattr(batch_job.BatchRecommender, "answer", stop)
        with pytest.raises(StoppedError):
            recommend_all(*arguments, tmp_path / "out", **SMALL)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    first = next((tmp_path / "out").glob("*.parquet"))
    before = first.stat().st_mtime_ns
    done = recommend_all(*arguments, tmp_path / "out", **SMALL)
    assert (done.users, done.resumed) == (30, 8)
    assert first.stat().st_mtime_ns == before
    assert read(tmp_path / "out").equals(read(tmp_path / "whole"))
    again = recommend_all(*arguments, tmp_path / "out", **SMALL)
    assert again.resumed == 30


def test_another_job_is_not_gone_on_with(export, tmp_path):
    draw_users(9).write_parquet(tmp_path / "users.parquet")
    recommend_all(export.path, tmp_path / "users.parquet", tmp_path / "out", **SMALL)
    draw_users(10).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(
        InputError, match=r"same users\. Received: .*out, .* in users\."
    ):
        recommend_all(
            export.path, tmp_path / "users.parquet", tmp_path / "out", **SMALL
        )
    with pytest.raises(InputError, match="holds something else"):
        recommend_all(export.path, tmp_path / "users.parquet", tmp_path)


def test_what_was_prepared_is_answered_with_times(tmp_path):
    draw = np.random.default_rng(4)
    log = pl.DataFrame(
        {
            "user_id": draw.integers(0, 12, 90),
            "item_id": draw.choice([*IDS[:20], "not exported"], 90),
            "timestamp": 1_600_000_000 + draw.integers(0, 10**6, 90),
        }
    )
    prepare_events(
        events_from_frame(log), tmp_path / "log", row_length=10, num_shards=3
    )
    model = make_model(preset="hstu")
    made = quick_export(tmp_path / "base", model=model)
    now = 1_601_000_000
    recommend_all(
        made.path, tmp_path / "log", tmp_path / "out", request_time=now, **SMALL
    )
    users = (
        log.with_row_index()
        .sort("timestamp", "index")
        .group_by("user_id", maintain_order=True)
        .agg(history="item_id", timestamps="timestamp")
        .cast({"user_id": pl.String})
        .with_columns(request_times=pl.lit(now))
    )
    answers = read(tmp_path / "out")
    assert_online(answers, users, made.path, timestamps=True, request_times=True)
    # Asked again without a time, it goes on with that of before.
    done = recommend_all(made.path, tmp_path / "log", tmp_path / "out", **SMALL)
    assert done.resumed == done.users == len(users)
    job = json.loads((tmp_path / "out" / "job.json").read_text())
    assert job["request_time"] == now


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["a"]}, "without user_id, history. Write"),
        ({"user_id": ["a"], "history": ["x,y"]}, "with history of String"),
    ],
)
def test_unusable_users(export, columns, message, tmp_path):
    pl.DataFrame(columns).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(InputError, match=message):
        recommend_all(export.path, tmp_path / "users.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        recommend_all(export.path, tmp_path / "bad.parquet", tmp_path / "out")
    with pytest.raises(InputError, match="--users must be a folder written by"):
        recommend_all(export.path, tmp_path / "absent", tmp_path / "out")


def test_a_time_aware_model_needs_a_time_for_each_item(tmp_path):
    made = quick_export(tmp_path / "base", model=make_model(preset="hstu"))
    users = pl.DataFrame({"user_id": ["a"], "history": [[IDS[0], IDS[1]]]})
    users.write_parquet(tmp_path / "users.parquet")
    with pytest.raises(InputError, match="must have the column timestamps"):
        recommend_all(made.path, tmp_path / "users.parquet", tmp_path / "out")
    users.with_columns(timestamps=[5]).write_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match="others for user 'a'"):
        recommend_all(made.path, tmp_path / "wrong.parquet", tmp_path / "out2")
