"""Biases of the logits against loops, buckets as literal numbers, rotation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tfrs_selfattn.ops.biases import (
    DistanceBias,
    LinearBias,
    TimeBias,
    distance_buckets,
    time_buckets,
)
from tfrs_selfattn.ops.rotary import rotate

B, H, T, S = 2, 4, 5, 7
random = np.random.default_rng(0)


def whole(bias, rows=T, columns=S):
    return bias.block(bias.parameters, tf.range(rows), tf.range(columns)).numpy()


def assert_equals_loop(found, loop):
    assert found.dtype == np.float32
    shape = (len(found), H, T, S)
    assert found.shape == shape
    expected = [loop(*place) for place in np.ndindex(*shape)]
    np.testing.assert_allclose(found, np.reshape(expected, shape), rtol=1e-6, atol=1e-6)


def test_buckets_of_distances():
    # Four distances have a bucket each; 4 to 15 share the other four, in logarithms.
    found = distance_buckets(
        tf.constant([-3, 0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 16, 99]),
        num_buckets=8,
        max_distance=16,
        bidirectional=False,
    )
    np.testing.assert_array_equal(found, [0, 0, 1, 2, 3, 4, 4, 5, 6, 6, 7, 7, 7])


def test_buckets_of_distances_both_ways():
    found = distance_buckets(
        tf.constant([-99, -2, -1, 0, 1, 2, 99]),
        num_buckets=8,
        max_distance=16,
        bidirectional=True,
    )
    np.testing.assert_array_equal(found, [7, 6, 5, 0, 1, 2, 3])


def test_buckets_of_times():
    seconds = [0, 1, -1, 2, 60, 3600, 86_400, 604_800, 31_536_000, 10**12]
    found = time_buckets(tf.constant(seconds, tf.int64), num_buckets=64)
    expected = [min(int(math.log(max(abs(s), 1)) / 0.301), 63) for s in seconds]
    np.testing.assert_array_equal(found, expected)
    assert found[-1] == 63


@pytest.mark.parametrize(
    ("buckets", "longest", "bidirectional"),
    [(6, 9, False), (6, 9, True), (4, 128, False), (4, 128, True), (3, 2, False)],
)
def test_distance_bias(buckets, longest, bidirectional):
    table = random.normal(size=[buckets, H]).astype("float32")
    bias = DistanceBias(tf.constant(table), longest, bidirectional)
    assert_equals_loop(
        whole(bias), oracles.distance_bias(table, longest, bidirectional)
    )


def test_alibi():
    assert_equals_loop(whole(LinearBias(H)), oracles.alibi(H))
    # The paper's slopes for eight heads are 1/2, 1/4, … 1/256.
    np.testing.assert_allclose(
        whole(LinearBias(8))[0, :, 1, 0], [-(2.0 ** -(h + 1)) for h in range(8)]
    )


def test_time_bias():
    table = random.normal(size=[40, H]).astype("float32")
    happened = np.cumsum(10 ** random.integers(0, 8, [B, S]), axis=1)
    asked = happened[:, :T] + random.integers(0, 10**6, [B, T])
    bias = TimeBias(tf.constant(table), tf.constant(happened), tf.constant(asked))
    assert_equals_loop(whole(bias), oracles.time_bias(table, happened, asked))


def test_any_block_is_that_part_of_the_whole():
    times = tf.constant(np.cumsum(random.integers(1, 9999, [B, S]), axis=1))
    table = tf.constant(random.normal(size=[9, H]).astype("float32"))
    for bias in (
        DistanceBias(table, 20),
        LinearBias(H),
        TimeBias(table, times, times + 5),
    ):
        everything = whole(bias, S, S)
        part = bias.block(bias.parameters, tf.range(2, 6), tf.range(3, 5))
        np.testing.assert_array_equal(part, everything[:, :, 2:6, 3:5])
        past = bias.block(bias.parameters, tf.range(6, 8), tf.range(6, 9))
        assert past.shape == (len(everything), H, 2, 3)
        np.testing.assert_array_equal(past[:, :, :1, :1], everything[:, :, 6:, 6:])


@pytest.mark.parametrize("width", [2, 6])
@pytest.mark.parametrize("start", [0, 3])
def test_rotation(width, start):
    heads = random.normal(size=[B, H, T, width]).astype("float32")
    found = rotate(tf.constant(heads), start).numpy()
    for b, h, t in np.ndindex(B, H, T):
        expected = oracles.rotate(heads[b, h, t].astype("float64"), start + t)
        np.testing.assert_allclose(found[b, h, t], expected, rtol=1e-4, atol=1e-5)


def test_rotated_products_depend_on_the_distance_only():
    query = tf.tile(draw_one(), [1, 1, 9, 1])
    key = tf.tile(draw_one(), [1, 1, 9, 1])
    products = tf.matmul(rotate(query), rotate(key), transpose_b=True)[0, 0].numpy()
    for distance in range(-8, 9):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-4)
    # Forward and backward are not the same.
    assert abs(products[0, 3] - products[3, 0]) > 1e-2
    later = tf.matmul(rotate(query, 50), rotate(key, 50), transpose_b=True)
    np.testing.assert_allclose(later[0, 0], products, rtol=1e-3, atol=1e-3)


def draw_one():
    return tf.constant(random.normal(size=[1, 1, 1, 6]), tf.float32)
