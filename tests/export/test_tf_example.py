"""Serialized tf.Examples, the good and the bad."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.export.tf_example import decode_examples


def serialized(**features):
    def feature(values):
        if all(isinstance(value, int) for value in values) and values:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        values = [v if isinstance(v, bytes) else v.encode() for v in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    features = {name: feature(values) for name, values in features.items()}
    features = tf.train.Features(feature=features)
    return tf.train.Example(features=features).SerializeToString()


GOOD = serialized(history=["item 3", "item 14"], exclude=["item 1"])
BAD = {
    "no tf.Example": b"\xff\xff\xff",
    "cut short": GOOD[:-3],
    "integers for ids": serialized(history=[3, 14]),
    "text": b"not an example",
}


def rows(tensor):
    return [[item for item in row if item] for row in tensor.numpy().tolist()]


def test_lists_of_any_length_are_padded_on_the_right():
    examples = [
        GOOD,
        serialized(history=["item 9"]),
        serialized(exclude=["a", "b"]),
        b"",
    ]
    history, exclude, *_, readable, _ = decode_examples(tf.constant(examples))
    assert rows(history) == [[b"item 3", b"item 14"], [b"item 9"], [], []]
    assert rows(exclude) == [[b"item 1"], [], [b"a", b"b"], []]
    assert history.shape == (4, 2)
    assert readable.numpy().all()


def test_features_for_later_are_skipped():
    example = serialized(history=["item 3"], timestamps=[7], request_time=[8], x=["y"])
    history, *_, readable, _ = decode_examples(tf.constant([example]))
    assert rows(history) == [[b"item 3"]]
    assert readable.numpy().all()


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_example_leaves_its_neighbours_alone(bad):
    others = [GOOD, serialized(history=["x", "y", "z"]), b""]
    history, exclude, *_, readable, _ = decode_examples(
        tf.constant([bad, others[0], bad, *others[1:], bad])
    )
    assert readable.numpy().tolist() == [False, True, False, True, True, False]
    assert rows(history) == [
        [],
        [b"item 3", b"item 14"],
        [],
        [b"x", b"y", b"z"],
        [],
        [],
    ]
    assert rows(exclude) == [[], [b"item 1"], [], [], [], []]


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_example_is_answered_with_padding(signatures, expected, tiny, bad):
    examples = tf.constant([bad, GOOD, b"", bad, GOOD])
    answer = signatures["tf_example"](examples=examples)
    ids, scores = answer["ids"].numpy(), answer["scores"].numpy()
    for row in (0, 3):
        assert ids[row].tolist() == [b""] * tiny.K
        assert scores[row].tolist() == [tiny.LOWEST] * tiny.K
    good, popular = expected(["item 3", "item 14"], exclude=["item 1"]), expected([])
    for row, wanted in ((1, good), (4, good), (2, popular)):
        assert ids[row].tolist() == wanted[0]
        np.testing.assert_allclose(scores[row], wanted[1], rtol=1e-5, atol=1e-5)


def test_text_that_happens_to_parse_is_an_empty_example():
    """Letters can be valid tags of fields that no tf.Example has."""
    history, *_, readable, _ = decode_examples(tf.constant([b"item 3,item 14"]))
    assert history.shape == (1, 0)
    assert readable.numpy().all()


def test_only_bad_examples(signatures, tiny):
    answer = signatures["tf_example"](examples=tf.constant([b"\xff"]))
    assert answer["ids"].numpy().tolist() == [[b""] * tiny.K]


def test_ids_that_are_not_utf_8_are_unknown_ids(signatures, expected):
    example = serialized(history=[b"\xff\xfe", "item 3"], exclude=[b"\xff"])
    answer = signatures["tf_example"](examples=tf.constant([example]))
    assert answer["ids"].numpy()[0].tolist() == expected(["item 3"])[0]
