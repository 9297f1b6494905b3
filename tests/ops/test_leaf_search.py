"""`tfrs_selfattn.ops.leaf_search` against loops over leaves, slots and rows."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.ops.leaf_search import (
    Leaves,
    among_search,
    full_search,
    leaf_search,
    row_vectors,
)
from tfrs_selfattn.ops.top_k import LOWEST_SCORE

B, L, Q, D, R = 5, 7, 6, 3, 17


def make(seed, ways=1, compiled=False, quantized=False):
    """Random leaves with free slots and rows that are nowhere, and their vectors."""
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-9, 10, (R, D)).astype(np.float32)
    slots = draw.permutation(L * Q)[: R * ways].reshape(R, ways).astype(np.int32)
    slots[draw.permutation(R)[:2]] = -1
    # Free slots hold vectors too, which once were candidates: none may be answered.
    stored = np.full([L * Q, D], 99, np.float32)
    members = np.full(L * Q, -1, np.int32)
    for row in range(R):
        for slot in slots[row][slots[row] >= 0]:
            stored[slot], members[slot] = vectors[row], row
    stored = stored.reshape(L, Q, D)
    centers = draw.normal(size=(L, D)).astype(np.float32)
    leaves = Leaves(
        centers=tf.constant(centers),
        vectors=tf.cast(stored, tf.int8 if quantized else tf.float32),
        members=tf.constant(members.reshape(L, Q)),
        slots=tf.constant(slots),
        scales=tf.constant([0.5, 2.0, 1.0]) if quantized else None,
        compiled=compiled,
    )
    queries = draw.normal(size=(B, D)).astype(np.float32)
    scale = np.array([0.5, 2.0, 1.0], np.float32) if quantized else 1
    return leaves, vectors * scale, queries, draw


def expected(leaves, vectors, query, rows, k):
    """The best k of some rows, one at a time."""
    pairs = sorted((-float(vectors[row] @ query), row) for row in rows)[:k]
    return [row for _, row in pairs], [-score for score, _ in pairs]


def in_use(leaves):
    return {row for row in range(R) if leaves.slots.numpy()[row, 0] >= 0}


def assert_answer(actual, wanted, k):
    scores, rows = (values.numpy() for values in actual)
    for b, (best, values) in enumerate(wanted):
        missing = k - len(best)
        assert list(rows[b]) == best + [-1] * missing
        np.testing.assert_allclose(
            scores[b], values + [LOWEST_SCORE] * missing, rtol=1e-5, atol=1e-5
        )


CASES = [
    (seed, ways, compiled, quantized)
    for seed in range(3)
    for ways in (1, 2)
    for compiled in (False, True)
    for quantized in (False, True)
]


@pytest.mark.parametrize(("seed", "ways", "compiled", "quantized"), CASES)
@pytest.mark.parametrize("k", [2, 9])
def test_leaf_search_equals_loops(seed, ways, compiled, quantized, k):
    leaves, vectors, queries, draw = make(seed, ways, compiled, quantized)
    excluded = draw.integers(-2, R + 2, (B, 4)).astype(np.int32)
    wanted = []
    for b, query in enumerate(queries):
        probed = np.argsort(-(leaves.centers.numpy() @ query))[:3]
        found = set(leaves.members.numpy()[probed].ravel()) - {-1, *excluded[b]}
        if len(found) < k:  # All leaves are searched then.
            found = in_use(leaves) - set(excluded[b])
        wanted.append(expected(leaves, vectors, query, found, k))
    actual = leaf_search(queries, leaves, k, num_leaves_to_search=3, excluded=excluded)
    assert_answer(actual, wanted, k)


@pytest.mark.parametrize(("seed", "ways", "compiled", "quantized"), CASES[:8])
def test_full_and_among_search_equal_loops(seed, ways, compiled, quantized):
    leaves, vectors, queries, draw = make(seed, ways, compiled, quantized)
    listed = draw.integers(-2, R + 2, (B, 9)).astype(np.int32)
    excluded = draw.integers(-2, R + 2, (B, 4)).astype(np.int32)
    used = in_use(leaves)

    def wanted(rows_of):
        return [
            expected(leaves, vectors, query, used & rows_of(b), 6)
            for b, query in enumerate(queries)
        ]

    everything = set(range(R))
    assert_answer(
        full_search(queries, leaves, 6, excluded=excluded),
        wanted(lambda b: everything - set(excluded[b])),
        6,
    )
    assert_answer(
        among_search(queries, leaves, 6, listed), wanted(lambda b: set(listed[b])), 6
    )
    assert_answer(
        among_search(queries, leaves, 6, listed, excluded),
        wanted(lambda b: set(listed[b]) - set(excluded[b])),
        6,
    )


@pytest.mark.parametrize("leaves_at_once", [1, 2, 3])
def test_a_large_catalogue_is_cast_some_leaves_at_a_time(monkeypatch, leaves_at_once):
    from tfrs_selfattn.ops import leaf_search as module

    leaves, _, queries, _ = make(0, quantized=True)
    before = full_search(queries, leaves, 6)
    monkeypatch.setattr(module, "_CAST_AT_ONCE", leaves_at_once * Q * D)
    cast, sizes = tf.cast, []

    def seen(values, dtype):
        if values.dtype == tf.int8:
            sizes.append(values.shape[0])
        return cast(values, dtype)

    monkeypatch.setattr(module.tf, "cast", seen)
    after = full_search(queries, leaves, 6)
    assert sum(sizes) == L and max(sizes) == leaves_at_once
    traced = tf.function(full_search)(queries, leaves, 6)
    for ours, graph, theirs in zip(after, traced, before, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        np.testing.assert_allclose(graph, theirs, rtol=1e-6)


def test_row_vectors():
    leaves, vectors, _, _ = make(1, quantized=True)
    rows = np.array([[0, 5, -1], [R, 3, 3]], np.int32)
    used = in_use(leaves)
    wanted = [
        [vectors[row] if row in used else np.zeros(D) for row in line] for line in rows
    ]
    np.testing.assert_array_equal(row_vectors(leaves, tf.constant(rows)), wanted)


def test_scores_come_from_originals_where_there_are_some():
    leaves, vectors, queries, _ = make(2)
    exact = leaves._replace(originals=tf.constant(vectors + 0.25))
    for reordered in (R, None):
        scores, rows = leaf_search(
            queries,
            exact,
            3,
            num_leaves_to_search=4,
            num_reordering_candidates=reordered,
        )
        stored = vectors + (0.25 if reordered else 0)
        products = np.einsum("bkd,bd->bk", stored[rows.numpy()], queries)
        np.testing.assert_allclose(scores, products, rtol=1e-5, atol=1e-5)


def test_sizes_unknown_when_the_graph_is_built():
    leaves, _, queries, draw = make(1, ways=2)
    function = tf.function(
        lambda q, e: leaf_search(q, leaves, 4, num_leaves_to_search=3, excluded=e),
        input_signature=[
            tf.TensorSpec([None, D], tf.float32),
            tf.TensorSpec([None, None], tf.int32),
        ],
    )
    for width in (0, 3):
        excluded = draw.integers(-1, R, (B, width)).astype(np.int32)
        for ours, theirs in zip(
            function(queries, excluded),
            leaf_search(
                queries,
                leaves,
                4,
                num_leaves_to_search=3,
                excluded=tf.constant(excluded),
            ),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
