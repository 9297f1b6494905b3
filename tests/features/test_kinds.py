"""Each kind of feature against the same in plain Python, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tfrs_selfattn import InputError
from tfrs_selfattn.features import (
    Category,
    FeatureEncoder,
    FeatureSet,
    MultiCategory,
    Number,
    Text,
    Vector,
)


def strings(*values):
    return np.array([value.encode() for value in values], object)


def numbers(*values):
    return np.array(values, np.float32)


def fitted(feature, values):
    return FeatureSet((feature.fit(values, "here"),))


def encoded(features, values):
    """Per value, what it adds: {token: weight} and the dense numbers."""
    (feature,) = features
    tokens, weights, dense = FeatureEncoder(features)({feature.name: values})
    found = []
    for row, scales in zip(tokens.numpy(), weights.numpy(), strict=True):
        sums = {}
        for token, weight in zip(row.tolist(), scales.tolist(), strict=True):
            if weight:
                sums[token] = sums.get(token, 0.0) + weight
        found.append(sums)
    return found, dense.numpy().tolist()


def test_a_category_has_its_own_token_when_training_shows_it_often_enough():
    features = fitted(Category("brand"), strings("a", " a ", "b", "b", "b", "c", ""))
    assert features["brand"].vocabulary == ("b", "a")
    rows, _ = encoded(features, strings("b", "a\t", "c", "never", "", "  "))
    # 0 is missing, 1 rare and unknown ones, then the vocabulary.
    assert rows == [{2: 1}, {3: 1}, {1: 1}, {1: 1}, {0: 1}, {0: 1}]


def test_what_training_never_showed_adds_nothing():
    features = fitted(Category("brand", min_count=1), strings("a", "b"))
    rows, _ = encoded(features, strings("a", "new", ""))
    assert rows == [{2: 1}, {}, {}]


def test_rare_categories_fall_into_hash_buckets_by_name():
    rare = [f"rare {number}" for number in range(200)]
    features = fitted(Category("brand", hash_buckets=7), strings("a", "a", *rare))
    rows, _ = encoded(features, strings(*rare, *rare, "a", ""))
    assert rows[:200] == rows[200:400]
    assert {token for row in rows[:200] for token in row} == set(range(1, 8))
    assert rows[400:] == [{8: 1}, {}]


def test_the_categories_of_a_value_are_added_and_scaled():
    values = strings("Comedy|Drama", "Drama| War |", "", "War|Drama", "Once")
    features = fitted(MultiCategory("genres"), values)
    assert features["genres"].vocabulary == ("Drama", "War")
    rows, _ = encoded(features, strings("War|Drama", "War", "Drama|New", "", "||"))
    half = pytest.approx(math.sqrt(0.5))
    assert rows == [{2: half, 3: half}, {3: 1}, {2: half, 1: half}, {0: 1}, {0: 1}]


def test_lists_in_parquet_are_values_of_several_categories():
    column = pl.Series("genres", [["a", "b"], None, ["a", None]])
    assert MultiCategory("genres").read(column, "here").tolist() == [b"a|b", b"", b"a"]
    codes = pl.Series("genres", [[1, 2], []])
    assert MultiCategory("genres").read(codes, "here").tolist() == [b"1|2", b""]


def test_a_number_is_normalized_clipped_and_may_be_missing():
    features = fitted(Number("price"), numbers(1, 3, np.nan))
    _, dense = encoded(features, numbers(1, 3, 2, np.nan, 99, -99, np.inf, -np.inf))
    inside = [[-1, 0], [1, 0], [0, 0], [0, 1]]
    assert dense == [*inside, [1, 0], [-1, 0], [1, 0], [-1, 0]]


def test_without_missing_numbers_in_training_a_missing_one_is_the_mean():
    _, dense = encoded(fitted(Number("price"), numbers(1, 3)), numbers(np.nan))
    assert dense == [[0, 0]]


def test_amounts_are_normalized_by_their_logarithms():
    values = np.expm1(np.array([0.0, 1.0, 2.0])).astype(np.float32)
    _, dense = encoded(fitted(Number("price", log=True), values), values)
    deviation = math.sqrt(2 / 3)
    wanted = [[-1 / deviation, 0], [0, 0], [1 / deviation, 0]]
    np.testing.assert_allclose(dense, wanted, atol=1e-6)


def test_buckets_hold_about_equally_many_values():
    draw = np.random.default_rng(0).permutation(1000).astype(np.float32)
    features = fitted(Number("price", buckets=5), draw)
    rows, dense = encoded(features, draw)
    tokens = [next(iter(row)) for row in rows]
    assert np.bincount(tokens).tolist() == [0, 200, 200, 200, 200, 200]
    # In the order of the values, and those beyond in the outermost.
    order = np.argsort(draw)
    assert (np.diff(np.array(tokens)[order]) >= 0).all()
    assert encoded(features, numbers(-5, 5000, np.nan))[0] == [{1: 1}, {5: 1}, {}]
    assert dense == [[]] * 1000


def test_a_number_that_hardly_varies_has_fewer_buckets():
    features = fitted(Number("price", buckets=4), numbers(*[5] * 99, 7))
    rows, _ = encoded(features, numbers(5, 6, 7))
    assert rows[0] == rows[1]
    assert fitted(Number("price"), numbers(5, 5))["price"].deviation == 1.0


def test_words_and_pairs_of_words_make_tokens_whatever_their_case():
    values = strings("Toy Story (1995)", "toy   STORY 2 (1999)", "Jumanji", "")
    features = fitted(Text("title"), values)
    # toy, story and "toy story" are in two titles, all others in one.
    assert features.num_tokens == 3
    rows, _ = encoded(features, strings("Toy-Story", "a toy", "Jumanji", ""))
    assert sorted(rows[0]) == [0, 1, 2]
    assert list(rows[0].values()) == pytest.approx([math.sqrt(1 / 3)] * 3)
    assert list(rows[1].values()) == [1]
    assert rows[1].keys() < rows[0].keys()
    assert rows[2:] == [{}, {}]


def test_pieces_of_words_find_what_words_do_not():
    values = strings("running", "runner", "cat", "concatenate")
    features = fitted(Text("title", words=1, letters=3), values)
    both, other = encoded(features, strings("runs", "dog"))[0]
    assert both and not other
    assert not encoded(fitted(Text("title"), values), strings("runs"))[0][0]


def test_letters_of_any_script_are_lowered():
    features = fitted(Text("title"), strings("ÄPFEL Москва", "äpfel москва"))
    assert features.num_tokens == 3


@pytest.mark.parametrize("text", [b"\xff\xfe caf\xe9", b"\x00", b"\xf0\x9f\x92"])
def test_bytes_that_are_no_text_are_no_error(text):
    features = FeatureSet(
        (
            Text("title", letters=3).fit(strings("a b", "a b"), "here"),
            Category("brand").fit(strings("a", "a"), "here"),
            MultiCategory("genres").fit(strings("a", "a"), "here"),
        )
    )
    raw = {name: tf.constant([text, b"a"]) for name in features.names}
    encode = FeatureEncoder(features)
    alone = encode({name: values[1:] for name, values in raw.items()})
    _, weights, _ = encode(raw)
    assert weights[1].numpy().sum() == alone.weights[0].numpy().sum() > 0


def test_vectors_are_centred_and_scaled_to_a_mean_length_of_one():
    draw = np.random.default_rng(0).normal(3, 2, [50, 5]).astype(np.float32)
    draw[7] = 0
    features = fitted(Vector("image"), draw)
    _, dense = encoded(features, draw)
    dense = np.array(dense)
    known = np.arange(50) != 7
    np.testing.assert_allclose(dense[known].mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(dense[known], axis=1).mean() == pytest.approx(1)
    assert not dense[7].any()
    spoilt = draw[:1].copy()
    spoilt[0, 2] = np.nan
    assert np.isfinite(encoded(features, spoilt)[1]).all()


@pytest.mark.parametrize(
    ("feature", "column", "message"),
    [
        (Number("p"), ["1", "x"], r"here, column 'p' must hold finite .*'x' in row 2"),
        (Number("p"), ["1", "inf"], r"column 'p' .*Received: 'inf' in row 2"),
        (Number("p"), [1.0, math.inf], r"column 'p' .*Received: inf in row 2"),
        (Number("p"), [1.0, 1e39], r"column 'p' .*Received: 1e\+39 in row 2"),
        (Number("p", log=True), [0, -1], r"column 'p' must hold finite .* 0 or more.*"),
        (Number("p"), [[1.0]], r"column 'p' must hold numbers. Received: List"),
        (Category("p"), [["a"]], r"column 'p' must hold one value a row .*'category'"),
        (Vector("p"), ["a"], r"column 'p' must hold lists of numbers"),
        (Vector("p"), [[1.0, 2.0], [1.0]], r"lists of 2 numbers. Received: 1 in row 2"),
        (Vector("p"), [[1.0], [math.nan]], r"column 'p' must hold finite .*row 2"),
    ],
)
def test_values_that_are_refused(feature, column, message):
    with pytest.raises(InputError, match=message):
        feature.read(pl.Series("p", column), "here")


def test_empty_and_nan_are_missing_numbers():
    column = pl.Series("p", ["1", " ", None, "nan", " 2 "])
    np.testing.assert_array_equal(
        Number("p").read(column, "here"), numbers(1, np.nan, np.nan, np.nan, 2)
    )


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (Number("p"), numbers(np.nan), "column 'p' must hold at least one number"),
        (Vector("p"), np.zeros([2, 3], np.float32), "'p' must hold at least one vec"),
    ],
)
def test_nothing_to_fit_is_refused(feature, values, message):
    with pytest.raises(InputError, match=message):
        feature.fit(values, "here")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Category("history"), "`name` must be a name that is none of history"),
        (lambda: Category("b", min_count=0), "`min_count` must be a positive integer"),
        (lambda: MultiCategory("b", separator=" "), "`separator` must be a character"),
        (lambda: Text("b", buckets=0), "`buckets` must be a positive integer"),
        (lambda: FeatureSet((Number("a"), Text("a"))), "own. Received: a more than"),
    ],
)
def test_declarations_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_not_fitted_cannot_be_encoded():
    with pytest.raises(ValueError, match="`features` must be fitted"):
        FeatureEncoder(FeatureSet((Category("brand"),)))
