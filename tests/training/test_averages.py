"""Averages of the weights are what is validated and kept; training goes on without."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn import training
from tfrs_selfattn.evaluation import evaluate_ranking


class Follow(tf.keras.callbacks.Callback):
    """Averages the weights by itself, and keeps those that training ended with."""

    def __init__(self, momentum):
        super().__init__()
        self.momentum = momentum

    def on_train_begin(self, logs=None):
        self.average = [weight.numpy() for weight in self.model.trainable_variables]

    def on_train_batch_end(self, batch, logs=None):
        self.own = [weight.numpy() for weight in self.model.trainable_variables]
        self.average = [
            self.momentum * mean + (1 - self.momentum) * weight
            for mean, weight in zip(self.average, self.own, strict=True)
        ]


def test_the_averages_are_validated_and_kept(make_run, split, tmp_path):
    folder = make_run(tmp_path / "run", epochs=2, ema=0.9)
    follow = Follow(0.9)
    result = training.train(folder, split, callbacks=[follow], verbose=0)
    assert result.best_epoch == 2  # so that what follows is about the last one
    for kept in (result.model, training.load_model(folder)):
        for weight, mean in zip(kept.trainable_variables, follow.average, strict=True):
            np.testing.assert_allclose(weight, mean, rtol=1e-4, atol=1e-6)
    found = evaluate_ranking(result.model.scorer(), split.validation)
    assert found.metrics["ndcg@10"] == pytest.approx(result.validation["ndcg@10"])
    # What a resumed run goes on from are the weights themselves.
    reader = tf.train.load_checkpoint(str(folder.checkpoints / "last"))
    item = "model/query_tower/item_embedding/embeddings/.ATTRIBUTES/VARIABLE_VALUE"
    table = next(own for own in follow.own if own.shape == (21, 8))
    np.testing.assert_array_equal(reader.get_tensor(item), table)
    assert np.abs(table - follow.average[0]).max() > 1e-4


def test_a_killed_run_goes_on_with_its_averages(
    make_run, split, tmp_path, assert_same_run
):
    class Kill(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    options = {"epochs": 2, "ema": 0.9}
    whole, cut = (make_run(tmp_path / name, **options) for name in ("whole", "cut"))
    training.train(whole, split, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        training.train(cut, split, callbacks=[Kill()], verbose=0)
    assert training.train(cut, split, verbose=0).resumed_from == 1
    assert_same_run(cut, whole)
