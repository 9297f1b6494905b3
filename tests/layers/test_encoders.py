"""The encoders of the literature as wholes, each against loops of its own."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tests import oracles, weights
from tfrs_selfattn.layers import encoders

B, T, D, H = 2, 5, 6, 2
random = np.random.default_rng(0)
INPUTS = random.normal(size=[B, T, D]).astype("float32")
MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]], bool)
SEGMENTS = np.array([[0, 0, 1, 2, 2], [1, 1, 2, 2, 0]], np.int32)
TIMES = np.cumsum(10 ** random.integers(0, 7, [B, T]), axis=1)
REQUESTS = TIMES + random.integers(0, 9999, [B, T])
OPTIONS = {"num_blocks": 2, "num_heads": H, "max_length": 9, "dropout": 0.0}


def entered(encoder, masks, scale=1.0):
    """Items, scaled, and the vector of each one's place from the newest."""
    real = masks.get("mask", masks.get("segment_ids")) != 0
    return oracles.add_positions(
        np.where(real[..., np.newaxis], INPUTS, 0.0) * scale,
        np.array(encoder.position._embeddings),
        real,
        masks.get("segment_ids"),
        "newest",
    )


def through(encoder, states, **options):
    for block in encoder.blocks:
        states = oracles.transformer_block(
            states, weights.of_block(block), H, **options
        )
    return states


def normalized(encoder, states):
    norm = weights.of_norm(encoder._norm)
    return oracles.each_position(oracles.layer_norm, states, *norm)


def sasrec(encoder, masks):
    states = through(
        encoder,
        entered(encoder, masks, math.sqrt(D)),
        norm="query",
        activation=oracles.relu,
        causal=True,
        **masks,
    )
    return normalized(encoder, states)


def bert4rec(encoder, masks):
    states = through(
        encoder,
        entered(encoder, masks),
        norm="post",
        activation=oracles.gelu,
        causal=False,
        **masks,
    )

    def head(vector):
        hidden = oracles.dense(vector, *weights.of_dense(encoder.head))
        return np.array([oracles.gelu(value) for value in hidden])

    return oracles.each_position(head, states)


def esasrec(encoder, masks):
    states = through(
        encoder,
        entered(encoder, masks),
        norm="gated",
        activation=oracles.silu,
        gated=True,
        causal=True,
        **masks,
    )
    return normalized(encoder, states)


def hstu(encoder, masks):
    states = entered(encoder, masks, math.sqrt(D))
    for block in encoder.blocks:
        by_distance = block.biases[0]
        biases = [oracles.distance_bias(np.array(by_distance._table), 128)]
        if len(block.biases) == 2:
            table = np.array(block.biases[1]._table)
            biases.append(oracles.time_bias(table, TIMES, REQUESTS))
        states = oracles.hstu_block(
            states, weights.of_hstu_block(block), H, biases=biases, causal=True, **masks
        )
    return states


ORACLES = {
    "sasrec": sasrec,
    "gsasrec": sasrec,
    "bert4rec": bert4rec,
    "esasrec": esasrec,
    "hstu": hstu,
}
HIDDEN = {"sasrec": D, "gsasrec": D, "bert4rec": 4 * D, "esasrec": 4 * D}


def make(name, **options):
    encoder = getattr(encoders, name)(D, **{**OPTIONS, **options})
    encoder.build([B, T, D])
    return weights.randomize(encoder, seed=len(name))


@pytest.mark.parametrize("masks", [{"mask": MASK}, {"segment_ids": SEGMENTS}], ids=list)
@pytest.mark.parametrize("name", ORACLES)
def test_equals_its_loops(name, masks):
    encoder = make(name)
    times = {"timestamps": TIMES, "request_times": REQUESTS} if name == "hstu" else {}
    found = np.array(encoder(INPUTS, **masks, **times))
    expected = ORACLES[name](encoder, masks)
    real = next(iter(masks.values())) != 0
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-3, atol=1e-3)
    for block in encoder.blocks:
        if name in HIDDEN:
            assert block.feed_forward.hidden_dim == HIDDEN[name]


@pytest.mark.parametrize("name", ORACLES)
def test_block_against_block(name):
    times = {"timestamps": TIMES, "request_times": REQUESTS} if name == "hstu" else {}
    plain, blocks = make(name), make(name, block_size=2)
    for encoder in (plain, blocks):
        layer = encoder.blocks[1]
        attends = getattr(layer, "attention", layer)
        assert attends.block_size == (2 if encoder is blocks else None)
    found, expected = (each(INPUTS, mask=MASK, **times) for each in (blocks, plain))
    np.testing.assert_allclose(
        np.array(found)[MASK], np.array(expected)[MASK], rtol=1e-4, atol=1e-4
    )


def test_hstu_without_times():
    encoder = make("hstu", time_aware=False)
    found = np.array(encoder(INPUTS, mask=MASK))
    expected = hstu(encoder, {"mask": MASK})
    np.testing.assert_allclose(found[MASK], expected[MASK], rtol=1e-3, atol=1e-3)


def test_hstu_asks_for_its_times():
    message = (
        "`SequenceEncoder` needs `timestamps` and `request_times`, int64 [B, T] Unix "
        "seconds. Received: timestamps=a tensor of shape (2, 5), request_times=None. "
        "Pass both to the outermost layer that is called, or leave the bias out."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        make("hstu")(INPUTS, timestamps=TIMES)


@pytest.mark.parametrize("name", ORACLES)
def test_dropout_is_everywhere_and_drawn_apart(name):
    encoder = make(name, dropout=0.4, seed=7)
    seeds = [int(np.array(state)[0]) for state in weights.seed_states(encoder)]
    parts = 1 if name == "hstu" else 3  # of a block
    assert len(seeds) == len(set(seeds)) == 1 + 2 * parts
    times = {"timestamps": TIMES, "request_times": REQUESTS} if name == "hstu" else {}
    first, second = (encoder(INPUTS, training=True, **times) for _ in range(2))
    assert np.abs(np.array(first - second)).max() > 0.01


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_heads": 4},
            "`num_heads` must divide the width of the item vectors. Received: "
            "num_heads=4, width=6. Change either.",
        ),
        (
            {"num_heads": 0},
            "`num_heads` must be a positive integer. Received: num_heads=0.",
        ),
        (
            {"num_blocks": 0},
            "`num_blocks` must be a positive integer. Received: num_blocks=0.",
        ),
        (
            {"max_length": 0},
            "`max_length` must be a positive integer. Received: max_length=0.",
        ),
        (
            {"dropout": 1.5},
            "`dropout` must be a number in [0, 1). Received: dropout=1.5.",
        ),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(encoders, name)(D, **options)


@pytest.mark.parametrize("name", ORACLES)
def test_width_must_be_positive(name):
    message = "`width` must be a positive integer. Received: width=0."
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(encoders, name)(0)
