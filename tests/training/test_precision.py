"""Half precision trains what float32 trains, and leaves a float32 model."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn import training
from tfrs_selfattn._keras import keras
from tfrs_selfattn.losses import FullSoftmax
from tfrs_selfattn.models import presets
from tfrs_selfattn.training.precision import precision_of_layers

ROWS = {
    "history": tf.constant([[1, 2, 3, 4], [5, 6, 0, 0]]),
    "targets": tf.constant([[2, 3, 4, 5], [6, 7, 0, 0]]),
    "segment_ids": tf.constant([[1, 1, 2, 2], [1, 1, 0, 0]]),
}
SMALL_LOSS = 2.0**-30  # whose gradients are 0 in float16


def changes(precision, optimizer):
    """How one step changes the weights of the same model."""
    loss = FullSoftmax()
    with precision_of_layers(precision):
        model = presets.sasrec(
            9,
            embedding_dim=8,
            num_blocks=1,
            max_length=4,
            dropout=0.0,
            loss=lambda *arguments: SMALL_LOSS * loss(*arguments),
        )
        model(ROWS["history"])
        model.compile(optimizer)
    values = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(values.normal(0.0, 0.5, weight.shape))
    before = model.get_weights()
    model.train_step(ROWS)
    return [new - old for new, old in zip(model.get_weights(), before, strict=True)]


def sgd(scale=None):
    optimizer = keras.optimizers.SGD(1.0 / SMALL_LOSS)
    if scale is None:
        return optimizer
    return keras.mixed_precision.LossScaleOptimizer(
        optimizer, dynamic=False, initial_scale=scale
    )


def test_small_gradients_survive_float16():
    expected = changes("float32", sgd())
    found = changes("mixed_float16", sgd(1.0 / SMALL_LOSS))
    largest = max(np.abs(change).max() for change in expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.01 * largest)
    # And would not without: what some of the weights learn is gone.
    lost = changes("mixed_float16", sgd(1.0))
    assert any(
        not ours.any() and np.abs(theirs).max() > 0.01 * largest
        for ours, theirs in zip(lost, expected, strict=True)
    )


def test_compile_scales_by_itself_where_it_must():
    with precision_of_layers("mixed_float16"):
        model = presets.sasrec(9, embedding_dim=8, num_blocks=1, max_length=4)
        model.compile(keras.optimizers.Adam())
    assert hasattr(model.optimizer, "get_scaled_loss")
    assert keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_run_in_half_precision_goes_on_and_ends_in_float32(
    make_run, split, tmp_path, assert_same_run, precision
):
    class Kill(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            assert self.model.query_tower.compute_dtype == precision[len("mixed_") :]
            if epoch == 1:
                raise KeyboardInterrupt

    options = {"epochs": 2, "precision": precision}
    whole, cut = (make_run(tmp_path / name, **options) for name in ("whole", "cut"))
    result = training.train(whole, split, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        training.train(cut, split, callbacks=[Kill()], verbose=0)
    assert training.train(cut, split, verbose=0).resumed_from == 1
    assert_same_run(cut, whole)
    for model in (result.model, training.load_model(whole)):
        policies = {
            layer.dtype_policy.name
            for layer in model.submodules
            if (isinstance(layer, keras.layers.Layer))
        }
        assert policies == {"float32"}
    first, last = (epoch["loss"] for epoch in whole.metrics()["epochs"])
    assert last < first
