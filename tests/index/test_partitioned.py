"""`PartitionedTopK` beyond what the common suite asks: recall, edges, forms, files."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_selfattn._keras import KERAS_3, keras

if KERAS_3:
    pytest.skip("TensorFlow Recommenders needs legacy Keras", allow_module_level=True)

import tensorflow_recommenders as tfrs

from tfrs_selfattn.index import ExactTopK, PartitionedTopK
from tfrs_selfattn.ops.top_k import LOWEST_SCORE

N, D, K = 3_001, 11, 10
VARIANTS = {
    "float32": {},
    "bfloat16": {"quantization": "bfloat16", "num_reordering_candidates": 40},
    "int8": {"quantization": "int8", "num_reordering_candidates": 40},
    "int8 only": {"quantization": "int8"},
    "bfloat16 originals": {
        "quantization": "int8",
        "num_reordering_candidates": 40,
        "reordering_dtype": "bfloat16",
    },
    "spill": {"spill": True},
    "cosine": {"distance_measure": "cosine"},
    "xla": {"quantization": "int8", "num_reordering_candidates": 40, "xla": True},
}


def clustered(rows, seed, lengths=True):
    """Vectors around 60 directions that all calls share, of spread lengths."""
    centers = np.random.default_rng(0).normal(size=(60, D))
    draw = np.random.default_rng(seed)
    vectors = centers[draw.integers(0, 60, rows)] + 0.5 * draw.normal(size=(rows, D))
    if lengths:
        vectors *= np.exp(draw.normal(0, 0.25, (rows, 1)))
    return vectors.astype(np.float32)


CANDIDATES = clustered(N, 1)
QUERIES = clustered(64, 2, lengths=False)
NAMES = np.array(
    [f"item {number}" for number in np.random.default_rng(3).permutation(N)]
)


def build(num_leaves_to_search=None, **variant):
    index = PartitionedTopK(
        k=K, num_leaves=61, num_leaves_to_search=num_leaves_to_search, **variant
    )
    return index.index(CANDIDATES, tf.constant(NAMES))


@pytest.fixture(scope="module")
def plain():
    return build(8)


def truth(measure="dot_product"):
    exact = ExactTopK(k=K, distance_measure=measure).index(
        CANDIDATES, tf.constant(NAMES)
    )
    return exact(QUERIES)[1].numpy()


def recall(found, best):
    hits = [len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]
    return sum(hits) / best.size


# Seen for 8 of 61 leaves, in the order of VARIANTS.
SEEN = [0.972, 0.972, 0.972, 0.967, 0.969, 0.986, 0.991, 0.972]


@pytest.mark.parametrize(
    ("variant", "seen"), [*zip(VARIANTS, SEEN, strict=True)], ids=VARIANTS
)
def test_recall(variant, seen):
    index = build(8, **VARIANTS[variant])
    best = truth(index.distance_measure)
    scores, found = index(QUERIES)
    assert recall(found.numpy(), best) > seen - 0.04
    assert not index.is_exact()
    assert all(len(set(row)) == K for row in found.numpy())
    assert (np.diff(scores.numpy(), axis=1) <= 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_those_of_the_vectors_it_stores(variant):
    index = build(8, **VARIANTS[variant])
    scores, rows = index.search_rows(QUERIES)
    queries = QUERIES
    if variant == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    stored = index.vectors_of(rows).numpy()
    expected = np.einsum("bd,bkd->bk", queries, stored)
    # bfloat16 leaves have products in bfloat16, but only to choose what to score again.
    np.testing.assert_allclose(scores, expected, rtol=2e-5)


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize("xla", [False, True])
def test_searching_everything_equals_exact(spill, xla):
    index = build(61, spill=spill, xla=xla)
    assert index.is_exact()
    exact = ExactTopK(k=K).index(CANDIDATES, tf.constant(NAMES))
    np.testing.assert_array_equal(index(QUERIES)[1], exact(QUERIES)[1])
    lists = np.random.default_rng(4).choice(NAMES, (64, 30))
    for method in ("query_with_exclusions", "query_among"):
        np.testing.assert_array_equal(
            getattr(index, method)(QUERIES, lists)[1],
            getattr(exact, method)(QUERIES, lists)[1],
        )


def test_the_xla_form_gives_equal_answers():
    ours, theirs = (build(8, quantization="int8", xla=xla) for xla in (False, True))
    lists = np.random.default_rng(4).choice(NAMES, (64, 30))
    for rows in (1, 3, 64):  # batch sizes between the powers of 2 too
        np.testing.assert_array_equal(
            ours(QUERIES[:rows])[1], theirs(QUERIES[:rows])[1]
        )
        np.testing.assert_allclose(
            ours.query_with_exclusions(QUERIES[:rows], lists[:rows])[0],
            theirs.query_with_exclusions(QUERIES[:rows], lists[:rows])[0],
            rtol=1e-5,
        )


@settings(derandomize=True, deadline=None, max_examples=12)
@given(st.data())
def test_answers_are_whole_whatever_the_sizes(data):
    """k columns, none excluded, none twice, and short only when nothing is left."""
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    size, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 5))
    k = data.draw(st.integers(1, 12))
    leaves = data.draw(st.integers(1, 100))
    index = PartitionedTopK(
        k=k,
        num_leaves=leaves,
        training_iterations=1,
        num_leaves_to_search=data.draw(st.integers(1, leaves)),
        spill=data.draw(st.booleans()),
        quantization=data.draw(st.sampled_from([None, "int8"])),
    )
    candidates = draw.integers(-2, 3, (size, width)).astype(np.float32)
    names = [f"n{number}" for number in range(size)]
    index.index(candidates, tf.constant(names))
    queries = draw.integers(-2, 3, (3, width)).astype(np.float32)
    share = data.draw(st.sampled_from([0.1, 0.9, 1.0]))
    lists = np.full([3, size + 2], "", object)
    for row in lists:
        listed = draw.permutation(names)[: round(share * size)]
        row[: len(listed)] = listed
        row[-2:] = "unknown", names[0]
    scores, found = index.query_with_exclusions(queries, lists.astype(str))
    _, among = index.query_among(queries, lists.astype(str))
    for row in range(3):
        eligible = set(names) - set(lists[row])
        answer = [name.decode() for name in found.numpy()[row]]
        real = [name for name in answer if name]
        assert len(answer) == k and len(real) == min(k, len(eligible))
        assert set(real) <= eligible and len(set(real)) == len(real)
        np.testing.assert_array_equal(scores[row, len(real) :], LOWEST_SCORE)
        listed = set(lists[row]) & set(names)
        answer = [name.decode() for name in among.numpy()[row] if name]
        assert len(answer) == min(k, len(listed)) and set(answer) <= listed


def test_exclusions_make_the_search_deeper(plain):
    found = plain(QUERIES[:2], k=600)[1]
    scores, deeper = plain.query_with_exclusions(QUERIES[:2], found, k=600)
    assert not set(found.numpy()[0]) & set(deeper.numpy()[0])
    assert (deeper.numpy() != b"").all()
    exact = ExactTopK().index(CANDIDATES, tf.constant(NAMES))
    np.testing.assert_array_equal(
        deeper, exact.query_with_exclusions(QUERIES[:2], found, k=600)[1]
    )
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_query_leaves_its_neighbors_alone(plain, bad):
    queries = QUERIES[:3].copy()
    queries[1, 0] = bad
    scores, found = plain(queries)
    np.testing.assert_array_equal(found[::2], plain(QUERIES[:3])[1][::2])
    assert set(found.numpy()[1]) == {b""}
    np.testing.assert_array_equal(scores[1], LOWEST_SCORE)


@pytest.mark.parametrize("cls", [ExactTopK, PartitionedTopK])
def test_several_interests_a_user(cls):
    options = {} if cls is ExactTopK else {"num_leaves": 61}
    index = cls(k=K, **options).index(CANDIDATES, tf.constant(NAMES))
    interests = QUERIES.reshape(16, 4, D)
    lists = np.random.default_rng(4).choice(NAMES, (16, 500))
    scores, found = index.query_with_exclusions(interests, lists)
    products = np.einsum("bid,nd->bin", interests, CANDIDATES).max(axis=1)
    for row in range(16):
        products[row, np.isin(NAMES, lists[row])] = -np.inf
        best = np.argsort(-products[row], kind="stable")[:K]
        assert [name.decode() for name in found.numpy()[row]] == list(NAMES[best])
        np.testing.assert_allclose(scores[row], products[row, best], rtol=1e-5)


def test_same_seed_same_bytes():
    first, second = build(8, quantization="int8"), build(8, quantization="int8")
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_a_dataset_gives_the_same_index(plain, tmp_path):
    rows = tf.data.Dataset.from_tensor_slices((NAMES, CANDIDATES)).batch(170)
    index = PartitionedTopK(k=K, num_leaves=61, num_leaves_to_search=8)
    index.index_from_dataset(rows)
    np.save(tmp_path / "candidates.npy", CANDIDATES)
    mapped = np.load(tmp_path / "candidates.npy", mmap_mode="r")
    from_file = PartitionedTopK(k=K, num_leaves=61, num_leaves_to_search=8)
    from_file.index(mapped, tf.constant(NAMES))
    for other in (index, from_file):
        np.testing.assert_array_equal(other(QUERIES)[1], plain(QUERIES)[1])


def test_a_dataset_that_changes_is_an_error():
    sizes = iter([50, 50, 40, 40])
    rows = tf.data.Dataset.from_generator(
        lambda: iter([np.ones([next(sizes), 2], np.float32)]),
        output_signature=tf.TensorSpec([None, 2]),
    )
    next(sizes)  # so that the second reading differs from the first
    with pytest.raises(ValueError, match=r"the same batches each time.*Cache"):
        PartitionedTopK(num_leaves=3).index_from_dataset(rows)


def ops_of(path):
    """Every op and attribute name of a SavedModel, functions included."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((path / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    attributes = {name for node in nodes for name in node.attr}
    attributes |= {name for f in graph.library.function for name in f.attr}
    return {node.op for node in nodes}, attributes


def test_the_graph_holds_stock_ops_and_no_xla(tmp_path):
    sizes = []
    for number in (300, 3_000):
        index = PartitionedTopK(
            k=K,
            num_leaves=31,
            num_leaves_to_search=3,
            quantization="int8",
            num_reordering_candidates=20,
            spill=True,
        ).index(CANDIDATES[:number], tf.constant(NAMES[:number]))
        index.query_with_exclusions(QUERIES, NAMES[:64, np.newaxis])
        path = tmp_path / str(number)
        tf.saved_model.save(index, str(path))
        sizes.append((path / "saved_model.pb").stat().st_size)
    ops, attributes = ops_of(path)
    assert "GatherV2" in ops  # Else this test would look at nothing.
    known = set(tf.raw_ops.__dict__)
    assert not {op for op in ops if op not in known and not op.startswith("_")}
    assert "_XlaMustCompile" not in attributes
    assert abs(sizes[1] - sizes[0]) < 2_000  # Digits of shapes, not candidates.


def test_the_xla_form_says_so_in_the_graph(tmp_path):
    index = build(8, xla=True)
    tf.saved_model.save(index, str(tmp_path))
    assert "_XlaMustCompile" in ops_of(tmp_path)[1]
    restored = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(restored(tf.constant(QUERIES))[1], index(QUERIES)[1])


@pytest.mark.parametrize("variant", ["bfloat16", "spill", "xla"])
def test_keras_file_restores_everything(variant, tmp_path):
    tower = keras.Sequential([keras.Input(shape=(D,)), keras.layers.Dense(D)])
    index = build(8, query_model=tower, **VARIANTS[variant])
    before = index(QUERIES)
    index.save(tmp_path / "index.keras")
    restored = keras.models.load_model(tmp_path / "index.keras")
    assert type(restored) is PartitionedTopK
    assert restored.get_config() == index.get_config()
    after = restored(QUERIES)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])


def test_config_covers_the_constructor():
    index = PartitionedTopK(k=7, name="seven", seed=5, spill=True, num_leaves=4)
    config = index.get_config()
    assert set(inspect.signature(PartitionedTopK).parameters) == set(config)
    assert PartitionedTopK.from_config(config).get_config() == config


def test_the_arguments_of_scann_are_taken():
    theirs = inspect.signature(tfrs.layers.factorized_top_k.ScaNN).parameters
    ours = inspect.signature(PartitionedTopK).parameters
    assert list(ours)[: len(theirs)] == list(theirs)


def test_the_metric_of_tfrs_takes_it_with_identifiers(plain):
    metric = tfrs.metrics.FactorizedTopK(plain, ks=(1, 10))
    best = plain(QUERIES)[1][:, :1]
    rows = [list(NAMES).index(name.decode()) for name in best.numpy()[:, 0]]
    metric.update_state(
        tf.constant(QUERIES), tf.gather(CANDIDATES, rows), true_candidate_ids=best
    )
    np.testing.assert_allclose(metric.result(), [1, 1])


@pytest.mark.parametrize(
    ("size", "searched"), [(1, "all"), (1_000, "all"), (20_000, "all"), (30_000, 16)]
)
def test_defaults_suit_the_size(size, searched):
    candidates = np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32)
    index = PartitionedTopK(k=5, training_iterations=2).index(candidates)
    leaves = index.get_weights()[0].shape[0]
    assert leaves <= size
    assert index._num_probes(5) == (leaves if searched == "all" else searched)
    assert index.is_exact() == (searched == "all")


def test_equal_and_zero_candidates_are_harmless():
    index = PartitionedTopK(k=3, num_leaves=9, num_leaves_to_search=2)
    index.index(np.zeros([40, 2], np.float32))
    scores, rows = index(np.ones([2, 2], np.float32))
    np.testing.assert_array_equal(scores, np.zeros([2, 3]))
    assert all(len(set(row)) == 3 for row in rows.numpy())
    cosine = PartitionedTopK(k=3, num_leaves=9, distance_measure="cosine")
    cosine.index(np.zeros([40, 2], np.float32))
    assert np.isfinite(cosine(np.zeros([2, 2], np.float32))[0]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_leaves": 0}, r"`num_leaves` must be a positive integer.*=0.*None"),
        ({"num_leaves_to_search": -1}, r"`num_leaves_to_search` must be a positive"),
        ({"num_reordering_candidates": 1.5}, r"`num_reordering_candidates` must be"),
        ({"training_iterations": 0}, r"`training_iterations` must be a positive"),
        ({"quantization": "int4"}, r"one of 'bfloat16', 'int8'.*'int4'.*None"),
        ({"reordering_dtype": "int8"}, r"one of 'float32', 'bfloat16'"),
        ({"distance_measure": "squared_l2"}, r"'dot_product', 'cosine'.*Squared"),
    ],
)
def test_errors_of_the_constructor(arguments, message):
    with pytest.raises(ValueError, match=message):
        PartitionedTopK(**arguments)


def test_errors_of_index_leave_the_old_one(plain):
    before = plain(QUERIES)[1]
    bad = CANDIDATES.copy()
    bad[17, 3] = np.nan
    with pytest.raises(ValueError, match=r"must be finite.*row 17"):
        plain.index(bad, tf.constant(NAMES))
    with pytest.raises(ValueError, match=r"must be unique"):
        plain.index(CANDIDATES[:2], tf.constant(["a", "a"]))
    with pytest.raises(ValueError, match=r"each of the 2 candidates once"):
        plain.index(CANDIDATES[:2], tf.constant(["a"]))
    with pytest.raises(ValueError, match=rf"embeddings \[queries, {D}\]"):
        plain(np.ones([2, 3], np.float32))
    np.testing.assert_array_equal(plain(QUERIES)[1], before)
