"""Encoded features to vectors of the model's width."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.features.feature_set import FeatureSet

_STDDEV = 0.02  # of all vectors at the start, those of item ids too


@register
class FeatureProjection(keras.layers.Layer):  # type: ignore[misc]
    r"""The sum of the vectors of a thing's features, $\sum_l w_l e_{t_l} + W^\top x$.

    $t$ and $w$ are tokens and their weights, $e$ the rows of a table of vectors, $x$
    the numbers and given vectors.

    Args:
        features: `FeatureSet`, fitted, or its configuration.
        output_dim: int. D.
        **kwargs: passed to `keras.layers.Layer` (`name`, …).

    Call arguments:
        encoded: `Encoded` of leading dimensions `[…]`; see
            `tfrs_selfattn.features.FeatureEncoder`.

    Returns:
        float `[…, D]` in the layer's compute dtype. Nothing known gives zeros.

    Serving: stock TF ops only.
    """

    def __init__(self, features: Any, output_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(features, FeatureSet):
            features = FeatureSet.from_config(features)
        self.features = features
        self.output_dim = check_positive_int("output_dim", output_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": self.features.to_config(),
            "output_dim": self.output_dim,
        }

    def build(self, input_shape: Any) -> None:
        initializer = keras.initializers.RandomNormal(stddev=_STDDEV)
        # One row at least: a weight without elements cannot be in a checkpoint.
        self.table = self.add_weight(
            name="feature_table",
            shape=(max(self.features.num_tokens, 1), self.output_dim),
            initializer=initializer,
        )
        self.kernel = self.add_weight(
            name="feature_kernel",
            shape=(max(self.features.num_dense, 1), self.output_dim),
            initializer=keras.initializers.RandomNormal(stddev=_STDDEV),
        )
        super().build(input_shape)

    def call(self, encoded: Any) -> tf.Tensor:
        tokens, weights, dense = encoded
        table = tf.cast(tf.convert_to_tensor(self.table), self.compute_dtype)
        vectors = tf.gather(table, tokens)  # […, L, D]
        weights = tf.cast(weights, self.compute_dtype)[..., tf.newaxis]
        return tf.reduce_sum(vectors * weights, axis=-2) + self.project(dense)

    def project(self, dense: tf.Tensor) -> tf.Tensor:
        """The part of numbers and given vectors, `[…, F]` to `[…, D]`."""
        dense = tf.cast(dense, self.compute_dtype)
        kernel = tf.cast(self.kernel, self.compute_dtype)
        return tf.tensordot(dense, kernel[: self.features.num_dense], axes=1)
