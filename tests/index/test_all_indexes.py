"""One suite for every `TopK` layer: ours, and TFRS' own as the reference.

What holds here for `BruteForce` is what a user may expect when swapping class names.
TFRS' `ScaNN` is missing: its op loads into one version of TensorFlow, and not into
this one.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_selfattn._keras import keras
from tfrs_selfattn.index import ExactTopK, PartitionedTopK


class Streaming(tfrs.layers.factorized_top_k.Streaming):
    """Of TFRS; takes a matrix in batches, so that it can be asked the same."""

    def index(self, candidates, identifiers=None):
        rows = tf.data.Dataset.from_tensor_slices(candidates)
        if identifiers is not None:
            names = tf.data.Dataset.from_tensor_slices(identifiers)
            rows = tf.data.Dataset.zip((names, rows))
        return self.index_from_dataset(rows.batch(8))


# Approximate ones with the setting that makes them search everything: with few
# candidates, `PartitionedTopK` does so by itself.
INDEXES = {
    "ExactTopK": ExactTopK,
    "BruteForce": tfrs.layers.factorized_top_k.BruteForce,
    "Streaming": Streaming,
    "PartitionedTopK": functools.partial(PartitionedTopK, num_leaves=7),
    "PartitionedTopK, all variants": functools.partial(
        PartitionedTopK,
        num_leaves=5,
        num_leaves_to_search=5,
        num_reordering_candidates=1,
        quantization="int8",
        spill=True,
        xla=True,
    ),
    "PartitionedTopK, bfloat16": functools.partial(
        PartitionedTopK,
        num_leaves=6,
        num_reordering_candidates=20,
        quantization="bfloat16",
    ),
}
# `Streaming` reads a dataset at each call: there is nothing to save, nor to check.
HOLDING = [name for name in INDEXES if name != "Streaming"]
NUM_CANDIDATES, WIDTH, NUM_QUERIES = 53, 5, 7


@pytest.fixture(params=list(INDEXES))
def make(request):
    return INDEXES[request.param]


@pytest.fixture(params=HOLDING)
def make_holding(request):
    return INDEXES[request.param]


@pytest.fixture
def data():
    rng = np.random.default_rng(11)
    candidates = rng.normal(size=(NUM_CANDIDATES, WIDTH)).astype(np.float32)
    queries = rng.normal(size=(NUM_QUERIES, WIDTH)).astype(np.float32)
    exclusions = rng.integers(0, NUM_CANDIDATES, (NUM_QUERIES, 11))
    return candidates, queries, exclusions


def names(dtype):
    if dtype is None:
        return None
    # Neither in the order of the rows nor equal to their numbers.
    numbers = (np.arange(NUM_CANDIDATES) * 17) % NUM_CANDIDATES + 100
    return numbers.astype(str) if dtype is str else numbers.astype(dtype)


def expected(data, k, dtype=None, exclude=False):
    """A full sort of each row, in NumPy."""
    candidates, queries, exclusions = data
    scores = tf.matmul(queries, candidates, transpose_b=True).numpy()
    ranked = scores.copy()
    if exclude:
        for row, excluded in enumerate(exclusions):
            ranked[row, excluded] = -np.inf
    best = np.argsort(-ranked, axis=1, kind="stable")[:, :k]
    identifiers = best if dtype is None else names(dtype)[best]
    return np.take_along_axis(scores, best, axis=1), identifiers


def as_text(identifiers):
    values = identifiers.numpy() if hasattr(identifiers, "numpy") else identifiers
    return np.vectorize(lambda v: v.decode() if isinstance(v, bytes) else str(v))(
        values
    )


def assert_answers(actual, wanted):
    np.testing.assert_array_equal(actual[0], wanted[0])
    np.testing.assert_array_equal(as_text(actual[1]), as_text(wanted[1]))


def exclusion_names(data, dtype):
    return data[2].astype(np.int32) if dtype is None else names(dtype)[data[2]]


DTYPES = [None, str, np.int32, np.int64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("from_dataset", [False, True])
def test_call(make, data, dtype, from_dataset):
    index = make(k=10)
    identifiers = names(dtype)
    if from_dataset:
        rows = tf.data.Dataset.from_tensor_slices(data[0])
        if dtype is not None:
            identifiers = tf.data.Dataset.from_tensor_slices(identifiers)
            rows = tf.data.Dataset.zip((identifiers, rows))
        returned = index.index_from_dataset(rows.batch(8))
    else:
        if dtype is not None:
            identifiers = tf.constant(identifiers)
        returned = index.index(tf.constant(data[0]), identifiers)
    assert returned is index
    assert_answers(index(data[1]), expected(data, 10, dtype))
    if dtype is not None:
        assert index(data[1])[1].dtype == tf.constant(names(dtype)).dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_query_with_exclusions(make, data, dtype):
    index = make(k=10)
    identifiers = None if dtype is None else tf.constant(names(dtype))
    index.index(data[0], identifiers)
    answer = index.query_with_exclusions(data[1], exclusion_names(data, dtype))
    assert_answers(answer, expected(data, 10, dtype, exclude=True))


@pytest.mark.parametrize("k", [1, 3, 20])
def test_changing_k(make, data, k):
    index = make(k=10).index(data[0])
    assert_answers(index(data[1], k=k), expected(data, k))
    assert_answers(
        index.query_with_exclusions(data[1], exclusion_names(data, None), k=k),
        expected(data, k, exclude=True),
    )
    assert_answers(index(data[1]), expected(data, 10))


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("num_candidates", [NUM_CANDIDATES, 29])
def test_reindexing_forgets_the_old_candidates(make, data, exclude, num_candidates):
    candidates, queries, exclusions = data

    def query(index, exclusions):
        if exclude:
            return index.query_with_exclusions(queries, exclusions.astype(np.int32))
        return index(queries)

    index = make(k=4).index(candidates)
    if exclude and isinstance(index, Streaming):
        pytest.skip("what TFRS traced before goes on reading the old dataset")
    query(index, exclusions)
    changed = -candidates[:num_candidates], queries, exclusions % num_candidates
    index.index(changed[0])
    answer = query(index, changed[2])
    assert_answers(answer, expected(changed, 4, exclude=exclude))
    if isinstance(index, Streaming):
        return
    sizes = {w.shape[0] for w in index.weights}
    assert num_candidates in sizes
    assert NUM_CANDIDATES in sizes or num_candidates != NUM_CANDIDATES
    assert len(index.weights) == len({w.name for w in index.weights})


def query_tower():
    """Takes a dictionary of features, gives embeddings."""
    user = keras.Input(shape=(), dtype=tf.string, name="user")
    hour = keras.Input(shape=(), dtype=tf.int32, name="hour")
    lookup = keras.layers.StringLookup(vocabulary=["ann", "bob"])
    embed = keras.layers.Embedding(
        3, WIDTH, embeddings_initializer=keras.initializers.RandomNormal(seed=1)
    )
    scaled = keras.layers.Dense(
        WIDTH, kernel_initializer=keras.initializers.GlorotUniform(seed=2)
    )(tf.cast(hour, tf.float32)[:, tf.newaxis])
    return keras.Model({"user": user, "hour": hour}, embed(lookup(user)) + scaled)


def test_dictionaries_of_query_features(make, data):
    tower = query_tower()
    features = {
        "user": tf.constant(["ann", "bob", "eve"]),
        "hour": tf.constant([3, 5, 7]),
    }
    index = make(tower, k=6).index(data[0], tf.constant(names(str)))
    embedded = data[0], tower(features).numpy(), data[2][:3]
    assert_answers(index(features), expected(embedded, 6, str))
    answer = index.query_with_exclusions(features, names(str)[data[2][:3]])
    assert_answers(answer, expected(embedded, 6, str, exclude=True))


@pytest.mark.parametrize("dtype", [None, str])
@pytest.mark.parametrize("loader", ["tensorflow", "keras"])
def test_saved_model(make_holding, data, dtype, loader, tmp_path):
    index = make_holding(k=10)
    index.index(data[0], None if dtype is None else tf.constant(names(dtype)))
    index(data[1])
    exclusions = exclusion_names(data, dtype)
    index.query_with_exclusions(tf.constant(data[1]), tf.constant(exclusions))
    among = hasattr(index, "query_among")  # not of TFRS
    if among:
        index.query_among(tf.constant(data[1]), tf.constant(exclusions))
    if loader == "tensorflow":
        tf.saved_model.save(index, str(tmp_path))
        restored = tf.saved_model.load(str(tmp_path))
    else:
        index.save(str(tmp_path))
        restored = keras.models.load_model(str(tmp_path))
    assert_answers(restored(tf.constant(data[1])), expected(data, 10, dtype))
    answer = restored.query_with_exclusions(
        tf.constant(data[1]), tf.constant(exclusions)
    )
    assert_answers(answer, expected(data, 10, dtype, exclude=True))
    if among:
        answer = restored.query_among(tf.constant(data[1]), tf.constant(exclusions))
        listed = [set(row) for row in as_text(exclusions)]
        for row, found in enumerate(as_text(answer[1])):
            ranked = as_text(expected(data, NUM_CANDIDATES, dtype)[1])[row]
            best = [name for name in ranked if name in listed[row]][:10]
            assert list(found[: len(best)]) == best
            assert set(found[len(best) :]) <= {"", "-1"}


def test_saved_model_with_a_query_model(make_holding, data, tmp_path):
    tower = query_tower()
    features = {"user": tf.constant(["bob"]), "hour": tf.constant([5])}
    index = make_holding(tower, k=6).index(data[0], tf.constant(names(str)))
    before = index(features)
    tf.saved_model.save(index, str(tmp_path))
    restored = tf.saved_model.load(str(tmp_path))
    assert_answers(restored(features), before)
    # And more users at once than before.
    features = {"user": tf.constant(["bob", "ann"]), "hour": tf.constant([5, 1])}
    assert_answers(restored(features), index(features))


@pytest.mark.parametrize("dtype", [None, str])
def test_checkpoint(make_holding, data, dtype, tmp_path):
    identifiers = None if dtype is None else tf.constant(names(dtype))
    index = make_holding(k=10).index(data[0], identifiers)
    path = tf.train.Checkpoint(index=index).write(str(tmp_path / "checkpoint"))
    other = make_holding(k=10)
    blank = None if dtype is None else tf.strings.as_string(tf.range(NUM_CANDIDATES))
    other.index(tf.zeros_like(data[0]), blank)
    tf.train.Checkpoint(index=other).read(path).assert_consumed()
    assert_answers(other(data[1]), expected(data, 10, dtype))
    answer = other.query_with_exclusions(data[1], exclusion_names(data, dtype))
    assert_answers(answer, expected(data, 10, dtype, exclude=True))


@pytest.mark.parametrize("use_ids", [False, True])
def test_the_metric_of_tfrs_accepts_it(make, data, use_ids):
    # Whole numbers, because by scores the metric compares two ways to sum a product.
    data = np.round(64 * data[0]), np.round(64 * data[1]), data[2]
    candidates, queries, _ = data
    index = make(k=10).index(candidates, tf.constant(names(str)))
    assert index.is_exact()
    metric = tfrs.metrics.FactorizedTopK(index, ks=(1, 5, 20))
    # The true candidates of the queries are those ranked 1, 2, 3, … 7.
    ranked = expected(data, NUM_QUERIES)[1]
    true = np.array([ranked[query, query] for query in range(NUM_QUERIES)])
    metric.update_state(
        tf.constant(queries),
        tf.gather(candidates, true),
        true_candidate_ids=tf.constant(names(str)[true]) if use_ids else None,
    )
    np.testing.assert_allclose(metric.result(), [1 / 7, 5 / 7, 1])


def test_inside_a_retrieval_task_and_fit(make, data):
    candidates, queries, _ = data

    class Model(tfrs.Model):
        def __init__(self):
            super().__init__()
            self.tower = keras.layers.Dense(WIDTH)
            index = make(k=5).index(candidates)
            self.task = tfrs.tasks.Retrieval(
                metrics=tfrs.metrics.FactorizedTopK(index, ks=(1, 5))
            )

        def compute_loss(self, inputs, training=False):
            embeddings = self.tower(inputs["query"])
            return self.task(embeddings, inputs["candidate"])

    model = Model()
    model.compile(optimizer=keras.optimizers.Adagrad(0.1))
    rows = {"query": queries, "candidate": candidates[:NUM_QUERIES]}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(4)
    history = model.fit(dataset, epochs=2, verbose=0).history
    assert "factorized_top_k/top_5_categorical_accuracy" in history


def test_not_indexed_yet_is_an_error(make, data):
    with pytest.raises(ValueError, match="index"):
        make(k=3)(data[1])


def test_mismatched_lengths_are_an_error(make_holding, data):
    make = make_holding
    with pytest.raises(ValueError, match="identifiers"):
        make(k=3).index(data[0], tf.range(NUM_CANDIDATES - 1))
    identifiers = tf.data.Dataset.range(NUM_CANDIDATES - 1).batch(20)
    rows = tf.data.Dataset.from_tensor_slices(data[0]).batch(20)
    with pytest.raises(ValueError, match="identifiers"):
        make(k=3).index_from_dataset(tf.data.Dataset.zip((identifiers, rows)))


def test_candidates_must_be_a_matrix(make_holding):
    with pytest.raises(ValueError, match="candidates"):
        make_holding(k=3).index(tf.zeros([5]), tf.range(5))
