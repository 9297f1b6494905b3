"""Runs that know users, requests and events: trained, resumed, used as trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tests.training.conftest import SMALL
from tfrs_selfattn import InputError, data, training
from tfrs_selfattn.data.side import EVENT, QUERY
from tfrs_selfattn.features import Category, FeatureSet, FeatureTable, Number, Vector
from tfrs_selfattn.features.columns import column_readers
from tfrs_selfattn.training.side_information import Known, SideInformation
from tfrs_selfattn.training.trainer import check_rows

CONTEXT = FeatureSet((Category("device"),))
EVENTS = FeatureSet((Category("kind"), Number("price", buckets=3)))
USERS = FeatureSet((Category("country"), Vector("taste")))


@pytest.fixture(scope="module")
def log():
    """A log whose events have a device, a kind and a price, some of them missing."""
    frame = data.generate_events(60, 20, 9.0, seed=1)
    draw = np.random.default_rng(0)
    size = len(frame)
    return frame.with_columns(
        device=pl.Series(draw.choice(["phone", "desk", ""], size).tolist()),
        kind=pl.Series(draw.choice(["buy", "look"], size).tolist()),
        price=pl.Series(draw.choice([1.0, 2.0, np.nan, 9.0], size)),
    )


@pytest.fixture(scope="module")
def bare(log):
    readers = column_readers(CONTEXT, EVENTS)
    events = data.events_from_frame(log)
    return data.leave_one_out(data.build_sequences(events, columns=readers))


@pytest.fixture(scope="module")
def side(bare):
    ids = bare.sequences.user_ids.to_list()
    draw = np.random.default_rng(1)
    raw = {
        "country": np.array(draw.choice([b"it", b"fr"], len(ids)), object),
        "taste": draw.normal(size=[len(ids), 2]).astype(np.float32),
    }
    shown = bare.in_training()
    columns = {name: each[shown] for name, each in bare.sequences.columns.items()}
    return SideInformation(
        users=Known.fit(USERS, FeatureTable(ids, raw)),
        context=CONTEXT.fit(columns, "log"),
        events=EVENTS.fit(columns, "log"),
    )


@pytest.fixture(scope="module")
def split(bare, side):
    return side.attach(bare)


@pytest.fixture(scope="module")
def make_run(split, side):
    def make_run(path, preset="sasrec", **options):
        config = training.RunConfig.for_sequences(
            split.sequences,
            training.DataConfig("/data/events.csv"),
            training.ModelConfig(preset=preset, **SMALL),
            training.TrainingConfig(**{"epochs": 2, "batch_size": 8, **options}),
            training.FeaturesConfig(
                users="users.csv:country=category,taste=vector",
                context="device:category",
                events="kind:category,price:bucket[3]",
                fingerprint=side.fingerprint(split.sequences.columns),
            ),
        )
        vocabulary = split.sequences.vocabulary
        return training.RunFolder.create(path, config, vocabulary, {}, side)

    return make_run


@pytest.fixture(scope="module")
def whole(make_run, split, tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "whole")
    result = training.train(folder, split, verbose=0)
    return folder, result


class Stop(Exception):
    """What ends a run early."""


class Kill(tf.keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise Stop


def test_a_resumed_run_is_the_same(whole, make_run, split, tmp_path, assert_same_run):
    folder = make_run(tmp_path / "run")
    with pytest.raises(Stop):
        training.train(folder, split, callbacks=[Kill()], verbose=0)
    opened = training.RunFolder.open(tmp_path / "run")
    # By what the folder holds: the features that it was made with.
    again = opened.side().attach(data.with_sides(split, {}))
    result = training.train(opened, again, verbose=0)
    assert result.resumed_from == 1
    assert_same_run(opened, whole[0])


def test_shards_give_the_same_run(whole, make_run, split, tmp_path, assert_same_run):
    options = {"row_length": SMALL["max_length"], "seed": 0}
    rows = data.write_shards(split, tmp_path / "rows", starts=True, **options)
    folder = make_run(tmp_path / "run")
    training.train(folder, split, rows=rows, verbose=0)
    assert_same_run(folder, whole[0])


def test_shards_without_the_features_are_refused(whole, split, tmp_path):
    config = whole[0].config
    options = {"row_length": SMALL["max_length"]}
    poor = data.write_shards(
        data.with_sides(split, {}), tmp_path / "poor", starts=True, **options
    )
    with pytest.raises(InputError, match="without query_features"):
        check_rows(poor, config)
    rows = data.write_shards(split, tmp_path / "rows", **options)
    with pytest.raises(InputError, match=r"starts=True.*starts=False"):
        check_rows(rows, config)
    of_ids = dataclasses.replace(config, features=training.FeaturesConfig())
    with pytest.raises(InputError, match="with query_features"):
        check_rows(rows, of_ids)


def test_a_split_without_the_features_is_refused(make_run, bare, tmp_path):
    folder = make_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"without query_features, event_features"):
        training.train(folder, bare, verbose=0)


def test_what_is_known_is_learned_from(whole, split):
    """Another user's country, or another kind of event, gives other scores."""
    model = whole[1].model
    (batch,) = data.evaluation_dataset(split.validation, batch_size=500)
    history = batch["history"]
    known = {name: batch[name] for name in (QUERY, EVENT)}
    scores = model.score(history, **known).numpy()
    for name in known:
        tokens, weights, dense = known[name]
        other = {**known, name: (tokens, 0.0 * weights, 0.0 * dense)}
        assert np.abs(model.score(history, **other) - scores).max() > 1e-3


@pytest.mark.parametrize("preset", ["sasrec", "esasrec", "hstu"])
def test_packed_rows_train_what_requests_are_answered_with(
    preset, make_run, side, split, tmp_path
):
    """The query of a segment is that of a request with its events, a start of none."""
    folder = make_run(tmp_path / "run", preset=preset)
    model = training.trainer.build_model(folder.config, side)
    draw = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.shape.rank > 1:
            weight.assign(draw.normal(scale=0.3, size=weight.shape))
    rows = data.pack_rows(
        split, row_length=16, starts=True, times=model.time_aware, seed=0
    )
    assert (rows.segment_ids.max(axis=1) > 1).any()
    (batch,) = data.training_dataset(rows, batch_size=4, seed=0).take(1)
    optional = ("timestamps", "request_times", QUERY, EVENT)
    given = {name: batch[name] for name in optional if name in batch}
    queries = model.query_tower.encode(
        batch["history"], segment_ids=batch["segment_ids"], training=False, **given
    ).numpy()
    history, segments = batch["history"].numpy(), batch["segment_ids"].numpy()
    starts = 0
    for row, slot in np.argwhere(segments > 0).tolist():
        newest = slot == 15 or segments[row, slot + 1] != segments[row, slot]
        if history[row, slot] and not newest:
            continue  # positions are counted from the newest of a window
        first = int(np.argmax(segments[row] == segments[row, slot]))
        part = slice(first, slot + 1)
        starts += int(history[row, slot] == 0)
        asked = {}
        if model.time_aware:
            asked["timestamps"] = batch["timestamps"][row : row + 1, part]
            asked["request_time"] = batch["request_times"][row : row + 1, slot]
        wanted = model.query_tower(
            batch["history"][row : row + 1, part],
            query_features=tuple(each[row : row + 1, slot] for each in batch[QUERY]),
            event_features=tuple(each[row : row + 1, part] for each in batch[EVENT]),
            training=False,
            **asked,
        ).numpy()[0]
        np.testing.assert_allclose(queries[row, slot], wanted, rtol=1e-3, atol=1e-4)
    assert starts
