"""Losses against sampled negatives: loops as oracles, and the chains that must hold."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.losses import sampling
from tests.losses.sampling import (
    CANDIDATES,
    CONTEXT,
    NOTHING,
    OWNED,
    QUERIES,
    TARGETS,
    WEIGHTS,
    D,
    FixedNegatives,
    M,
    N,
    value_and_gradients,
)
from tfrs_selfattn._keras import keras
from tfrs_selfattn.losses import (
    GBCE,
    BinaryCrossEntropy,
    CandidateLookup,
    FullSoftmax,
    InBatchNegatives,
    PopularityNegatives,
    SampledSoftmax,
    UniformNegatives,
)
from tfrs_selfattn.ops import sampled_losses as operations

COUNTS = [int(count) for count in np.random.default_rng(1).integers(1, 40, N)]
LOSSES = {
    "softmax": lambda **options: SampledSoftmax(UniformNegatives(5), **options),
    "popularity": lambda **options: SampledSoftmax(
        PopularityNegatives(COUNTS, 5), **options
    ),
    "binary": lambda **options: BinaryCrossEntropy(UniformNegatives(5), **options),
    "gbce": lambda **options: GBCE(5, 0.6, **options),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
every_sharing = pytest.mark.parametrize("shared_by", ["batch", "row", "query"])


def called(loss, weights=None, **options):
    options = {"context": CONTEXT, **options}
    return lambda q, c: loss(q, c, TARGETS, weights, **options)


@pytest.mark.parametrize("own", [True, False], ids=["own", "hits"])
@every_sharing
def test_softmax_equals_the_oracle_and_its_slopes(shared_by, own):
    loss = SampledSoftmax(
        FixedNegatives(sampling.LINES[shared_by]),
        shared_by=shared_by,
        temperature=0.7,
        mask_own_items=own,
    )

    def oracle(queries, candidates):
        return oracles.sampled_softmax(
            queries,
            candidates,
            TARGETS,
            sampling.draws(shared_by),
            sampling.LOG_EXPECTED,
            OWNED if own else NOTHING,
            WEIGHTS,
            0.7,
        )

    value, *gradients = value_and_gradients(called(loss, WEIGHTS), QUERIES, CANDIDATES)
    np.testing.assert_allclose(value, oracle(QUERIES, CANDIDATES), rtol=1e-5)
    expected = sampling.slopes(oracle, QUERIES, CANDIDATES)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("own", [True, False], ids=["own", "hits"])
@every_sharing
def test_binary_cross_entropy_equals_the_oracle_and_its_slopes(shared_by, own):
    loss = BinaryCrossEntropy(
        FixedNegatives(sampling.LINES[shared_by]),
        shared_by=shared_by,
        temperature=0.7,
        mask_own_items=own,
    )

    def oracle(queries, candidates):
        left_out = OWNED if own else NOTHING
        lines = sampling.draws(shared_by)
        return oracles.sampled_sigmoid(
            queries, candidates, TARGETS, lines, left_out, WEIGHTS, 0.7, 1.0
        )

    value, *gradients = value_and_gradients(called(loss, WEIGHTS), QUERIES, CANDIDATES)
    np.testing.assert_allclose(value, oracle(QUERIES, CANDIDATES), rtol=1e-5)
    expected = sampling.slopes(oracle, QUERIES, CANDIDATES)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("calibration", [0.0, 0.3, 0.75, 1.0])
def test_gbce_equals_the_oracle(calibration):
    loss = GBCE(N, calibration, shared_by="batch", mask_own_items=False)
    rate = N / (N - 1)
    rate = min(rate, 1.0)
    exponent = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    expected = oracles.sampled_sigmoid(
        QUERIES, CANDIDATES, TARGETS, [range(N)] * M, NOTHING, [1] * M, 1.0, exponent
    )
    np.testing.assert_allclose(loss(QUERIES, CANDIDATES, TARGETS), expected, rtol=1e-5)


def test_the_exponent_of_gbce_is_the_papers():
    # Equation 23 at k = 256 of 3,416 items: alpha = 256 / 3415.
    rate = 256 / 3415
    for t in (0.0, 0.25, 0.75):
        expected = rate * (t * (1 - 1 / rate) + 1 / rate)
        assert GBCE(256, t).exponent(3416) == pytest.approx(expected)
        assert expected == pytest.approx(1 - t * (1 - rate))  # the same, multiplied out
    assert GBCE(256, 0.0).exponent(3416) == pytest.approx(1.0)
    assert GBCE(256, 1.0).exponent(3416) == pytest.approx(rate)


@every_sharing
def test_all_items_as_negatives_are_the_full_softmax(shared_by):
    loss = SampledSoftmax(
        UniformNegatives(N + 5),
        shared_by=shared_by,
        temperature=0.5,
        mask_own_items=False,
    )
    found = value_and_gradients(called(loss, WEIGHTS), QUERIES, CANDIDATES)
    expected = value_and_gradients(
        lambda q, c: FullSoftmax(0.5)(q, c, TARGETS, WEIGHTS), QUERIES, CANDIDATES
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every_sharing
def test_gbce_without_calibration_is_binary_cross_entropy(shared_by):
    options = {"shared_by": shared_by, "seed": 4}
    plain = BinaryCrossEntropy(UniformNegatives(5), **options)
    found = value_and_gradients(called(GBCE(5, 0.0, **options)), QUERIES, CANDIDATES)
    expected = value_and_gradients(called(plain), QUERIES, CANDIDATES)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def mean_gradient(loss, draws):
    """The mean over many draws, and its standard error, of the candidates' gradient."""

    @tf.function(autograph=False)
    def gradient():
        candidates = tf.constant(CANDIDATES)
        with tf.GradientTape() as tape:
            tape.watch(candidates)
            value = loss(tf.constant(QUERIES), candidates, TARGETS)
        return tf.convert_to_tensor(tape.gradient(value, candidates))

    found = np.stack([gradient() for _ in range(draws)])
    return found.mean(axis=0), found.std(axis=0) / np.sqrt(draws)


SAMPLERS = {
    "popularity": lambda: PopularityNegatives(COUNTS, 400, exponent=1.0),
    "mixed": lambda: [
        PopularityNegatives(COUNTS, 300, exponent=0.5),
        UniformNegatives(8),
    ],
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_the_correction_the_expected_gradient_is_the_full_one(name):
    # The sum over negatives is unbiased, its logarithm only in the limit of many.
    _, _, full = value_and_gradients(
        lambda q, c: FullSoftmax()(q, c, TARGETS), QUERIES, CANDIDATES
    )
    size = np.abs(full).max()
    options = {"mask_own_items": False, "seed": 0}
    mean, error = mean_gradient(SampledSoftmax(SAMPLERS[name](), **options), 300)
    assert np.abs(mean - full).max() < 0.01 * size + 4 * error.max()
    assert error.max() < 0.01 * size
    wrong, _ = mean_gradient(
        SampledSoftmax(SAMPLERS[name](), correct_sampling=False, **options), 300
    )
    assert np.abs(wrong - full).max() > 0.05 * size


def test_in_batch_targets_are_corrected_by_their_counts():
    # A large batch whose targets follow the counts; the full softmax is the limit.
    random = np.random.default_rng(7)
    share = np.array(COUNTS) / np.sum(COUNTS)
    targets = random.choice(N, 6000, p=share).astype("int32")
    queries = random.normal(size=[6000, D]).astype("float32")
    full = FullSoftmax()(queries, CANDIDATES, targets)
    options = {"mask_own_items": False, "seed": 0}
    negatives = InBatchNegatives(COUNTS)
    found = SampledSoftmax(negatives, **options)(queries, CANDIDATES, targets)
    np.testing.assert_allclose(found, full, rtol=0.01)
    fewer = SampledSoftmax(InBatchNegatives(COUNTS, 3000), **options)
    np.testing.assert_allclose(fewer(queries, CANDIDATES, targets), full, rtol=0.02)
    plain = SampledSoftmax(negatives, correct_sampling=False, **options)
    assert float(plain(queries, CANDIDATES, targets)) > 2 * float(full)


def test_in_batch_equals_the_oracle():
    expected = oracles.sampled_softmax(
        QUERIES,
        CANDIDATES,
        TARGETS,
        [TARGETS.tolist()] * M,
        np.log(M * np.array(COUNTS) / np.sum(COUNTS)),
        OWNED,
        [1] * M,
        1.0,
    )
    loss = SampledSoftmax(InBatchNegatives(COUNTS))
    found = loss(QUERIES, CANDIDATES, TARGETS, context=CONTEXT)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mixed_negatives_share_one_expectation():
    # Three items drawn by both samplers count once each, with the sum of their Q.
    loss = SampledSoftmax(
        [UniformNegatives(N), InBatchNegatives(COUNTS)], mask_own_items=False
    )
    expected = oracles.sampled_softmax(
        QUERIES,
        CANDIDATES,
        TARGETS,
        [[*range(N), *TARGETS.tolist()]] * M,
        np.log(1.0 + M * np.array(COUNTS) / np.sum(COUNTS)),
        NOTHING,
        [1] * M,
        1.0,
    )
    found = loss(QUERIES, CANDIDATES, TARGETS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@every_sharing
@every_loss
def test_weight_zero_is_absence_to_the_last_bit(make, shared_by):
    weights = np.where(np.arange(M) % 3 == 0, 0.0, WEIGHTS).astype("float32")
    kept = weights > 0
    queries = np.where(kept[:, None], QUERIES, np.nan)  # nothing may look at them
    with_zeros = value_and_gradients(
        called(make(shared_by=shared_by, seed=1), weights), queries, CANDIDATES
    )
    context = CONTEXT._replace(
        sequences=CONTEXT.sequences[kept], rows=CONTEXT.rows[kept]
    )
    loss = make(shared_by=shared_by, seed=1)
    without = value_and_gradients(
        lambda q, c: loss(q, c, TARGETS[kept], weights[kept], context=context),
        QUERIES[kept],
        CANDIDATES,
    )
    np.testing.assert_array_equal(with_zeros[0], without[0])
    np.testing.assert_array_equal(with_zeros[1][kept], without[1])
    np.testing.assert_array_equal(with_zeros[1][~kept], 0.0)
    np.testing.assert_array_equal(with_zeros[2], without[2])


def test_of_weight_zero_is_no_in_batch_negative():
    weights = np.where(np.arange(M) < 4, 0.0, 1.0).astype("float32")
    loss = SampledSoftmax(InBatchNegatives(COUNTS), mask_own_items=False)
    found = loss(QUERIES, CANDIDATES, TARGETS, weights)
    expected = loss(QUERIES[4:], CANDIDATES, TARGETS[4:])
    np.testing.assert_array_equal(found, expected)


@every_loss
def test_nothing_to_learn_costs_nothing(make):
    loss = make(shared_by="batch")
    found = called(loss, np.zeros(M, np.float32))
    value, *gradients = value_and_gradients(found, QUERIES, CANDIDATES)
    assert float(value) == 0.0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0.0)


def test_own_items_get_no_gradient_and_the_others_do():
    loss = SampledSoftmax(UniformNegatives(N))
    one = CONTEXT._replace(sequences=CONTEXT.sequences[4:5], rows=CONTEXT.rows[4:5])
    _, _, gradient = value_and_gradients(
        lambda q, c: loss(q, c, TARGETS[4:5], context=one), QUERIES[4:5], CANDIDATES
    )
    moved = np.flatnonzero(np.abs(gradient).max(axis=1))
    assert set(moved) == set(range(N)) - sampling.OWN[3] | {int(TARGETS[4])}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_loss
def test_half_precision_is_computed_in_float32(make, dtype):
    queries, candidates = tf.cast(QUERIES, dtype), tf.cast(CANDIDATES, dtype)
    options = {"shared_by": "row", "seed": 2, "temperature": 0.05}
    found, *gradients = value_and_gradients(
        called(make(**options)), queries, candidates
    )
    assert found.dtype == np.float32
    expected = called(make(**options))(
        tf.cast(queries, tf.float32), tf.cast(candidates, tf.float32)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for gradient in gradients:
        assert np.isfinite(gradient.astype("float32")).all()


@pytest.mark.parametrize("elements", [1, 40, 300])
@every_sharing
def test_any_tile_gives_the_same(shared_by, elements, monkeypatch):
    def found():
        loss = SampledSoftmax(
            FixedNegatives(sampling.LINES[shared_by]), shared_by=shared_by
        )
        return value_and_gradients(called(loss, WEIGHTS), QUERIES, CANDIDATES)

    whole = found()
    monkeypatch.setattr(operations, "TILE_ELEMENTS", elements)
    monkeypatch.setattr(operations, "_LEAST_ROWS", 1)
    for ours, theirs in zip(found(), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every_sharing
def test_queries_in_any_order_cost_the_same(shared_by):
    order = np.random.default_rng(5).permutation(M)
    lines = sampling.LINES[shared_by]

    def loss(lines):
        return SampledSoftmax(FixedNegatives(lines), shared_by=shared_by)

    expected = loss(lines)(QUERIES, CANDIDATES, TARGETS, WEIGHTS, context=CONTEXT)
    context = CONTEXT._replace(
        sequences=tf.gather(CONTEXT.sequences, order),
        rows=tf.gather(CONTEXT.rows, order),
    )
    found = loss(lines[order] if shared_by == "query" else lines)(
        QUERIES[order], CANDIDATES, TARGETS[order], WEIGHTS[order], context=context
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@every_sharing
@every_loss
def test_a_lookup_gives_what_the_table_gives(make, shared_by):
    asked = []

    def embed(rows):
        asked.append(np.array(rows))
        return tf.gather(CANDIDATES, rows)

    options = {"shared_by": shared_by, "seed": 6}
    found = called(make(**options))(QUERIES, CandidateLookup(embed, N))
    expected = called(make(**options))(QUERIES, CANDIDATES)
    np.testing.assert_array_equal(found, expected)
    (rows,) = asked  # in one go, each row once
    assert len(set(rows.tolist())) == len(rows)
    assert set(TARGETS.tolist()) <= set(rows.tolist())


def test_only_what_was_drawn_gets_a_gradient_row():
    table = tf.Variable(
        np.random.default_rng(0).normal(size=[1000, D]), dtype="float32"
    )
    loss = SampledSoftmax(UniformNegatives(6), mask_own_items=False)
    lookup = CandidateLookup(lambda rows: tf.nn.embedding_lookup(table, rows), 1000)
    with tf.GradientTape() as tape:
        value = loss(QUERIES, lookup, TARGETS)
    gradient = tape.gradient(value, table)
    assert isinstance(gradient, tf.IndexedSlices)
    assert len(gradient.indices) <= M + 6


@every_loss
def test_of_several_interests_the_best_for_the_target_is_trained(make):
    interests = np.random.default_rng(8).normal(size=[M, 3, D]).astype("float32")
    scores = np.einsum("mkd,md->mk", interests, CANDIDATES[TARGETS])
    best = scores.argmax(axis=1)
    assert set(best) == {0, 1, 2}
    options = {"shared_by": "batch", "seed": 3}
    found = value_and_gradients(called(make(**options)), interests, CANDIDATES)
    expected = value_and_gradients(
        called(make(**options)), interests[np.arange(M), best], CANDIDATES
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1][np.arange(M), best], expected[1], rtol=1e-6)
    assert np.count_nonzero(np.abs(found[1]).max(axis=2)) == M
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-6)


def test_full_softmax_trains_the_best_interest():
    interests = np.random.default_rng(8).normal(size=[M, 3, D]).astype("float32")
    best = np.einsum("mkd,md->mk", interests, CANDIDATES[TARGETS]).argmax(axis=1)
    found = FullSoftmax()(interests, CANDIDATES, TARGETS)
    expected = FullSoftmax()(interests[np.arange(M), best], CANDIDATES, TARGETS)
    np.testing.assert_array_equal(found, expected)


@every_loss
def test_every_step_draws_others_and_a_seed_repeats_them(make):
    first, second, other = (make(shared_by="batch", seed=seed) for seed in (1, 1, 2))
    values = [
        [float(called(loss)(QUERIES, CANDIDATES)) for _ in range(3)]
        for loss in (first, second, other)
    ]
    assert values[0] == values[1]
    assert len(set(values[0])) == 3
    assert values[0] != values[2]


def test_no_seed_draws_one_that_keras_governs():
    def value():
        keras.utils.set_random_seed(9)
        return float(called(SampledSoftmax(UniformNegatives(5)))(QUERIES, CANDIDATES))

    assert value() == value()


@every_sharing
@every_loss
def test_graph_with_an_unknown_number_of_queries(make, shared_by):
    loss, again = (make(shared_by=shared_by, seed=4) for _ in range(2))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, D], tf.float32),
            tf.TensorSpec([N, D], tf.float32),
            *[tf.TensorSpec([None], tf.int32)] * 3,
        ],
        autograph=False,
    )
    def graph(queries, candidates, targets, sequences, rows):
        context = CONTEXT._replace(sequences=sequences, rows=rows)
        with tf.GradientTape() as tape:
            tape.watch([queries, candidates])
            value = loss(queries, candidates, targets, context=context)
        gradients = tape.gradient(value, [queries, candidates])
        return value, *map(tf.convert_to_tensor, gradients)

    inputs = QUERIES, CANDIDATES, TARGETS, CONTEXT.sequences, CONTEXT.rows
    expected = value_and_gradients(called(again), QUERIES, CANDIDATES)
    for ours, theirs in zip(graph(*inputs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    nothing = [each[:0] for each in (QUERIES, TARGETS, inputs[3], inputs[4])]
    value, *gradients = graph(nothing[0], CANDIDATES, *nothing[1:])
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradients[1], np.zeros([N, D]))


def configured():
    options = {
        "shared_by": "row",
        "temperature": 0.3,
        "mask_own_items": False,
        "seed": 5,
        "name": "mine",
    }
    yield SampledSoftmax(UniformNegatives(3), correct_sampling=False, **options)
    yield SampledSoftmax(
        [PopularityNegatives(COUNTS, 4, exponent=0.4), InBatchNegatives(COUNTS, 3)],
        seed=1,
    )
    yield BinaryCrossEntropy(UniformNegatives(3), **options)
    yield GBCE(7, 0.2, **options)


@pytest.mark.parametrize(
    "loss", list(configured()), ids=lambda loss: type(loss).__name__
)
def test_config_round_trip(loss):
    config = loss.get_config()
    again = type(loss).from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    restored = keras.saving.deserialize_keras_object(serialized)
    values = [
        float(called(each)(QUERIES, CANDIDATES)) for each in (loss, again, restored)
    ]
    assert len(set(values)) == 1


def test_the_counter_is_a_weight():
    loss, again = (SampledSoftmax(UniformNegatives(5), seed=1) for _ in range(2))
    called(loss)(QUERIES, CANDIDATES)
    assert [np.array(weight).tolist() for weight in loss.weights] == [[1, 1]]
    again.set_weights(loss.get_weights())
    values = [float(called(each)(QUERIES, CANDIDATES)) for each in (loss, again)]
    assert values[0] == values[1]


ERRORS = [
    (
        lambda: SampledSoftmax(UniformNegatives(3), shared_by="user"),
        "`shared_by` must be one of 'batch', 'row', 'query'. Received: "
        "shared_by='user'.",
    ),
    (
        lambda: GBCE(3, 1.5),
        "`calibration` must be a number in [0, 1]. Received: calibration=1.5.",
    ),
    (
        lambda: GBCE(0),
        "`num_negatives` must be a positive integer. Received: num_negatives=0.",
    ),
    (
        lambda: SampledSoftmax(256),
        "`negatives` must be one or more samplers of negatives. Received: "
        "negatives=256. Use for example UniformNegatives(256).",
    ),
    (
        lambda: SampledSoftmax(InBatchNegatives(COUNTS), shared_by="row"),
        "`InBatchNegatives` are those of the whole batch. Received: "
        "shared_by='row'. Use shared_by='batch'.",
    ),
    (
        lambda: SampledSoftmax()(QUERIES, CANDIDATES, TARGETS),
        "`context` of `SampledSoftmax` must be given, to tell the user's own items",
    ),
    (
        lambda: SampledSoftmax(InBatchNegatives(COUNTS[1:]), mask_own_items=False)(
            QUERIES, CANDIDATES, TARGETS
        ),
        "`counts` must hold one number for each candidate. Received: 16 counts for 17",
    ),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_errors(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_the_number_of_candidates_must_be_known():
    loss = SampledSoftmax(mask_own_items=False)

    @tf.function(input_signature=[tf.TensorSpec([None, D], tf.float32)])
    def graph(candidates):
        return loss(QUERIES, candidates, TARGETS)

    message = r"`candidates` must be a tensor \[N, D\] with N known"
    with pytest.raises(ValueError, match=message):
        graph(CANDIDATES)


def test_every_pair_of_losses_differs():
    values = [
        float(called(make(shared_by="batch", seed=1))(QUERIES, CANDIDATES))
        for make in LOSSES.values()
    ]
    assert all(abs(a - b) > 1e-4 for a, b in itertools.combinations(values, 2))
