"""SASRec as a whole against its oracle, and wrong arguments of the preset."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests import oracles, weights
from tfrs_selfattn.models import presets

pytestmark = pytest.mark.legacy_keras

N, D, HEADS, LONGEST = 17, 6, 2, 5
HISTORIES = [
    [3, 1, 4, 1, 5],
    [9, 2, 6, 5, 3, 5, 8],  # longer than the model
    [7],
    [],
    [0, 11, 0, 12],  # an unknown item in between
]


@pytest.fixture(scope="module")
def model():
    model = presets.sasrec(
        N, embedding_dim=D, num_blocks=3, num_heads=HEADS, max_length=LONGEST, seed=1
    )
    model(np.ones([1, 2], np.int32))
    return weights.randomize(model)


def expected_query(model, history):
    encoder = model.query_tower.encoder
    parts = {
        "items": np.array(model.query_tower.item_embedding.embeddings, np.float64),
        "positions": np.array(encoder.position._embeddings, np.float64),
        "blocks": [weights.of_block(block) for block in encoder.blocks],
        "final_norm": weights.of_norm(encoder._norm),
    }
    return oracles.sasrec(history, parts, HEADS, LONGEST)


@pytest.mark.parametrize("history", HISTORIES, ids=str)
def test_query_equals_the_oracle(model, history):
    padded = np.array([[0, 0, *history]], np.int32)
    query = model(padded)[0]
    np.testing.assert_allclose(
        query, expected_query(model, history), rtol=1e-4, atol=1e-4
    )


def test_scores_are_products_with_every_item(model):
    history = HISTORIES[0]
    scores = model.score(np.array([history], np.int32))
    table = np.array(model.candidate_tower.item_embedding.embeddings)
    query = expected_query(model, history)
    expected = [np.dot(query, table[item]) for item in range(1, N + 1)]
    assert scores.shape == (1, N)
    np.testing.assert_allclose(scores[0], expected, rtol=1e-3, atol=1e-3)


def test_one_table_for_history_and_candidates(model):
    assert model.shares_table
    names = [w.name for w in model.trainable_weights if tuple(w.shape) == (N + 1, D)]
    assert len(names) == 1


def test_no_two_layers_draw_the_same_dropout(model):
    seeds = [int(np.array(state)[0]) for state in weights.seed_states(model)]
    assert len(seeds) == 1 + 3 * 3  # the encoder; each block and its two parts
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"num_heads": 4, "embedding_dim": 6},
            "`num_heads` must divide the width of the item vectors. Received: "
            "num_heads=4, width=6. Change either.",
        ),
        (
            {"num_heads": 0},
            "`num_heads` must be a positive integer. Received: num_heads=0.",
        ),
        (
            {"embedding_dim": 0},
            "`embedding_dim` must be a positive integer. Received: embedding_dim=0.",
        ),
        (
            {"num_blocks": 0},
            "`num_blocks` must be a positive integer. Received: num_blocks=0.",
        ),
        (
            {"num_items": 0},
            "`num_items` must be a positive integer. Received: num_items=0.",
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
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        presets.sasrec(**{"num_items": N, **arguments})
