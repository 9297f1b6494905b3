"""Configurations refuse what cannot be trained, and tell in what they differ."""

from __future__ import annotations

import dataclasses

import pytest

from tfrs_selfattn import training
from tfrs_selfattn.training import DataConfig, ModelConfig, TrainingConfig


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (ModelConfig, {"preset": "gru"}, "`preset` must be one of 'sasrec'.*'gru'"),
        (ModelConfig, {"num_heads": 0}, "`num_heads` must be a positive integer"),
        (ModelConfig, {"num_heads": 3}, "must divide.*num_heads=3, embedding_dim=64"),
        (ModelConfig, {"dropout": 1.5}, r"`dropout` must be a number in \[0, 1\)"),
        (ModelConfig, {"max_length": 2.5}, "`max_length` must be a positive integer"),
        (TrainingConfig, {"epochs": 0}, "`epochs` must be a positive integer"),
        (TrainingConfig, {"patience": -1}, "`patience` must be a positive integer"),
        (TrainingConfig, {"batch_size": 0}, "`batch_size` must be a positive"),
        (TrainingConfig, {"learning_rate": 0.0}, "`learning_rate` must be a positive"),
        (TrainingConfig, {"seed": -1}, "`seed` must be .* from 0 to 4294967295"),
    ],
)
def test_what_cannot_be_trained_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_it_comes_back_as_it_was_written(config, tmp_path):
    written = config(seed=7)
    (tmp_path / "config.json").write_text(written.to_json(), encoding="utf-8")
    assert training.RunConfig.read(tmp_path / "config.json") == written


def changed(config, **data_options):
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, **data_options)
    )


def test_the_same_events_may_lie_elsewhere(config):
    moved = changed(config(), path="/moved.parquet", user_column="u")
    assert config().differences(moved) == []


def test_another_split_of_the_same_events_differs(config):
    one = config()
    clock = dataclasses.replace(one, data=one.data.at((5, 9)))
    assert clock.data.times == (5, 9)
    assert one.differences(clock) == [
        "validation_time=None (now 5)",
        "test_time=None (now 9)",
    ]
    assert clock.differences(dataclasses.replace(one, data=one.data.at((5, 9)))) == []


def test_other_events_differ_by_how_they_were_read(config):
    one = config()
    other = changed(one, path="/b.csv", min_item_events=5, fingerprint="other")
    assert one.differences(other) == [
        "data='/data/events.csv' (now '/b.csv')",
        "min_item_events=1 (now 5)",
    ]
    assert one.differences(changed(one, fingerprint="other")) == [
        "other events in /data/events.csv"
    ]


def test_the_fingerprint_covers_what_is_learned_from(split):
    one = split.sequences
    assert training.fingerprint(one) == training.fingerprint(one)
    for name in ("items", "timestamps"):
        values = getattr(one, name).copy()
        values[0] += 1
        other = dataclasses.replace(one, **{name: values})
        assert training.fingerprint(other) != training.fingerprint(one)


def test_every_field_is_documented_or_named_as_the_presets_argument():
    for config in (DataConfig, TrainingConfig):
        for field in dataclasses.fields(config):
            assert f"{field.name}: " in config.__doc__
