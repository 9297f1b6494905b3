"""Integrated gradients: known integrals, and completeness."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.explain import integrated_gradients

draw = np.random.default_rng(1)
VECTORS = tf.constant(draw.normal(size=[3, 5, 2]), tf.float32)


def test_a_linear_score_is_shared_out_by_its_slope():
    slope = tf.constant(draw.normal(size=[3, 5, 2]), tf.float32)
    baseline = tf.constant([0.5, -1.0])
    shares, difference = integrated_gradients(
        lambda vectors: tf.reduce_sum(slope * vectors, [1, 2]), VECTORS, baseline
    )
    wanted = tf.reduce_sum(slope * (VECTORS - baseline), -1)
    np.testing.assert_allclose(shares, wanted, rtol=1e-5)
    np.testing.assert_allclose(difference, tf.reduce_sum(wanted, 1), rtol=1e-5)


def test_a_product_is_shared_out_equally():
    # x * y from 0: the integral of y a and of x a over a is half of the product each.
    def score(vectors):
        return vectors[:, 0, 0] * vectors[:, 1, 1]

    shares, _ = integrated_gradients(score, VECTORS, 0.0, steps=2)
    half = VECTORS[:, 0, 0] * VECTORS[:, 1, 1] / 2
    np.testing.assert_allclose(shares[:, 0], half, rtol=1e-5)
    np.testing.assert_allclose(shares[:, 1], half, rtol=1e-5)
    assert not shares.numpy()[:, 2:].any()


@pytest.mark.parametrize(("steps", "error"), [(4, 1e-2), (8, 1e-5)])
def test_the_shares_sum_to_the_difference(steps, error):
    def score(vectors):
        return tf.reduce_sum(tf.sin(vectors), [1, 2]) ** 2

    shares, difference = integrated_gradients(score, VECTORS, 0.3, steps=steps)
    gap = np.abs(tf.reduce_sum(shares, 1) - difference) / np.abs(difference)
    assert gap.max() < error


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match=r"`steps` must be a positive integer\. Rec"):
        integrated_gradients(lambda x: x[:, 0, 0], VECTORS, 0.0, steps=0)
