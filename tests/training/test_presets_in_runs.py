"""Every preset trains, resumes and comes back from its run folder; times included."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn import InputError, data, training
from tfrs_selfattn.evaluation import evaluate_ranking
from tfrs_selfattn.training import ModelConfig, TrainingConfig, trainer
from tfrs_selfattn.training.config import PRESETS
from tfrs_selfattn.training.recipes import RECIPES, recipe

SMALL = {"embedding_dim": 8, "num_blocks": 1, "max_length": 8}


class KillInSecondEpoch(tf.keras.callbacks.Callback):
    """Stops a run where nothing is there to be caught."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture
def run(split, tmp_path):
    """A function that creates, or opens, the folder of a run of a preset."""

    def run(model, name="run", **options):
        options = {"epochs": 2, "batch_size": 16, "seed": 3, **options}
        config = training.RunConfig.for_sequences(
            split.sequences,
            training.DataConfig("/data/events.csv"),
            ModelConfig(**{**SMALL, **model}),
            TrainingConfig(**options),
        )
        vocabulary = split.sequences.vocabulary
        return training.RunFolder.create(tmp_path / name, config, vocabulary, {})

    return run


def test_what_is_hidden_goes_on_after_a_kill(run, split, assert_same_run):
    model = {"preset": "bert4rec", "normalize": True}
    whole, cut = run(model, "whole"), run(model, "cut")
    training.train(whole, split, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        training.train(cut, split, callbacks=[KillInSecondEpoch()], verbose=0)
    assert training.train(cut, split, verbose=0).resumed_from == 1
    assert_same_run(cut, whole)


def test_a_time_aware_run_trains_validates_and_comes_back(run, split, monkeypatch):
    asked = {}

    def pack(*arguments, **options):
        asked.update(options)
        return data.pack_rows(*arguments, **options)

    monkeypatch.setattr(trainer, "pack_rows", pack)
    folder = run({"preset": "hstu"}, epochs=1, windows="sliding", stride=3)
    result = training.train(folder, split, verbose=0)
    loaded = training.load_model(training.RunFolder.open(folder.path))
    assert loaded.time_aware
    sliding = {"windows": "sliding", "stride": 3, "times": True}
    assert asked == {"row_length": 8, "seed": 3, "starts": False, **sliding}
    found = evaluate_ranking(loaded.scorer(), split.validation)
    assert found.metrics["ndcg@10"] == pytest.approx(result.validation["ndcg@10"])


def test_a_configuration_says_what_its_preset_chose():
    assert (ModelConfig().num_heads, ModelConfig().time_aware) == (1, False)
    hstu = ModelConfig(preset="hstu")
    assert (hstu.num_heads, hstu.time_aware) == (2, True)
    assert not ModelConfig(preset="hstu", time_aware=False).time_aware
    esasrec = ModelConfig(preset="esasrec", num_heads=2)
    assert (esasrec.embedding_dim, esasrec.num_heads, esasrec.dropout) == (128, 2, 0.1)
    assert (hstu.loss, ModelConfig(preset="gsasrec").loss) == ("full-softmax", "gbce")
    assert ModelConfig(preset="gsasrec", loss="bce").loss == "bce"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("time_aware", [None, False])
def test_every_configuration_builds_its_model(preset, time_aware, run):
    folder = run({"preset": preset, "time_aware": time_aware, "temperature": 0.3})
    model = training.build_model(training.RunFolder.open(folder.path).config)
    assert model.time_aware is (preset == "hstu" and time_aware is None)


def test_a_config_of_before_the_other_presets_is_read(run):
    folder = run({"preset": "sasrec"})
    path = folder.path / "config.json"
    content = json.loads(path.read_text())
    for name in ("time_aware", "normalize", "temperature", "loss", "num_negatives"):
        del content["model"][name]
    for name in ("windows", "stride"):
        del content["training"][name]
    path.write_text(json.dumps(content))
    assert training.RunConfig.read(path) == folder.config


@pytest.mark.parametrize("preset", ["esasrec", "bert4rec"])
def test_a_run_learns_by_a_sampled_loss(preset, run, split):
    loss = {"loss": "sampled-softmax", "num_negatives": 4, "shared_by": "query"}
    folder = run({"preset": preset, **loss}, epochs=8)
    result = training.train(folder, split, verbose=0)
    first, *_, last = (epoch["loss"] for epoch in folder.metrics()["epochs"])
    assert last < first < 1.2 * np.log(folder.config.num_items)
    assert result.validation["ndcg@10"] > 0


def test_a_recipe_is_the_defaults_but_for_what_it_says():
    assert recipe(None) == (ModelConfig(), TrainingConfig())
    for name, values in RECIPES.items():
        model, trained = recipe(name, {"dropout": 0.25, "seed": 9})
        assert (model.dropout, trained.seed) == (0.25, 9)
        known = dataclasses.asdict(model) | dataclasses.asdict(trained)
        assert known.items() >= (values | {"dropout": 0.25}).items()
    # The preset is the model of the recipe that measured best.
    assert recipe("ml-1m")[0] == ModelConfig(preset="esasrec")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ml-2m", {}, "`recipe` must be one of 'ml-1m', .*'ml-2m'"),
        ("ml-1m", {"width": 3}, "`changes` must be fields of ModelConfig.*: width"),
    ],
)
def test_recipes_that_cannot_be(name, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(name, changes)


def test_negatives_are_drawn_by_the_training_events(run, split):
    counts = []

    class Look(tf.keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            counts.extend(self.model.next_item_loss.negatives[0].counts)
            raise KeyboardInterrupt

    loss = {"loss": "sampled-softmax", "negatives": "mixed", "num_negatives": 4}
    folder = run({"preset": "sasrec", **loss})
    with pytest.raises(KeyboardInterrupt):
        training.train(folder, split, callbacks=[Look()], verbose=0)
    assert counts == split.train_counts()[1:].tolist()
    assert counts != split.sequences.vocabulary.counts.tolist()  # of the whole log
    # Who only uses the model has no need of them.
    config = training.RunFolder.open(folder.path).config
    kinds = training.build_model(config).next_item_loss.negatives
    assert [type(each).__name__ for each in kinds] == [
        "InBatchNegatives",
        "UniformNegatives",
    ]


def test_other_options_are_another_run(run):
    run({"preset": "hstu"})
    with pytest.raises(InputError, match=r"time_aware=True \(now False\)"):
        run({"preset": "hstu", "time_aware": False})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "bert4rec", "time_aware": True}, r"`time_aware` must be False for"),
        ({"temperature": 0.0}, "`temperature` must be a positive finite number"),
        ({"preset": "hstu", "embedding_dim": 7}, "must divide.*num_heads=2"),
        ({"num_negatives": 9}, "`num_negatives` belongs to the losses sampled"),
    ],
)
def test_models_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": "some"}, "`windows` must be one of 'all', 'newest', 'sliding'"),
        ({"windows": "sliding", "stride": 0}, "`stride` must be a positive integer"),
        ({"stride": 2}, r"`stride` belongs to windows='sliding'.*windows='all'"),
    ],
)
def test_windows_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


def test_a_stride_beyond_the_row(run):
    with pytest.raises(InputError, match=r"must not exceed `max_length`.*stride=9"):
        run({}, windows="sliding", stride=9)


def test_every_field_is_documented():
    for field in dataclasses.fields(ModelConfig):
        assert f"{field.name}: " in ModelConfig.__doc__
