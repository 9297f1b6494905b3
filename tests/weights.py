"""Weights of layers: random ones, and those of each part for the oracles."""

from __future__ import annotations

import numpy as np


def randomize(layer, seed=0):
    """Gives a built layer random weights, biases too, so that none can be forgotten."""
    random = np.random.default_rng(seed)
    for variable in layer.trainable_weights:
        values = random.normal(scale=0.4, size=tuple(variable.shape))
        if "gamma" in variable.name:
            values += 1.0
        variable.assign(values.astype(np.float32))
    return layer


def seed_states(layer):
    """The weights behind dropout, one for each layer that draws."""
    return [w for w in layer.non_trainable_weights if "seed_state" in w.name]


def rewind(layer):
    """Lets dropout draw from the start again."""
    for state in seed_states(layer):
        seed, _ = np.array(state)
        state.assign(np.array([seed, 0], np.int64))


def pair(kernel, bias):
    return np.array(kernel, np.float64), np.array(bias, np.float64)


def of_attention(layer):
    return {
        "query": pair(layer._query_kernel, layer._query_bias),
        "key": pair(layer._key_kernel, layer._key_bias),
        "value": pair(layer._value_kernel, layer._value_bias),
        "output": pair(layer._output_kernel, layer._output_bias),
    }


def of_norm(layer):
    return pair(layer.gamma, layer.beta)


def of_feed_forward(layer):
    return (
        of_dense(layer._expand),
        of_dense(layer._contract),
    )


def of_dense(layer):
    return pair(layer.kernel, layer.bias)


def of_block(layer):
    parts = {
        "attention": of_attention(layer.attention),
        "attention_norm": of_norm(layer._attention_norm),
        "feed_forward": of_feed_forward(layer.feed_forward),
        "feed_forward_norm": of_norm(layer._feed_forward_norm),
    }
    if layer.norm == "gated":
        parts["attention_gate"] = of_dense(layer._attention_gate)
        parts["feed_forward_gate"] = of_dense(layer._feed_forward_gate)
    return parts


def of_hstu_block(layer):
    return {
        "input_norm": of_norm(layer._input_norm),
        "project": np.array(layer._project.kernel, np.float64),
        "value_norm": of_norm(layer._value_norm),
        "output": of_dense(layer._output),
    }
