"""SASRec as a whole against its oracle; what every preset is made of; its errors."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles, weights
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import encoders
from tfrs_selfattn.losses import GBCE, FullSoftmax, MaskedItems, NamedLoss
from tfrs_selfattn.models import SequenceRetrieval, presets
from tfrs_selfattn.training.config import PRESETS

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


SMALL = {"embedding_dim": D, "num_blocks": 1, "num_heads": 2, "max_length": LONGEST}
# All that a scoring function can be given.
CASE = (np.array([[0, 3, 1, 4]]), np.array([[0, 10, 500, 900]]), np.array([10**4]))
every = pytest.mark.parametrize("name", ["sasrec", "gsasrec", *list(PRESETS)[2:]])


def make(name, **options):
    model = presets.build(name, N, **{**SMALL, **options})
    model.build_from_config({})
    return model


@every
def test_a_preset_is_its_encoder_between_two_towers(name):
    model = make(name, dropout=0.3, seed=5)
    token = name == "bert4rec"
    expected = getattr(encoders, name)(
        D,
        num_blocks=1,
        num_heads=2,
        max_length=LONGEST + token,
        dropout=0.3,
        seed=5,
    )
    tower = model.query_tower
    assert parts_of(tower.encoder) == parts_of(expected)
    assert (tower.max_length, tower.query_token) == (LONGEST, token)
    assert model.shares_table
    assert model.candidate_tower.num_items == N
    assert model.score(*CASE).shape == (1, N)


def parts_of(layer):
    """A layer's configuration, nested ones included, without names Keras counts up."""

    def strip(value):
        if isinstance(value, dict):
            return {
                key: strip(part)
                for key, part in value.items()
                if key not in ("name", "build_config")
            }
        return [strip(part) for part in value] if isinstance(value, list) else value

    return strip(layer.get_config())


def loss_of(model):
    """The loss, that of hidden items included."""
    return getattr(model.next_item_loss, "loss", model.next_item_loss)


@every
def test_normalized_towers_score_cosines_and_train_at_a_temperature(name):
    model = make(name, normalize=True)
    assert loss_of(model).temperature == 0.05
    weights.randomize(model)
    assert np.abs(model.score(*CASE)).max() <= 1 + 1e-5
    np.testing.assert_allclose(
        np.linalg.norm(model.candidate_tower.catalogue(), axis=1), 1.0, rtol=1e-5
    )
    assert loss_of(make(name, normalize=True, temperature=0.2)).temperature == 0.2
    assert loss_of(make(name)).temperature == 1.0
    plain = weights.randomize(make(name))
    assert np.abs(plain.score(*CASE)).max() > 1 + 1e-5


def test_the_objectives_are_those_of_the_papers():
    losses = {name: make(name, seed=3).next_item_loss for name in PRESETS}
    gbce = losses["gsasrec"]
    assert isinstance(gbce, GBCE)
    assert (gbce.num_negatives, gbce.calibration) == (256, 0.75)
    assert isinstance(losses["bert4rec"], MaskedItems)
    for name in ("sasrec", "esasrec", "hstu"):
        assert isinstance(losses[name], FullSoftmax)
    hiding = MaskedItems(FullSoftmax(0.3), rate=0.4, seed=0)
    assert make("bert4rec", loss=hiding).next_item_loss is hiding


@every
def test_a_preset_comes_back_from_its_configuration(name):
    model = weights.randomize(make(name, normalize=True))
    again = SequenceRetrieval.from_config(model.get_config())
    again.build_from_config({})
    assert again.time_aware == model.time_aware
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again.score(*CASE), model.score(*CASE), rtol=1e-6)


@every
def test_a_loss_of_ones_own(name):
    loss = FullSoftmax(0.3)
    assert loss_of(make(name, loss=loss)) is loss
    message = r"`temperature` must be None when a loss is given.*temperature=0\.2"
    with pytest.raises(ValueError, match=message):
        make(name, loss=loss, temperature=0.2)


@every
def test_a_loss_by_name_takes_temperature_and_seed_of_the_model(name):
    chosen = NamedLoss("sampled-softmax", 5, correct_sampling=False)
    model = make(name, loss=chosen, normalize=True, seed=3)
    assert loss_of(model).temperature == 0.05
    assert loss_of(model).negatives[0].num_negatives == 5
    assert not loss_of(model).correct_sampling
    assert loss_of(make(name, loss=chosen, temperature=0.2)).temperature == 0.2
    assert loss_of(model).get_config()["seed"] == 3 + 9


@every
def test_the_seed_is_of_all_dropout(name):
    row = {"training": True, "timestamps": CASE[1], "request_time": CASE[2]}
    one, same, other = (make(name, dropout=0.5, seed=seed) for seed in (1, 1, 2))
    for model in (same, other):
        pairs = zip(model.trainable_weights, one.trainable_weights, strict=True)
        for mine, theirs in pairs:
            mine.assign(theirs)
    assert (one(CASE[0], **row).numpy() == same(CASE[0], **row).numpy()).all()
    assert (one(CASE[0], **row).numpy() != other(CASE[0], **row).numpy()).any()
    seeds = [int(np.array(state)[0]) for state in weights.seed_states(one)]
    assert len(set(seeds)) == len(seeds) > 1


def test_what_configurations_know_of_presets_is_what_they_are():
    for name, options in PRESETS.items():
        model = presets.build(name, N, max_length=4)
        assert model.time_aware is options["time_aware"]
        tower = model.query_tower
        assert tower.item_embedding.output_dim == options["embedding_dim"]
        assert tower.encoder.dropout_rate == options["dropout"]
        block = model.query_tower.encoder.blocks[0]
        attention = getattr(block, "attention", block)
        assert attention.num_heads == options["num_heads"]


@pytest.mark.parametrize("name", ["sasrec", "gsasrec", "esasrec", "hstu"])
def test_times_are_an_option(name):
    assert make(name, time_aware=True).time_aware
    assert not make(name, time_aware=False).time_aware


def test_an_unknown_preset():
    with pytest.raises(ValueError, match=r"`preset` must be one of .*'hstu'.*'gru'"):
        presets.build("gru", N)


ROWS = {
    "history": np.array([[1, 2, 3]]),
    "targets": np.array([[2, 3, 4]]),
    "timestamps": CASE[1][:, :3],
    "request_times": CASE[1][:, 1:],
}


@every
def test_every_weight_of_a_preset_learns(name):
    # Nearly everything hidden, so that the token is there whatever is drawn.
    options = {"loss": MaskedItems(rate=0.99, seed=0)} if name == "bert4rec" else {}
    model = make(name, dropout=0.0, **options)
    model.compile(keras.optimizers.SGD(0.5))
    weights.randomize(model)
    before = [weight.numpy() for weight in model.trainable_weights]
    rows = {part: tf.constant(column) for part, column in ROWS.items()}
    losses = [float(model.train_step(rows)["loss"]) for _ in range(3)]
    assert np.isfinite(losses).all()
    still = [
        weight.name
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if (weight.numpy() == old).all()
    ]
    # A key's bias adds the same to all logits of a query, which a softmax ignores.
    assert not [weight for weight in still if "key_bias" not in weight]


def test_presets_train_under_mixed_precision():
    rows = {part: tf.constant(column) for part, column in ROWS.items()}
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make("hstu", dropout=0.0)
        model.compile(keras.optimizers.Adam(0.01))
        losses = [float(model.train_step(rows)["loss"]) for _ in range(9)]
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
