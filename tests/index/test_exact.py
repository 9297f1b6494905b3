"""`ExactTopK` beyond what TFRS' `BruteForce` does."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_selfattn._keras import keras
from tfrs_selfattn.index import ExactTopK
from tfrs_selfattn.index import identifiers as naming
from tfrs_selfattn.ops.top_k import LOWEST_SCORE

NAMES = ["tea", "milk", "bread", "salt", "rice"]


@pytest.fixture
def pantry():
    """Five candidates on a line: for a positive query, best first is the order."""
    candidates = tf.constant([[5.0], [4.0], [3.0], [2.0], [1.0]])
    return ExactTopK(k=3).index(candidates, tf.constant(NAMES))


def text(identifiers):
    return [[name.decode() for name in row] for row in identifiers.numpy()]


def test_k_beyond_the_catalogue_is_padded():
    candidates = tf.constant([[1.0], [2.0]])
    scores, identifiers = ExactTopK(k=4).index(candidates, tf.constant(["a", "b"]))(
        tf.constant([[1.0]])
    )
    assert text(identifiers) == [["b", "a", "", ""]]
    np.testing.assert_array_equal(scores, [[2, 1, LOWEST_SCORE, LOWEST_SCORE]])
    assert np.isfinite(scores).all()
    for dtype in (np.int32, np.int64):
        index = ExactTopK(k=4).index(candidates, np.array([7, 0], dtype))
        identifiers = index(tf.constant([[1.0]]))[1]
        assert identifiers.dtype == dtype
        np.testing.assert_array_equal(identifiers, [[0, 7, -1, -1]])


def test_excluding_everything_leaves_padding_only(pantry):
    queries = tf.ones([2, 1])
    scores, identifiers = pantry.query_with_exclusions(
        queries, tf.constant([NAMES, [""] * 5])
    )
    assert text(identifiers) == [["", "", ""], ["tea", "milk", "bread"]]
    np.testing.assert_array_equal(scores[0], [LOWEST_SCORE] * 3)


@pytest.mark.parametrize(
    ("exclusions", "answer"),
    [
        (["tea", "tea", "tea"], ["milk", "bread", "salt"]),
        (["beer", "wine"], ["tea", "milk", "bread"]),
        (["", "tea", ""], ["milk", "bread", "salt"]),
        (["", ""], ["tea", "milk", "bread"]),
        (["milk", "beer", "", "milk", "tea"], ["bread", "salt", "rice"]),
        (["milk", "tea", "salt"], ["bread", "rice", ""]),
        ([], ["tea", "milk", "bread"]),
    ],
)
def test_exclusions_of_any_kind(pantry, exclusions, answer):
    exclusions = tf.constant([exclusions], tf.string, shape=[1, len(exclusions)])
    _, identifiers = pantry.query_with_exclusions(tf.ones([1, 1]), exclusions)
    assert text(identifiers) == [answer]


def test_integer_exclusions_are_never_taken_for_others():
    index = ExactTopK(k=2).index(tf.constant([[3.0], [2.0], [1.0]]))
    # As an int32, 2**32 would be the identifier 0.
    exclusions = tf.constant([[2**32, -1, 99, 1, 1]], tf.int64)
    _, identifiers = index.query_with_exclusions(tf.ones([1, 1]), exclusions)
    np.testing.assert_array_equal(identifiers, [[0, 2]])


def test_sizes_unknown_when_the_graph_is_built(pantry, tmp_path):
    class Server(tf.Module):
        def __init__(self):
            super().__init__()
            self.index = pantry

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 1], tf.float32, name="queries"),
                tf.TensorSpec([None, None], tf.string, name="exclude"),
            ]
        )
        def serve(self, queries, exclude):
            scores, ids = self.index.query_with_exclusions(queries, exclude)
            return {"scores": scores, "ids": ids}

    server = Server()
    tf.saved_model.save(server, str(tmp_path), signatures=server.serve)
    serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    answer = serve(
        queries=tf.constant([[1.0], [-1.0]]),
        exclude=tf.constant([["milk", "beer", "", "milk"], [""] * 4]),
    )
    assert text(answer["ids"]) == [["tea", "bread", "salt"], ["rice", "salt", "bread"]]
    answer = serve(queries=tf.ones([1, 1]), exclude=tf.zeros([1, 0], tf.string))
    assert text(answer["ids"]) == [["tea", "milk", "bread"]]
    assert answer["ids"].shape == (1, 3)


def test_rows_are_independent(pantry):
    queries = tf.constant([[1.0], [np.nan], [-1.0]])
    exclusions = tf.constant([["tea"], ["tea"], [""]])
    scores, identifiers = pantry.query_with_exclusions(queries, exclusions)
    assert text(identifiers) == [
        ["milk", "bread", "salt"],
        ["", "", ""],
        ["rice", "salt", "bread"],
    ]
    assert np.isfinite(scores).all()


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.data())
def test_exclusions_equal_loops(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    num_candidates = data.draw(st.integers(1, 9))
    names = [f"item {number}" for number in rng.permutation(num_candidates)]
    candidates = rng.integers(-2, 3, (num_candidates, 2)).astype(np.float32)
    queries = rng.integers(-2, 3, (3, 2)).astype(np.float32)
    pool = [*names, "", "unknown"]
    exclusions = rng.choice(pool, (3, data.draw(st.integers(1, 12))))
    k = data.draw(st.integers(1, 11))
    index = ExactTopK(k=k).index(candidates, tf.constant(names))
    scores, identifiers = index.query_with_exclusions(queries, exclusions)
    for b in range(3):
        eligible = [
            (float(np.dot(queries[b], candidates[row])), -row)
            for row in range(num_candidates)
            if names[row] not in exclusions[b]
        ]
        best = sorted(eligible, reverse=True)[:k]
        expected = [(score, names[-row]) for score, row in best]
        expected += [(LOWEST_SCORE, "")] * (k - len(best))
        assert list(scores.numpy()[b]) == [score for score, _ in expected]
        assert text(identifiers)[b] == [name for _, name in expected]


@pytest.mark.parametrize("k", [1, 100])
def test_a_large_catalogue_equals_brute_force_bit_for_bit(k):
    rng = np.random.default_rng(0)
    # Few directions, so that scores tie.
    candidates = rng.integers(-3, 4, (30_011, 8)).astype(np.float32)
    queries = rng.normal(size=(3, 8)).astype(np.float32)
    ours = ExactTopK(k=k).index(candidates)(queries)
    theirs = tfrs.layers.factorized_top_k.BruteForce(k=k).index(candidates)(queries)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_saved_without_a_call_before(pantry, tmp_path):
    tf.saved_model.save(pantry, str(tmp_path))
    restored = tf.saved_model.load(str(tmp_path))
    assert text(restored(tf.constant([[-1.0], [1.0]]))[1]) == [
        ["rice", "salt", "bread"],
        ["tea", "milk", "bread"],
    ]


def test_the_graph_does_not_grow_with_the_catalogue(tmp_path):
    sizes = {}
    for number in (20_480, 204_800):
        index = ExactTopK(k=3).index(
            tf.ones([number, 2]), tf.strings.as_string(tf.range(number))
        )
        index.query_with_exclusions(tf.ones([1, 2]), tf.constant([["3"]]))
        path = tmp_path / str(number)
        tf.saved_model.save(index, str(path))
        sizes[number] = (path / "saved_model.pb").stat().st_size
    small, large = sizes.values()
    assert abs(large - small) < 200  # Digits of shapes, not 8 bytes a candidate.


def test_an_index_of_the_same_shape_takes_the_place_of_the_old_in_a_graph(pantry):
    query = tf.function(lambda q: pantry(q)[1])
    assert text(query(tf.ones([1, 1])))[0][0] == "tea"
    pantry.index(tf.constant([[1.0], [2.0], [3.0], [4.0], [5.0]]), tf.constant(NAMES))
    assert text(query(tf.ones([1, 1])))[0][0] == "rice"


def test_predict_follows_a_new_index(pantry):
    assert pantry.predict(np.ones([1, 1]), verbose=0)[1].tolist()[0][0] == b"tea"
    pantry.index(tf.constant([[1.0], [9.0]]), tf.constant(["a", "b"]))
    assert pantry.predict(np.ones([1, 1]), verbose=0)[1].tolist() == [[b"b", b"a", b""]]


def query_tower():
    return keras.Sequential(
        [keras.Input(shape=(2,)), keras.layers.Dense(1, kernel_initializer="ones")]
    )


@pytest.mark.parametrize(
    "identifiers",
    [
        np.array(["tea", "mílk", "a\nb"]),
        np.array([5, 2**31 - 1, 0], np.int32),
        np.array([5, 2**60, 0], np.int64),
        None,
    ],
    ids=["string", "int32", "int64", "none"],
)
@pytest.mark.parametrize("with_query_model", [False, True])
def test_keras_file_restores_everything(identifiers, with_query_model, tmp_path):
    index = ExactTopK(query_tower() if with_query_model else None, k=4, name="top")
    candidates = np.array([[1.5], [2.5], [-3.5]], np.float32)
    index.index(candidates, None if identifiers is None else tf.constant(identifiers))
    queries = tf.constant([[1.0, 2.0], [-4.0, 1.0]])
    queries = queries if with_query_model else queries[:, :1]
    before = index(queries)
    index.save(tmp_path / "index.keras")
    restored = keras.models.load_model(tmp_path / "index.keras")
    assert type(restored) is ExactTopK
    assert restored.name == "top"
    after = restored(queries)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
    assert after[1].dtype == before[1].dtype
    exclusions = before[1][:, :1]
    np.testing.assert_array_equal(
        restored.query_with_exclusions(queries, exclusions)[1],
        index.query_with_exclusions(queries, exclusions)[1],
    )


def test_keras_file_of_an_empty_index_restores_it_empty(tmp_path):
    index = ExactTopK(query_tower(), k=4)
    index.query_model(tf.zeros([1, 2]))
    with pytest.warns(UserWarning, match="not yet been built"):
        index.save(tmp_path / "index.keras")
    restored = keras.models.load_model(tmp_path / "index.keras")
    with pytest.raises(ValueError, match="must hold candidates before it is queried"):
        restored(tf.zeros([1, 2]))


def test_config_covers_the_constructor():
    config = ExactTopK(k=7, name="seven").get_config()
    assert set(inspect.signature(ExactTopK).parameters) == set(config)
    assert ExactTopK.from_config(config).get_config() == config


def test_strings_with_one_fingerprint_are_told_apart(monkeypatch):
    names = [f"item {number}" for number in range(12)]
    monkeypatch.setattr(naming, "_FINGERPRINTS", 29)
    keys = naming.keys_of(tf.constant(names)).numpy()
    _, counts = np.unique(keys, return_counts=True)
    assert counts.max() == 2  # Else this test would show nothing.
    index = ExactTopK(k=12).index(-tf.range(12.0)[:, tf.newaxis], tf.constant(names))
    for name in names:
        _, identifiers = index.query_with_exclusions(
            tf.ones([1, 1]), tf.constant([[name]])
        )
        assert text(identifiers)[0] == [n for n in names if n != name] + [""]
    _, identifiers = index.query_with_exclusions(
        tf.ones([1, 1]), tf.constant([[f"unknown {n}" for n in range(99)]])
    )
    assert text(identifiers)[0] == names
    with pytest.raises(ValueError, match="must be unique"):
        index.index(tf.ones([13, 1]), tf.constant([*names, "item 4"]))
    monkeypatch.setattr(naming, "_FINGERPRINTS", 2)
    with pytest.raises(ValueError, match="must not share fingerprints"):
        index.index(tf.ones([12, 1]), tf.constant(names))


@pytest.mark.parametrize(
    ("candidates", "identifiers", "message"),
    [
        ([[1.0], [np.nan], [1.0]], None, r"must be finite.*in 1 rows.*row 1\."),
        ([[1.0], [1.0], [-np.inf]], None, r"must be finite.*row 2\."),
        (np.zeros([0, 3]), None, r"at least one candidate.*shape \(0, 3\)"),
        (np.zeros([3]), None, r"must be a matrix.*shape \(3,\)"),
        (np.zeros([3, 1], np.int32), None, r"must be floating point.*int32"),
        (np.zeros([3, 1]), ["a", "b"], r"each of the 3 candidates once.*\(2,\)"),
        (np.zeros([3, 1]), [["a"], ["b"], ["c"]], r"each of the 3.*\(3, 1\)"),
        (np.zeros([3, 1]), ["a", "b", "a"], r"must be unique.*'a' in rows 0 and 2"),
        (np.zeros([3, 1]), [4, 5, 5], r"must be unique.*5 in rows 1 and 2"),
        (np.zeros([3, 1]), ["a", "", "b"], r"must not contain ''.*row 1"),
        (np.zeros([3, 1]), [0, 1, -1], r"must not contain -1.*row 2"),
        (np.zeros([3, 1]), [0.0, 1.0, 2.0], r"string, int32, int64. Received: float32"),
    ],
)
def test_errors_of_index(candidates, identifiers, message):
    identifiers = None if identifiers is None else tf.constant(identifiers)
    with pytest.raises(ValueError, match=message):
        ExactTopK().index(tf.constant(candidates), identifiers)


def test_a_failed_index_leaves_the_old_one(pantry):
    with pytest.raises(ValueError, match="must be unique"):
        pantry.index(tf.ones([2, 1]), tf.constant(["a", "a"]))
    assert text(pantry(tf.ones([1, 1]))[1]) == [["tea", "milk", "bread"]]


def test_errors_of_index_from_dataset():
    rows = tf.data.Dataset.from_tensor_slices(np.zeros([4, 2], np.float32)).batch(2)
    with pytest.raises(ValueError, match=r"at least one batch.*empty dataset"):
        ExactTopK().index_from_dataset(rows.take(0))
    with pytest.raises(ValueError, match=r"pairs \(identifiers, embeddings\)"):
        ExactTopK().index_from_dataset(tf.data.Dataset.zip((rows, rows, rows)))


def test_errors_of_queries(pantry):
    with pytest.raises(ValueError, match=r"embeddings \[queries, 1\].*\(2, 3\)"):
        pantry(tf.zeros([2, 3]))
    with pytest.raises(ValueError, match=r"embeddings \[queries, 1\].*\(1, 2, 2\)"):
        pantry(tf.zeros([1, 2, 2]))
    with pytest.raises(ValueError, match=r"which are string. Received: int32"):
        pantry.query_with_exclusions(tf.ones([1, 1]), tf.constant([[1]]))
    with pytest.raises(ValueError, match=r"`k` must be a positive integer"):
        pantry(tf.ones([1, 1]), k=0)
    with pytest.raises(ValueError, match=r"`k` must be a positive integer"):
        ExactTopK(k=0)


def test_half_precision_towers_work():
    candidates = tf.constant([[1.0], [2.0]], tf.float16)
    scores, _ = ExactTopK(k=1).index(candidates)(tf.constant([[3.0]], tf.bfloat16))
    assert scores.dtype == tf.float32
    np.testing.assert_array_equal(scores, [[6.0]])
