"""Training and a SavedModel in another process read raw values alike."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.features import (
    Category,
    FeatureEncoder,
    FeatureSet,
    MultiCategory,
    Number,
    Text,
    Vector,
    VectorizedText,
)

DECLARED = FeatureSet(
    (
        Category("brand", hash_buckets=3),
        MultiCategory("genres", separator=";"),
        Number("price", log=True),
        Number("rating", buckets=4),
        Text("title", letters=3, buckets=512),
        VectorizedText("words", ("é", "z", "a é", "z é"), ngrams=(1, 2)),
        Vector("image"),
    )
)
LETTERS = "aé ☕;|\tZ"


def draw_raw(size, seed):
    draw = np.random.default_rng(seed)

    def texts():
        lengths = draw.integers(0, 9, size)
        rows = ["".join(draw.choice(list(LETTERS), n)) for n in lengths]
        return np.array([row.encode() for row in rows], object)

    def numbers():
        values = draw.normal(3, 2, size).astype(np.float32)
        values[draw.random(size) < 0.2] = np.nan
        return np.abs(values)

    vectors = draw.normal(size=[size, 3]).astype(np.float32)
    vectors[draw.random(size) < 0.2] = 0
    return {
        "brand": texts(),
        "genres": texts(),
        "price": numbers(),
        "rating": numbers(),
        "title": texts(),
        "words": texts(),
        "image": vectors,
    }


@pytest.fixture(scope="module")
def features():
    return DECLARED.fit(draw_raw(200, seed=0), "here")


@pytest.fixture(scope="module")
def encoder(features):
    return FeatureEncoder(features)


def summed(tokens, weights, size):
    """Per row, the weight of each token: `[n, V]`."""
    sums = np.zeros([len(tokens), size], np.float32)
    for row, (places, scales) in enumerate(zip(tokens, weights, strict=True)):
        np.add.at(sums[row], places, scales)
    return sums


PROGRAM = """
import sys
import numpy as np, tensorflow as tf
raw = np.load(sys.argv[2], allow_pickle=True)
encode = tf.saved_model.load(sys.argv[1]).signatures["encode"]
inputs = {
    name: tf.constant(raw[name].tolist() if raw[name].dtype == object else raw[name])
    for name in raw.files
}
answer = {name: value.numpy() for name, value in encode(**inputs).items()}
np.savez(sys.argv[3], **answer)
assert not [name for name in sys.modules if name.startswith("tfrs_selfattn")]
"""


def test_a_saved_model_encodes_as_training_does(
    features, encoder, run_python, tmp_path
):
    raw = draw_raw(300, seed=1)  # with categories and words that training never showed
    rows = encoder.rows(raw)

    module = tf.Module()
    module.encoder = encoder
    module.encode = tf.function(
        lambda **inputs: encoder(inputs)._asdict(), autograph=False
    )
    signature = module.encode.get_concrete_function(**encoder.specs(None))
    tf.saved_model.save(module, str(tmp_path / "model"), {"encode": signature})
    np.savez(tmp_path / "raw.npz", **raw)
    paths = [str(tmp_path / name) for name in ("model", "raw.npz", "out.npz")]
    done = run_python("-c", PROGRAM, *paths, cwd=tmp_path, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout

    served = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(served["dense"], rows.dense)
    splits = list(zip(rows.splits[:-1], rows.splits[1:], strict=True))
    trained = summed(
        [rows.tokens[start:stop] for start, stop in splits],
        [rows.weights[start:stop] for start, stop in splits],
        features.num_tokens,
    )
    assert trained.any()
    np.testing.assert_array_equal(
        summed(served["tokens"], served["weights"], features.num_tokens), trained
    )


def test_the_graph_holds_stock_operations_and_no_vocabulary(encoder):
    inputs = encoder.specs(None)
    graph = tf.function(lambda **raw: encoder(raw)).get_concrete_function(**inputs)
    definition = graph.graph.as_graph_def()
    nodes = [
        *definition.node,
        *(n for f in definition.library.function for n in f.node_def),
    ]
    known = set(tf.raw_ops.__dict__)
    assert not {node.op for node in nodes} - known - {"Placeholder", "Const"}
    assert max(node.ByteSize() for node in nodes) < 2000


def test_a_configuration_survives_json(features):
    again = FeatureSet.from_config(json.loads(json.dumps(features.to_config())))
    assert again == features
    assert again.fingerprint() == features.fingerprint() != DECLARED.fingerprint()


def test_a_configuration_of_a_later_version_is_refused(features):
    config = {**features.to_config(), "format": 2}
    with pytest.raises(ValueError, match="of format 1, of the kinds category"):
        FeatureSet.from_config(config)


def test_leading_dimensions_stay(features, encoder):
    raw = draw_raw(6, seed=2)
    flat = encoder(raw_tensors(raw))
    shaped = encoder(
        {
            name: tf.reshape(v, [2, 3, *v.shape[1:]])
            for name, v in raw_tensors(raw).items()
        }
    )
    assert shaped.dense.shape == [2, 3, features.num_dense]
    for one, other in zip(flat, shaped, strict=True):
        np.testing.assert_array_equal(one, tf.reshape(other, one.shape))


def raw_tensors(raw):
    return {
        name: tf.constant(v.tolist() if v.dtype == object else v)
        for name, v in raw.items()
    }


def test_what_is_missing_is_encoded_like_empty_values(features, encoder):
    nothing = features.missing(2)
    assert {name: values.shape for name, values in nothing.items()} == {
        **dict.fromkeys(features.names, (2,)),
        "image": (2, 3),
    }
    _, weights, dense = encoder(raw_tensors(nothing))
    np.testing.assert_array_equal(dense[0, 2:], 0)
    assert (weights.numpy() > 0).sum(axis=1).tolist() == [3, 3]  # brand, genres, rating


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    st.lists(st.text(max_size=20), min_size=1, max_size=4), st.floats(width=32)
)
def test_a_row_does_not_depend_on_its_neighbours(encoder, texts, number):
    raw = draw_raw(len(texts), seed=3)
    for name in ("brand", "genres", "title", "words"):
        raw[name] = np.array(
            [text.encode("utf-8", "replace") for text in texts], object
        )
    raw["price"][:] = raw["rating"][:] = number
    together = encoder.rows(raw)
    assert np.isfinite(together.dense).all()
    assert np.isfinite(together.weights).all()
    for row in range(len(texts)):
        alone = encoder.rows(
            {name: values[row : row + 1] for name, values in raw.items()}
        )
        part = slice(together.splits[row], together.splits[row + 1])
        np.testing.assert_array_equal(together.tokens[part], alone.tokens)
        np.testing.assert_array_equal(together.weights[part], alone.weights)
