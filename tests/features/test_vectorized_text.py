"""The tokens are those of Keras' own layer, of either Keras, whatever the text."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._keras import keras
from tfrs_selfattn.features import FeatureEncoder, FeatureSet, VectorizedText

TEXTS = ["Red tea, hot.", "green TEA", "Black coffee?", "", "Té ☕ rouge", "a-b  c"]
LAYERS = {
    "as it comes": {},
    "few tokens": {"max_tokens": 5},
    "pairs": {"ngrams": 2},
    "pairs and threes": {"ngrams": (2, 3), "standardize": "lower"},
    "letters": {"split": "character", "standardize": "strip_punctuation"},
    "as it stands": {"standardize": None},
    "cut": {"output_sequence_length": 2},
    "of counts": {"output_mode": "count"},
}


def adapted(name):
    layer = keras.layers.TextVectorization(**LAYERS[name])
    layer.adapt(tf.constant(TEXTS))
    return layer


def bytes_of(texts):
    return np.array([text.encode("utf-8", "replace") for text in texts], object)


def bags(encoded, size):
    """Per text, how much each token weighs: `[n, V]`."""
    found = np.zeros([len(encoded.tokens), size], np.float32)
    for row, parts in enumerate(zip(encoded.tokens, encoded.weights, strict=True)):
        np.add.at(found[row], *map(np.asarray, parts))
    return found


def bags_of_layer(layer, texts, feature):
    """The same by the layer, whose tokens are 0 = padding, 1 = unknown, 2, …"""
    config = {**layer.get_config(), "output_mode": "int", "idf_weights": None}
    config["vocabulary"] = list(feature.vocabulary)
    plain = type(layer).from_config(config)
    tokens = np.asarray(plain(tf.constant([text.decode() for text in texts])))
    found = np.zeros([len(texts), feature.num_tokens], np.float32)
    for row, line in enumerate(tokens):
        for token in line[line > 0]:
            found[row, token - 1] += 1
    return found / np.sqrt(np.maximum(found.sum(axis=1, keepdims=True), 1))


@pytest.fixture(scope="module", params=LAYERS)
def both(request):
    """A layer, the fitted feature and what encodes it."""
    layer = adapted(request.param)
    feature = VectorizedText.of("title", layer).fit(bytes_of(["of no layer"]), "here")
    assert feature.has_unknown
    return layer, feature, FeatureEncoder(FeatureSet((feature,)))


def test_it_knows_the_layers_vocabulary(both):
    layer, feature, _ = both
    names = layer.get_vocabulary()
    assert list(feature.vocabulary) == [n for n in names if n not in ("", "[UNK]")]
    assert feature.num_tokens == len(feature.vocabulary) + 1


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    st.lists(
        st.one_of(
            st.lists(st.sampled_from(" ".join(TEXTS).split(" "))).map(" ".join),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_tokens_are_those_of_the_layer(both, texts):
    layer, feature, encoder = both
    texts = bytes_of(texts)
    encoded = encoder({"title": tf.constant(texts.tolist())})
    np.testing.assert_allclose(
        bags(encoded, feature.num_tokens),
        bags_of_layer(layer, texts, feature),
        rtol=1e-6,
    )


def test_unknown_tokens_add_nothing_where_training_had_none():
    layer = adapted("as it comes")
    feature = VectorizedText.of("title", layer).fit(bytes_of(TEXTS), "here")
    assert not feature.has_unknown
    encoder = FeatureEncoder(FeatureSet((feature,)))
    encoded = encoder({"title": tf.constant(["tea from nowhere", "nowhere", "tea"])})
    found = bags(encoded, feature.num_tokens)
    np.testing.assert_array_equal(found[0], found[2])
    assert not found[1].any() and found[2].max() == 1


def test_it_survives_json():
    features = FeatureSet((VectorizedText.of("title", adapted("pairs")),))
    features = features.fit({"title": bytes_of(TEXTS)}, "here")
    text = json.dumps(features.to_config())
    assert FeatureSet.from_config(json.loads(text)) == features


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standardize": tf.strings.upper}, "one of these as standardize: .*'lower'"),
        ({"split": tf.strings.bytes_split}, "one of these as split: 'whitespace', 'ch"),
        ({"split": None}, "one of these as split: 'whitespace', .* Received: None"),
        ({}, "`vocabulary` must hold at least one token. Received: none. Adapt"),
    ],
)
def test_layers_that_are_refused(options, message):
    layer = keras.layers.TextVectorization(**options)
    with pytest.raises(ValueError, match=message):
        VectorizedText.of("title", layer)
