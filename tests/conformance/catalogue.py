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

# Different primes, so that no two axes can be taken for each other.
USERS, LENGTH, WIDTH = 3, 5, 7

INPUTS = np.random.default_rng(1).normal(size=[USERS, LENGTH, WIDTH]).astype("float32")
# Padded on the left, which under a causal mask leaves positions without any key; full;
# and empty.
MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)


@dataclass(frozen=True)
class LayerSpec:
    """A layer of the catalogue.

    Args:
        name: for the names of tests.
        cls: the layer's class.
        kwargs: function from the arguments that sublayers share with the layer
            (`dtype`) to the layer's own arguments.
    """

    name: str
    cls: type
    kwargs: Callable[..., dict[str, Any]]

    def make(self, name=None, **shared):
        return self.cls(**self.kwargs(**shared), name=name, **shared)

    def build(self, name=None, **shared):
        layer = self.make(name, **shared)
        self.call(layer, INPUTS, mask=MASK)
        return layer

    def takes(self, argument):
        return argument in inspect.signature(self.cls.call).parameters

    def call(self, layer, inputs, **arguments):
        """Calls the layer with those of the arguments that it knows."""
        return layer(inputs, **{k: v for k, v in arguments.items() if self.takes(k)})


def _blocks(**shared):
    common = {"num_heads": 3, "key_dim": 2, "feed_forward_dim": 11, "dropout": 0.25}
    return [
        layers.TransformerBlock(**common, norm=norm, seed=seed, name=norm, **shared)
        for norm, seed in [("query", 100), ("post", 200)]
    ]


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
            "seed": 11,
        },
    ),
    LayerSpec(
        "one_head",
        layers.MultiHeadSelfAttention,
        lambda **_: {"num_heads": 1, "key_dim": 5},
    ),
    *(
        LayerSpec(
            f"block_{norm}",
            layers.TransformerBlock,
            lambda norm=norm, **_: {
                "num_heads": 2,
                "key_dim": 3,
                "feed_forward_dim": 11,
                "causal": norm != "post",
                "dropout": 0.25,
                "activation": "gelu",
                "norm": norm,
                "seed": 13,
            },
        )
        for norm in ("pre", "post", "query")
    ),
    LayerSpec(
        "feed_forward",
        layers.FeedForward,
        lambda **_: {
            "hidden_dim": 13,
            "activation": "tanh",
            "dropout": 0.25,
            "seed": 17,
        },
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
        "encoder",
        layers.SequenceEncoder,
        lambda **shared: {
            "blocks": _blocks(**shared),
            "position": layers.PositionEmbedding(17, **shared),
            "dropout": 0.25,
            "scale_inputs": True,
            "final_norm": False,
            "seed": 19,
        },
    ),
    LayerSpec(
        "encoder_with_norm",
        layers.SequenceEncoder,
        lambda **shared: {
            "blocks": [layers.TransformerBlock(1, 7, 11, norm="pre", **shared)]
        },
    ),
    LayerSpec("pooling", layers.SequencePooling, lambda **_: {"method": "mean"}),
]
