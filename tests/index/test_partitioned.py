"""`PartitionedTopK` beyond what the common suite asks: recall, edges, forms, files."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.index.clusters import CANDIDATES, NAMES, QUERIES, VARIANTS, D, K, N, build
from tfrs_selfattn.index import ExactTopK, PartitionedTopK, building
from tfrs_selfattn.ops import leaf_search
from tfrs_selfattn.ops.top_k import LOWEST_SCORE


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
SEEN = [0.972, 0.972, 0.972, 0.972, 0.967, 0.969, 0.986, 0.991, 0.972]


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


@pytest.mark.parametrize(
    "variant", ["float32", "bfloat16", "bfloat16 only", "int8", "spill"]
)
def test_the_xla_form_gives_equal_answers(variant):
    ours, theirs = (build(8, **VARIANTS[variant], xla=xla) for xla in (False, True))
    lists = np.random.default_rng(4).choice(NAMES, (64, 30))
    # Batch sizes between the powers of 2 too; XLA compiles for each.
    for rows in (1, 3, 64) if variant == "int8" else (3,):
        np.testing.assert_array_equal(
            ours(QUERIES[:rows])[1], theirs(QUERIES[:rows])[1]
        )
        np.testing.assert_allclose(
            ours.query_with_exclusions(QUERIES[:rows], lists[:rows])[0],
            theirs.query_with_exclusions(QUERIES[:rows], lists[:rows])[0],
            rtol=1e-5,
        )


@pytest.mark.parametrize("variant", ["float32", "bfloat16", "spill", "xla"])
def test_a_scan_of_all_leaves_equals_exact(variant):
    """Leaf by leaf, where a search of everything takes all rows at once."""
    index = build(61, **VARIANTS[variant])
    exact = ExactTopK(k=K).index(CANDIDATES)
    excluded = np.random.default_rng(4).integers(-1, N, (64, 30)).astype(np.int32)
    scores, rows = leaf_search._search_some(
        tf.constant(QUERIES), index._leaves(), K, 61, 40, tf.constant(excluded)
    )
    best = exact.search_rows(QUERIES, excluded=excluded)
    np.testing.assert_array_equal(rows, best[1])
    np.testing.assert_allclose(scores, best[0], rtol=1e-5)


@settings(derandomize=True, deadline=None, max_examples=12)
@given(st.data())
def test_answers_are_whole_whatever_the_sizes(data):
    """k columns, none excluded, none twice, and short only when nothing is left.

    An index that searches everything answers as an exact one does, ties included.
    """
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
        quantization=data.draw(st.sampled_from([None, "bfloat16", "int8"])),
        num_reordering_candidates=data.draw(st.sampled_from([None, 1, 20])),
        xla=data.draw(st.integers(0, 3)) == 0,  # one in four: each compiles anew
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
    index.num_leaves_to_search = leaves
    index._reset_tf_function_cache()
    if index.is_exact() or index.quantization == "bfloat16":  # of whole numbers
        exact = ExactTopK(k=k).index(candidates, tf.constant(names))
        for ours, theirs in zip(
            index.query_with_exclusions(queries, lists.astype(str)),
            exact.query_with_exclusions(queries, lists.astype(str)),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


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


def test_a_dataset_that_changes_is_an_error():
    sizes = iter([50, 50, 40, 40])
    rows = tf.data.Dataset.from_generator(
        lambda: iter([np.ones([next(sizes), 2], np.float32)]),
        output_signature=tf.TensorSpec([None, 2]),
    )
    next(sizes)  # so that the second reading differs from the first
    with pytest.raises(ValueError, match=r"the same batches each time.*Cache"):
        PartitionedTopK(num_leaves=3).index_from_dataset(rows)


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
    ("size", "leaves", "capacity", "probes"),
    [
        (1, 1, 2, 1),
        (1_000, 31, 35, 31),
        (10_000, 312, 35, 312),
        (20_000, 625, 35, 625),
        (100_000, 2_530, 43, 32),
        (1_000_000, 8_000, 135, 53),
        (10_000_000, 25_298, 427, 168),
    ],
)
def test_default_sizes(size, leaves, capacity, probes):
    assert building.default_num_leaves(size) == leaves
    assert building.capacity_of(size, leaves, 1) == capacity
    assert building.default_num_probes(size, leaves, capacity, 10, ways=1) == probes
    # Enough for 4 k candidates, however large k is.
    many = building.default_num_probes(size, leaves, capacity, 2_000, ways=2)
    assert many == max(probes, min(leaves, -(-16_000 // capacity)))


@pytest.mark.parametrize(("size", "searched"), [(1, "all"), (30_000, 32)])
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
