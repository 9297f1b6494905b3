"""The blockwise softmax loss against the plain one, values and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tfrs_selfattn.ops import full_softmax_loss
from tfrs_selfattn.ops import softmax_loss as module

M, N, D = 11, 13, 5  # queries, candidates, width
random = np.random.default_rng(0)
QUERIES = random.normal(size=[M, D]).astype("float32")
CANDIDATES = random.normal(size=[N, D]).astype("float32")
TARGETS = random.integers(0, N, M).astype("int32")
WEIGHTS = random.random(M).astype("float32")


def value_and_gradients(loss, *tensors):
    tensors = [tf.constant(tensor) for tensor in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss(*tensors)
    return value, *(tf.convert_to_tensor(g) for g in tape.gradient(value, tensors))


def plain(queries, candidates, weights=None, temperature=1.0):
    logits = tf.matmul(queries, candidates, transpose_b=True) / temperature
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(TARGETS, logits)
    return tf.reduce_sum(losses if weights is None else losses * weights)


def blocked(queries, candidates, weights=None, targets=TARGETS, **options):
    return full_softmax_loss(queries, candidates, targets, weights, **options)


@pytest.mark.parametrize("temperature", [1.0, 0.05, 3.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_equals_the_oracle(weights, temperature):
    expected = oracles.full_softmax(
        QUERIES.astype("float64"), CANDIDATES, TARGETS, weights, temperature
    )
    found = blocked(QUERIES, CANDIDATES, weights, temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("block_rows", [1, 2, 3, 4, 7, M - 1, M, M + 1, 1000, None])
def test_any_block_gives_the_value_and_gradients_of_the_plain_form(block_rows):
    expected = value_and_gradients(
        lambda q, c: plain(q, c, WEIGHTS, 0.5), QUERIES, CANDIDATES
    )
    found = value_and_gradients(
        lambda q, c: blocked(q, c, WEIGHTS, temperature=0.5, block_rows=block_rows),
        QUERIES,
        CANDIDATES,
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_equal_finite_differences():
    _, *gradients = value_and_gradients(
        lambda q, c: blocked(q, c, WEIGHTS, temperature=0.7), QUERIES, CANDIDATES
    )
    step = 1e-6
    for which, gradient in enumerate(gradients):
        for index in [(0, 0), (3, 2), (7, 4), (10, 1)]:
            values = []
            for sign in (1, -1):
                moved = [QUERIES.astype("float64"), CANDIDATES.astype("float64")]
                moved[which][index] += sign * step
                values.append(oracles.full_softmax(*moved, TARGETS, WEIGHTS, 0.7))
            slope = (values[0] - values[1]) / (2 * step)
            np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-5)


def test_weight_zero_is_absence():
    weights = np.where(np.arange(M) % 3 == 0, 0.0, WEIGHTS).astype("float32")
    kept = weights > 0
    with_zeros = value_and_gradients(
        lambda q, c: blocked(q, c, weights), QUERIES, CANDIDATES
    )
    without = value_and_gradients(
        lambda q, c: full_softmax_loss(q, c, TARGETS[kept], weights[kept]),
        QUERIES[kept],
        CANDIDATES,
    )
    np.testing.assert_allclose(with_zeros[0], without[0], rtol=1e-5)
    np.testing.assert_allclose(with_zeros[1][kept], without[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(with_zeros[1][~kept], 0.0)
    np.testing.assert_allclose(with_zeros[2], without[2], rtol=1e-5, atol=1e-6)


def test_gradient_scales_with_what_comes_from_above():
    _, once, _ = value_and_gradients(blocked, QUERIES, CANDIDATES)
    _, thrice, _ = value_and_gradients(
        lambda q, c: 3.0 * blocked(q, c), QUERIES, CANDIDATES
    )
    np.testing.assert_allclose(thrice, 3.0 * once, rtol=1e-6)


def test_no_gradient_flows_to_the_weights():
    weights = tf.constant(WEIGHTS)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = blocked(tf.constant(QUERIES), tf.constant(CANDIDATES), weights)
    assert tape.gradient(loss, weights) is None


def test_large_logits_do_not_overflow():
    queries = tf.constant([[300.0], [-300.0]])
    candidates = tf.constant([[300.0], [0.0], [-300.0]])
    value, *gradients = value_and_gradients(
        lambda q, c: full_softmax_loss(q, c, tf.constant([0, 0])), queries, candidates
    )
    # The first is certain and right; the second is certain of the last, and wrong.
    np.testing.assert_allclose(value, 0.0 + 2 * 300.0 * 300.0, rtol=1e-6)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_a_share_that_underflows_keeps_its_loss():
    # exp(-200) is 0 in float32; in one block with targets that are nothing special.
    candidates = np.array([[200.0], [0.0], [150.0], [199.0]], "float32")
    targets = tf.constant([1, 0, 2, 3])
    expected = [
        oracles.full_softmax([[1.0]], candidates.astype("float64"), [int(target)])
        for target in targets
    ]
    assert expected[0] > 200.0
    for block_rows in (1, 4):  # alone, and together
        found = full_softmax_loss(
            tf.ones([4, 1]), tf.constant(candidates), targets, block_rows=block_rows
        )
        np.testing.assert_allclose(found, sum(expected), rtol=1e-6)


def test_equal_logits_cost_the_log_of_their_number():
    loss = full_softmax_loss(tf.zeros([2, 3]), tf.zeros([7, 3]), tf.constant([1, 6]))
    np.testing.assert_allclose(loss, 2 * math.log(7), rtol=1e-6)


def test_no_queries():
    value, query_gradient, candidate_gradient = value_and_gradients(
        lambda q, c: full_softmax_loss(q, c, tf.zeros([0], tf.int32)),
        np.zeros([0, D], "float32"),
        CANDIDATES,
    )
    assert float(value) == 0.0
    assert query_gradient.shape == (0, D)
    np.testing.assert_array_equal(candidate_gradient, np.zeros([N, D]))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_targets_of_either_integer(dtype):
    found = blocked(QUERIES, CANDIDATES, targets=tf.cast(TARGETS, dtype))
    np.testing.assert_allclose(found, plain(QUERIES, CANDIDATES), rtol=1e-5)


def test_graph_with_an_unknown_number_of_queries():
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, D], tf.float32),
            tf.TensorSpec([N, D], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def graph(queries, candidates, targets):
        with tf.GradientTape() as tape:
            tape.watch([queries, candidates])
            value = full_softmax_loss(queries, candidates, targets, block_rows=4)
        return value, *tape.gradient(value, [queries, candidates])

    expected = value_and_gradients(plain, QUERIES, CANDIDATES)
    for ours, theirs in zip(graph(QUERIES, CANDIDATES, TARGETS), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_variables_get_their_gradients(graph):
    queries, candidates = tf.Variable(QUERIES), tf.Variable(CANDIDATES)

    def gradients():
        with tf.GradientTape() as tape:
            value = blocked(queries, candidates)
        return tape.gradient(value, [queries, candidates])

    found = (tf.function(gradients) if graph else gradients)()
    _, *expected = value_and_gradients(plain, QUERIES, CANDIDATES)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def sizes_of_blocks(monkeypatch) -> list[int]:
    """Queries of each block of nine times the queries; the loss is checked too."""
    monkeypatch.setattr(module, "_LEAST_ROWS", 2)
    queries = tf.constant(np.tile(QUERIES, [9, 1]))
    targets = tf.constant(np.tile(TARGETS, 9))
    sizes = []
    original = tf.nn.softmax
    monkeypatch.setattr(
        tf.nn, "softmax", lambda x: sizes.append(x.shape[0]) or original(x)
    )
    found = full_softmax_loss(queries, tf.constant(CANDIDATES), targets)
    np.testing.assert_allclose(found, 9 * plain(QUERIES, CANDIDATES), rtol=1e-5)
    assert sum(sizes) == 9 * M
    return sizes


def test_no_scores_of_all_queries_exist_at_once(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 128)
    assert max(sizes_of_blocks(monkeypatch)) <= 128 // N


def test_a_gpu_has_blocks_of_its_own(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 128)
    monkeypatch.setattr(module, "GPU_BLOCK_ELEMENTS", 1 << 20)
    # In a graph a tensor has the device that was asked for, or none.
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert on_device(None) == on_device("/GPU:1") == 1 << 20
    assert on_device("/CPU:0") == 128
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert on_device(None) == 128
    monkeypatch.setattr(module, "_block_elements", lambda queries: 1 << 20)
    assert sizes_of_blocks(monkeypatch) == [9 * M]


def on_device(name):
    found = []

    @tf.function
    def graph():
        with tf.device(name):
            found.append(module._block_elements(tf.zeros([3]) * 2.0))

    graph()
    return found[0]


@pytest.mark.parametrize(
    ("candidates", "rows"),
    [
        (1, 1 << 21),
        (3_416, 613),
        (500_000, 128),
        (10_000_000, 13),
        (500_000_000, 1),
    ],
)
def test_a_block_of_a_large_catalogue_has_few_queries(candidates, rows):
    assert int(module._rows_of_block(tf.constant(candidates), 1 << 21)) == rows
