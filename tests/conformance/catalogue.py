"""Every public layer once or more, with arguments that are not the defaults.

A test fails when a public layer is missing here, and when an argument of its
constructor keeps its default in all of its entries.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrs_selfattn import layers
from tfrs_selfattn._keras import keras

# Different numbers, so that no two axes can be taken for each other; the width is even
# for sinusoids and is no multiple of the heads.
USERS, LENGTH, WIDTH = 3, 5, 8

random = np.random.default_rng(1)
INPUTS = random.normal(size=[USERS, LENGTH, WIDTH]).astype("float32")
# Padded on the left, which under a causal mask leaves positions without any key; full;
# and empty.
MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
# Seconds to weeks apart.
TIMES = np.cumsum(10 ** random.integers(0, 7, [USERS, LENGTH]), axis=1) + 10**9
ARGUMENTS = {
    "mask": MASK,
    "timestamps": TIMES,
    "request_times": TIMES + random.integers(0, 9999, [USERS, LENGTH]),
}
DTYPES = {"mask": "bool", "timestamps": "int64", "request_times": "int64"}


@dataclass(frozen=True)
class LayerSpec:
    """A layer of the catalogue.

    Args:
        name: for the names of tests.
        cls: the layer's class.
        kwargs: function from the arguments that sublayers share with the layer
            (`dtype`) to the layer's own arguments.
        timed: whether it is called with times.
    """

    name: str
    cls: type
    kwargs: Callable[..., dict[str, Any]]
    timed: bool = False

    def make(self, name=None, **shared):
        return self.cls(**self.kwargs(**shared), name=name, **shared)

    def build(self, name=None, **shared):
        layer = self.make(name, **shared)
        self.call(layer, INPUTS, **ARGUMENTS)
        return layer

    def takes(self, argument):
        if "time" in argument and not self.timed:
            return False
        return argument in inspect.signature(self.cls.call).parameters

    def arguments(self):
        """Those of ARGUMENTS that the layer is called with."""
        return {k: v for k, v in ARGUMENTS.items() if self.takes(k)}

    def call(self, layer, inputs, **arguments):
        """Calls the layer with those of the arguments that it knows."""
        return layer(inputs, **{k: v for k, v in arguments.items() if self.takes(k)})

    def output_shape(self, users=USERS, length=LENGTH):
        if issubclass(self.cls, BIASES):
            return (users if self.timed else 1, 3, length, length)
        if self.cls is layers.AttentionPooling and self.kwargs().get("num_interests"):
            return (users, 3, WIDTH)
        return (users, WIDTH) if self.cls in POOLING else (users, length, WIDTH)


POOLING = (layers.SequencePooling, layers.AttentionPooling)
BIASES = (layers.RelativePositionBias, layers.AlibiBias, layers.RelativeTimeBias)


def biases(heads, **shared):
    """One of each kind."""
    return [
        layers.RelativePositionBias(
            heads,
            num_buckets=6,
            max_distance=9,
            bidirectional=True,
            name="distance",
            **shared,
        ),
        layers.RelativeTimeBias(heads, num_buckets=50, name="time", **shared),
        layers.AlibiBias(heads, name="alibi", **shared),
    ]


def attention(seed, *, heads=2, key_dim=6, **options):
    return layers.MultiHeadSelfAttention(
        heads, key_dim, dropout=0.25, seed=seed, name="attention", **options
    )


def feed_forward(seed, **options):
    return layers.FeedForward(
        11, dropout=0.25, seed=seed, name="feed_forward", **options
    )


def block(norm, seed, *, activation="relu", gated=False, **shared):
    return layers.TransformerBlock(
        attention(seed + 1, causal=norm != "post", **shared),
        feed_forward(seed + 2, activation=activation, gated=gated, **shared),
        norm=norm,
        dropout=0.25,
        seed=seed,
        name=norm,
        **shared,
    )


def block_arguments(norm, **shared):
    gated = norm == "gated"
    return {
        "attention": attention(13, causal=norm != "post", **shared),
        "feed_forward": feed_forward(
            15, activation="silu" if gated else "gelu", gated=gated, **shared
        ),
        "dropout": 0.25,
        "norm": norm,
        "seed": 17,
    }


SPECS = [
    LayerSpec(
        "attention",
        layers.MultiHeadSelfAttention,
        lambda **_: {
            "num_heads": 3,
            "key_dim": 5,
            "causal": False,
            "dropout": 0.25,
            "use_bias": False,
            "kernel_initializer": "he_normal",
            "window": 3,
            "seed": 11,
        },
    ),
    LayerSpec(
        "biased_attention",
        layers.MultiHeadSelfAttention,
        lambda **shared: {
            "num_heads": 1,
            "key_dim": 6,
            "rotary": True,
            "biases": biases(1, **shared),
        },
        timed=True,
    ),
    LayerSpec(
        "blockwise_attention",
        layers.MultiHeadSelfAttention,
        lambda **shared: {
            "num_heads": 2,
            "key_dim": 6,
            "dropout": 0.25,
            "biases": biases(2, **shared),
            "block_size": 2,
            "seed": 11,
        },
        timed=True,
    ),
    *(
        LayerSpec(
            f"block_{norm}",
            layers.TransformerBlock,
            lambda norm=norm, **shared: block_arguments(norm, **shared),
        )
        for norm in ("pre", "post", "query", "gated")
    ),
    LayerSpec(
        "feed_forward",
        layers.FeedForward,
        lambda **_: {
            "hidden_dim": 13,
            "activation": "tanh",
            "gated": True,
            "dropout": 0.25,
            "seed": 17,
        },
    ),
    LayerSpec(
        "hstu_block",
        layers.HSTUBlock,
        lambda **shared: {
            "num_heads": 3,
            "key_dim": 5,
            "causal": False,
            "dropout": 0.25,
            "biases": biases(3, **shared),
            "window": 4,
            "block_size": 2,
            "seed": 18,
        },
        timed=True,
    ),
    LayerSpec(
        "positions",
        layers.PositionEmbedding,
        lambda **_: {
            "max_length": 17,
            "count_from": "oldest",
            "embeddings_initializer": keras.initializers.RandomUniform(-1.0, 1.0),
        },
    ),
    LayerSpec(
        "sinusoids", layers.SinusoidalPositions, lambda **_: {"count_from": "oldest"}
    ),
    LayerSpec(
        "position_bias",
        layers.RelativePositionBias,
        lambda **_: {
            "num_heads": 3,
            "num_buckets": 6,
            "max_distance": 9,
            "bidirectional": True,
        },
    ),
    LayerSpec("alibi", layers.AlibiBias, lambda **_: {"num_heads": 3}),
    LayerSpec(
        "time_bias",
        layers.RelativeTimeBias,
        lambda **_: {"num_heads": 3, "num_buckets": 50},
        timed=True,
    ),
    LayerSpec(
        "encoder",
        layers.SequenceEncoder,
        lambda **shared: {
            "blocks": [
                block("query", 100, **shared),
                layers.HSTUBlock(
                    2, 3, dropout=0.25, seed=200, biases=biases(2, **shared), **shared
                ),
            ],
            "position": layers.PositionEmbedding(17, **shared),
            "dropout": 0.25,
            "scale_inputs": True,
            "final_norm": False,
            "head": keras.layers.Dense(WIDTH, "tanh", **shared),
            "seed": 19,
        },
        timed=True,
    ),
    LayerSpec(
        "encoder_with_norm",
        layers.SequenceEncoder,
        lambda **shared: {
            "blocks": [block("pre", 300, **shared)],
            "position": layers.SinusoidalPositions(**shared),
            "require_mask": True,
        },
    ),
    LayerSpec("pooling", layers.SequencePooling, lambda **_: {"method": "mean"}),
    LayerSpec(
        "interests",
        layers.AttentionPooling,
        lambda **_: {"num_interests": 3, "hidden_dim": 7},
    ),
    LayerSpec("attention_pooling", layers.AttentionPooling, lambda **_: {}),
]
