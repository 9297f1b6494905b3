"""A `PartitionedTopK` in use: candidates added, replaced, removed; tuning and drift."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.index import ExactTopK, PartitionedTopK

D, K = 7, 5
VARIANTS = {
    "float32": {},
    "int8, spill": {
        "quantization": "int8",
        "num_reordering_candidates": 30,
        "spill": True,
    },
    "xla": {"quantization": "int8", "num_reordering_candidates": 30, "xla": True},
}


def vectors(rows, seed):
    centers = np.random.default_rng(0).normal(size=(40, D))
    draw = np.random.default_rng(seed)
    return (
        centers[draw.integers(0, 40, rows)] + 0.4 * draw.normal(size=(rows, D))
    ).astype(np.float32)


def names(first, last):
    return np.array([f"item {number}" for number in range(first, last)])


QUERIES = vectors(40, 9)


def build(candidates, identifiers, num_leaves_to_search, **variant):
    index = PartitionedTopK(
        k=K, num_leaves=29, num_leaves_to_search=num_leaves_to_search, **variant
    )
    return index.index(candidates, tf.constant(identifiers))


def assert_holds(index, catalogue, lists):
    """The index, searched whole, answers as an exact one over the catalogue does."""
    identifiers = np.array(list(catalogue))
    candidates = np.stack(list(catalogue.values()))
    exact = ExactTopK(k=K).index(candidates, tf.constant(identifiers))
    found = index.query_with_exclusions(QUERIES, lists)[1].numpy()
    best = exact.query_with_exclusions(QUERIES, lists)[1].numpy()
    np.testing.assert_array_equal(found, best)
    np.testing.assert_array_equal(
        index.query_among(QUERIES, lists)[1], exact.query_among(QUERIES, lists)[1]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_equal_an_index_of_what_is_left(variant):
    candidates, identifiers = vectors(500, 1), names(0, 500)
    index = build(candidates, identifiers, 29, **VARIANTS[variant])
    catalogue = dict(zip(identifiers, candidates, strict=True))
    lists = np.random.default_rng(2).choice(names(0, 900), (40, 30))

    index.remove(tf.constant([*names(100, 180), "unknown", ""]))
    for name in names(100, 180):
        del catalogue[name]
    assert_holds(index, catalogue, lists)

    # Some replaced, some new in the place of removed ones.
    changed = vectors(90, 3)
    index.add(changed, tf.constant(names(460, 550)))
    catalogue.update(zip(names(460, 550), changed, strict=True))
    assert_holds(index, catalogue, lists)

    # More than there is room for: the variables grow.
    slots = index._members.shape[0]
    added = vectors(400, 4)
    index.add(added, tf.constant(names(550, 950)))
    catalogue.update(zip(names(550, 950), added, strict=True))
    assert index._members.shape[0] > slots
    index.num_leaves_to_search = int(index._members.shape[0])
    index._reset_tf_function_cache()
    assert_holds(index, catalogue, lists)
    assert index.drift().size == len(catalogue)


def test_new_candidates_are_found_by_a_search_of_few_leaves():
    index = build(vectors(2_000, 1), names(0, 2_000), 6)
    index.add(vectors(400, 3), tf.constant(names(2_000, 2_400)))
    everything = np.concatenate([vectors(2_000, 1), vectors(400, 3)])
    exact = ExactTopK(k=K).index(everything, tf.constant(names(0, 2_400)))
    best, found = exact(QUERIES)[1].numpy(), index(QUERIES)[1].numpy()
    hits = [len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]
    assert sum(hits) / best.size > 0.9  # seen: .955


def test_drift_says_when_to_rebuild():
    index = build(vectors(500, 1), names(0, 500), 4)
    before = index.drift()
    assert (before.size, before.changed, before.rebuild) == (500, 0, False)
    assert before.recall == pytest.approx(before.recall_built) and before.recall > 0.8
    assert 0 < before.free < 0.3
    index.remove(tf.constant(names(0, 50)))
    assert index.drift().changed == pytest.approx(50 / 450)
    assert not index.drift().rebuild
    index.remove(tf.constant(names(50, 300)))
    assert index.drift().rebuild


def test_a_catalogue_of_which_nothing_is_left():
    index = build(vectors(60, 1), names(0, 60), 4)
    index.remove(tf.constant(names(0, 60)))
    assert set(index(QUERIES)[1].numpy().ravel()) == {b""}
    index.add(vectors(3, 2), tf.constant(names(7, 10)))
    answer = index(QUERIES[:1])[1].numpy()[0]
    assert set(answer) == {b"item 7", b"item 8", b"item 9", b""}


def test_an_updated_index_is_saved_and_restored(tmp_path):
    index = build(vectors(500, 1), names(0, 500), 4)
    index.remove(tf.constant(names(0, 50)))
    index.add(vectors(200, 2), tf.constant(names(600, 800)))
    index.save(tmp_path / "index.keras")
    restored = tf.keras.models.load_model(tmp_path / "index.keras")
    np.testing.assert_array_equal(restored(QUERIES)[1], index(QUERIES)[1])
    restored.remove(tf.constant(names(600, 610)))
    assert restored.drift().size == 640


def test_integers_as_identifiers():
    index = PartitionedTopK(k=K, num_leaves=5).index(vectors(50, 1))
    index.add(vectors(1, 2), np.array([70], np.int64))
    index.remove([0, 1, 2, 99])
    found = index(vectors(1, 2))[1].numpy()
    assert found.dtype == np.int32 and not {0, 1, 2} & set(found[0])
    index.remove(np.array([2**32 + 5], np.int64))  # Not the same as 5.
    assert index.drift().size == 48
    with pytest.raises(ValueError, match=r"must fit int32.*: 4294967301.*int64"):
        index.add(vectors(1, 2), np.array([2**32 + 5], np.int64))


@pytest.mark.parametrize(("new", "kept"), [([50, 51], False), ([51, 50], True)])
def test_rows_are_called_by_their_numbers_as_long_as_they_can(new, kept):
    candidates = vectors(52, 1)
    index = PartitionedTopK(k=52, num_leaves=5).index(candidates[:50])
    index.remove([3, 99])
    queries = candidates[[3, *new]]
    assert 3 not in index(queries)[1].numpy()
    assert 3 not in index.query_among(queries, [[3, 7, 99]] * 3)[1].numpy()
    assert len(index.get_weights()) == 5  # neither identifiers nor what finds them
    index.add(candidates[[3, *new]], [3, *new])
    assert len(index.get_weights()) == (8 if kept else 5)
    exact = ExactTopK(k=52).index(candidates)
    lists = [[3, 51, 7], [50, -1, 60], [2**31 - 1, 9, 9]]
    for method in ("query_with_exclusions", "query_among"):
        np.testing.assert_array_equal(
            getattr(index, method)(queries, lists)[1],
            getattr(exact, method)(queries, lists)[1],
        )
    index.remove(new)
    assert index.drift().size == 50


def test_errors_of_updates():
    index = build(vectors(60, 1), names(0, 60), 4)
    with pytest.raises(ValueError, match=r"must hold candidates before it is changed"):
        PartitionedTopK().remove(["a"])
    with pytest.raises(ValueError, match=rf"must be {D} wide.*width 2.*same model"):
        index.add(np.ones([1, 2], np.float32), ["a"])
    with pytest.raises(ValueError, match=r"must be string.*int32"):
        index.add(vectors(1, 1), [5])
    with pytest.raises(ValueError, match=r"must be unique.*'a' in rows 0 and 1"):
        index.add(vectors(2, 1), ["a", "a"])
    with pytest.raises(ValueError, match=r"must be finite"):
        index.add(np.full([1, D], np.nan, np.float32), ["a"])
    assert index.drift().size == 60


def test_tune_reaches_the_target_with_the_least_work():
    index = build(vectors(3_000, 1), names(0, 3_000), 1)
    done = index.tune(QUERIES, 0.95)
    assert done.chosen.recall >= 0.95
    assert index.num_leaves_to_search == done.chosen.num_leaves_to_search < 29
    cheaper = [point for point in done.curve if point.cost < done.chosen.cost]
    assert cheaper and all(point.recall < 0.95 for point in cheaper)
    exact = ExactTopK(k=K).index(vectors(3_000, 1), tf.constant(names(0, 3_000)))
    best, found = exact(QUERIES)[1].numpy(), index(QUERIES)[1].numpy()
    hits = [len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]
    assert sum(hits) / best.size == pytest.approx(done.chosen.recall)


def test_tune_tries_leaves_and_reordering():
    index = build(
        vectors(3_000, 1),
        names(0, 3_000),
        1,
        quantization="int8",
        num_reordering_candidates=5,
    )
    done = index.tune(QUERIES, 0.9, num_leaves=[10, 80])
    assert {point.num_leaves for point in done.curve} == {10, 80}
    assert {point.num_reordering_candidates for point in done.curve} > {5, 10}
    assert index.get_weights()[0].shape[0] == done.chosen.num_leaves
    again = index.tune(QUERIES, 0.9, num_leaves=[10, 80])
    assert again == done  # nothing in it depends on the machine or on the past


def test_tune_compares_with_the_candidates_if_it_is_given_them():
    candidates = vectors(1_000, 1)
    options = {"quantization": "int8", "training_iterations": 2}
    index = PartitionedTopK(k=K, **options).index(candidates)
    flattered = index.tune(QUERIES, 1.0, num_leaves="auto")
    assert flattered.chosen.recall == 1  # of what rounding left
    assert {point.num_leaves for point in flattered.curve} == {15, 31, 62}
    honest = index.tune(QUERIES, 1.0, num_leaves=[31], candidates=candidates)
    assert 0.9 < honest.chosen.recall < 1  # seen: .945
    index.index(candidates)
    exact = ExactTopK(k=K).index(candidates)
    best, found = exact(QUERIES)[1].numpy(), index(QUERIES)[1].numpy()
    hits = [len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]
    assert sum(hits) / best.size == pytest.approx(honest.chosen.recall)


def test_errors_of_tune():
    index = build(vectors(60, 1), names(0, 60), 4)
    with pytest.raises(ValueError, match=r"`num_leaves` must be one of 'auto'.*many"):
        index.tune(QUERIES, 0.9, num_leaves="many")
    for candidates in (vectors(61, 1), vectors(60, 1)[:, 1:]):
        with pytest.raises(ValueError, match=r"in their order: 60 of width 7.*Leave"):
            index.tune(QUERIES, 0.9, candidates=candidates)
    with pytest.raises(ValueError, match=r"`target_recall` must be above 0.*=1.5"):
        index.tune(QUERIES, 1.5)
    with pytest.raises(ValueError, match=r"`queries` must be embeddings.*interest"):
        index.tune(QUERIES[np.newaxis], 0.9)
    with pytest.raises(ValueError, match=r"must hold candidates"):
        PartitionedTopK().tune(QUERIES, 0.9)
