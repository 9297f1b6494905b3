"""`CorpusTopK` against loops, in a graph, and through both Keras versions' models.

Beside `FactorizedTopK` itself: `tests/models/test_corpus_top_k.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._keras import keras
from tfrs_selfattn.evaluation import CorpusTopK, CorpusTopKCallback, corpus

N, D, B = 53, 5, 7
KS = (5, 15, 30)


@pytest.fixture(params=["string", "int32", "int64"])
def dtype(request):
    return request.param


def names(numbers, dtype):
    """Identifiers that are neither in the order of the rows nor their numbers."""
    scattered = (np.asarray(numbers) * 17) % 1009 - 400
    return scattered.astype(str) if dtype == "string" else scattered.astype(dtype)


@pytest.fixture
def vectors():
    rng = np.random.default_rng(5)
    candidates = rng.normal(size=(N, D)).astype(np.float32)
    candidates[10] = candidates[20]  # A tie.
    return candidates, rng.normal(size=(B, D)).astype(np.float32)


def dataset(vectors, dtype="int32", batch=8):
    pairs = names(np.arange(N), dtype), vectors[0]
    return tf.data.Dataset.from_tensor_slices(pairs).batch(batch)


def hits(vectors, targets, seen=None):
    """[B, len(KS)] of 0 and 1, candidate by candidate."""
    candidates, queries = vectors
    scores = tf.matmul(queries, candidates, transpose_b=True).numpy()
    found = np.zeros([len(queries), len(KS)])
    for row, target in enumerate(targets):
        rank = 1
        for other in range(N):
            left_out = seen is not None and other in seen[row]
            if other != target and not left_out:
                rank += scores[row, other] >= scores[row, target]
        found[row] = [target < N and rank <= k for k in KS]
    return found


TARGETS = [10, 20, 3, 52, 0, 31, 44]


def accuracies(metric):
    return [float(value) for value in metric.result()]


@pytest.mark.parametrize("max_scores", [corpus._MAX_SCORES, 2 * N, 1])
def test_top_k_equals_loops(vectors, dtype, max_scores, monkeypatch):
    monkeypatch.setattr(corpus, "_MAX_SCORES", max_scores)
    metric = CorpusTopK(dataset(vectors, dtype), ks=KS)
    metric.update_state(vectors[1], None, tf.constant(names(TARGETS, dtype)))
    expected = hits(vectors, TARGETS)
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(accuracies(metric), expected.mean(axis=0), rtol=1e-6)


def test_seen_candidates_are_left_out(vectors, dtype):
    rng = np.random.default_rng(6)
    seen = rng.integers(0, N + 30, [B, 30])  # Beyond N: unknown.
    seen[:, 0] = TARGETS  # A seen target stays.
    metric = CorpusTopK(dataset(vectors, dtype), ks=KS)
    metric.update_state(
        vectors[1],
        true_candidate_ids=tf.constant(names(TARGETS, dtype)),
        seen_ids=tf.constant(names(seen, dtype)),
    )
    expected = hits(vectors, TARGETS, seen).mean(axis=0)
    np.testing.assert_allclose(accuracies(metric), expected, rtol=1e-6)
    assert (expected > hits(vectors, TARGETS).mean(axis=0)).any()


def test_an_unknown_candidate_is_a_miss(vectors, dtype):
    metric = CorpusTopK(dataset(vectors, dtype), ks=(1, N, 10 * N))
    metric.update_state(
        vectors[1][:2], None, tf.constant(names([N + 1, TARGETS[1]], dtype))
    )
    assert accuracies(metric) == [0, 0.5, 0.5]


@pytest.mark.parametrize("width", [1, 7, 64])
@pytest.mark.parametrize("size", [5, 17, 1003])
def test_a_model_that_embeds_all_alike_ranks_last(width, size):
    """Also in float arithmetic, where sums in another order would break the ties."""
    rng = np.random.default_rng(size)
    same = np.tile(rng.normal(size=width).astype(np.float32), (size, 1))
    items = tf.data.Dataset.from_tensor_slices((np.arange(size), same)).batch(4)
    metric = CorpusTopK(items, ks=(size - 1, size))
    queries = rng.normal(size=(33, width)).astype(np.float32)
    metric.update_state(queries, None, tf.constant(rng.integers(0, size, 33)))
    assert accuracies(metric) == [0, 1]


def test_batches_weights_and_column_identifiers(vectors):
    expected, weights = hits(vectors, TARGETS), np.array([1, 0, 2, 5, 1, 0, 3.0])
    metric = CorpusTopK(dataset(vectors), ks=KS)
    for part in (slice(0, 3), slice(3, 7)):
        metric.update_state(
            vectors[1][part],
            true_candidate_ids=names(TARGETS, "int32")[part, None],
            sample_weight=weights[part],
        )
    average = np.average(expected, axis=0, weights=weights)
    np.testing.assert_allclose(accuracies(metric), average, rtol=1e-6)


def test_identifiers_of_extra_negatives_are_cut_off(vectors):
    metric = CorpusTopK(dataset(vectors), ks=KS)
    metric.update_state(vectors[1][:3], None, names(TARGETS, "int32"))
    expected = hits((vectors[0], vectors[1][:3]), TARGETS[:3]).mean(axis=0)
    np.testing.assert_allclose(accuracies(metric), expected, rtol=1e-6)


def moving_metric(ks=(1,)):
    """Candidates a and b, embedded by a variable; and how often they were."""
    table = tf.Variable([[1.0], [2.0]], trainable=False)
    reads = tf.Variable(0, trainable=False)

    def embed(item):
        reads.assign_add(1)
        return item, tf.gather(table, item)

    items = tf.data.Dataset.range(2).batch(2).map(embed)
    return CorpusTopK(items, ks=ks), table, reads


def test_the_corpus_is_embedded_once_an_evaluation():
    metric, table, reads = moving_metric(ks=(1, 2))

    @tf.function
    def update():
        metric.update_state(tf.constant([[1.0]]), None, tf.constant([0]))

    metric.reset_state()
    for _ in range(3):
        update()
    assert (accuracies(metric), int(reads)) == ([0, 1], 1)
    table.assign([[2.0], [1.0]])
    metric.reset_state()
    for _ in range(3):
        update()
    assert (accuracies(metric), int(reads)) == ([1, 1], 2)


def test_a_graph_works_without_a_reset_before_it():
    metric, _, reads = moving_metric()

    @tf.function
    def update():
        metric.update_state(tf.constant([[1.0]]), None, tf.constant([1]))

    update()
    update()
    assert (accuracies(metric), int(reads)) == ([1], 1)


class Model(keras.Model):
    """Queries are numbers, candidates a table; the metric is all there is."""

    def __init__(self, metric, table):
        super().__init__()
        self.ranking, self.table = metric, table

    def call(self, inputs):
        return inputs

    def train_step(self, data):
        self.table.assign(self.table[::-1])
        return {"loss": 0.0}

    def test_step(self, data):
        self.ranking.update_state(data["query"], None, data["item"])
        return {metric.name: metric.result() for metric in self.ranking.metrics}


QUERIES = {"query": np.ones([4, 1], np.float32), "item": np.array([0, 0, 0, 1])}


def queries():
    return tf.data.Dataset.from_tensor_slices(QUERIES).batch(2)


def test_keras_refreshes_it_before_every_evaluation():
    metric, table, _ = moving_metric()
    model = Model(metric, table)
    model.compile()
    assert metric.metrics[0] in model.metrics
    assert len(model.weights) <= 1  # The table, which Keras 3 does not count.
    name = "factorized_top_k/top_1_categorical_accuracy"
    for expected in (0.25, 0.75):
        result = model.evaluate(queries(), return_dict=True, verbose=0)
        assert result[name] == expected
        table.assign(table[::-1])


def test_the_corpus_is_not_saved_with_the_model(tmp_path):
    metric, table, _ = moving_metric()
    model = Model(metric, table)
    model.compile()
    model.evaluate(queries(), verbose=0)
    checkpoint = tf.train.Checkpoint(model=model)
    saved = tf.train.list_variables(checkpoint.save(str(tmp_path / "checkpoint")))
    assert not [name for name, _ in saved if "corpus" in name or "dataset" in name]


def test_the_callback_adds_its_figures_to_the_logs():
    metric, table, _ = moving_metric(ks=(1, 2))
    model = Model(metric, table)
    model.compile()
    data = queries().map(lambda batch: (batch["query"], batch["item"]))
    callback = CorpusTopKCallback(metric, model, data, prefix="later_")
    seen_by_others = []
    follower = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen_by_others.append(dict(logs))
    )
    # One training step an epoch turns the table round.
    history = model.fit(
        queries().take(1),
        epochs=2,
        callbacks=[callback, follower],
        shuffle=False,
        verbose=0,
    )
    names = [f"later_factorized_top_k/top_{k}_categorical_accuracy" for k in (1, 2)]
    assert history.history[names[0]] == [0.75, 0.25]
    assert history.history[names[1]] == [1, 1]
    assert [logs[names[0]] for logs in seen_by_others] == [0.75, 0.25]


def test_the_callback_leaves_out_what_is_seen():
    metric, _, _ = moving_metric()
    seen = np.array([[-1], [1], [1], [-1]])
    data = tf.data.Dataset.from_tensor_slices(
        (QUERIES["query"], QUERIES["item"], seen)
    ).batch(3)
    figures = CorpusTopKCallback(metric, lambda features: features, data).evaluate()
    # Item 1 scores higher: without it, item 0 is first.
    assert figures == {"val_factorized_top_k/top_1_categorical_accuracy": 0.75}


@pytest.mark.parametrize("ids", [["a", "b", "a"], [3, 1, 3]])
def test_duplicate_candidates_are_an_error(ids):
    items = tf.data.Dataset.from_tensor_slices((ids, np.eye(3, dtype=np.float32)))
    metric = CorpusTopK(items.batch(2))
    with pytest.raises(ValueError, match=r"every identifier once\. Received: ('a'|3)"):
        metric.refresh()


def test_identifiers_that_share_a_fingerprint_are_an_error(monkeypatch):
    monkeypatch.setattr(corpus, "_FINGERPRINTS", 1)
    items = tf.data.Dataset.from_tensor_slices((["a", "b"], np.eye(2))).batch(2)
    with pytest.raises(ValueError, match=r"share fingerprints\. Received: 'a' and 'b'"):
        CorpusTopK(items).refresh()


def test_candidates_must_be_batches_of_pairs(vectors):
    pairs = dataset(vectors)
    for wrong in (pairs.unbatch(), pairs.map(lambda _, vectors: vectors), [1, 2]):
        with pytest.raises(ValueError, match=r"batches of pairs \(identifiers \[b\], "):
            CorpusTopK(wrong)
    with pytest.raises(ValueError, match=r"at least one batch\. Received: an empty"):
        CorpusTopK(pairs.take(0)).refresh()


def test_identifiers_must_be_given(vectors):
    metric = CorpusTopK(dataset(vectors))
    with pytest.raises(ValueError, match=r"`true_candidate_ids` must be given.*task"):
        metric.update_state(vectors[1], vectors[1])
    with pytest.raises(ValueError, match=r"`ks` must be a positive integer"):
        CorpusTopK(dataset(vectors), ks=(0,))
    with pytest.raises(ValueError, match=r"`queries` must yield \(features, identif"):
        CorpusTopKCallback(metric, lambda features: features, queries())
