"""Losses by name: what they are made of, and what cannot be."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tfrs_selfattn import losses
from tfrs_selfattn.losses import NamedLoss, named


def test_each_name_makes_its_loss():
    made = [NamedLoss(name).build(0.5, 3) for name in named.LOSSES]
    kinds = ["FullSoftmax", "SampledSoftmax", "GBCE", "BinaryCrossEntropy"]
    assert [type(loss).__name__ for loss in made] == kinds
    assert {loss.temperature for loss in made} == {0.5}
    assert [loss.get_config().get("seed") for loss in made] == [None, 3, 3, 3]


def test_what_is_not_given_is_the_losses_own():
    for name, kind in (
        ("sampled-softmax", losses.SampledSoftmax),
        ("gbce", losses.GBCE),
        ("bce", losses.BinaryCrossEntropy),
    ):
        config = NamedLoss(name).build(1.0, 0).get_config()
        assert {**config, "name": ""} == {**kind(seed=0).get_config(), "name": ""}


def test_what_is_given_reaches_the_loss():
    chosen = NamedLoss("sampled-softmax", 7, "query", correct_sampling=False)
    loss = chosen.build(1.0, 0)
    assert loss.negatives[0].num_negatives == 7
    assert (loss.shared_by, loss.correct_sampling) == ("query", False)
    for name in ("gbce", "bce"):
        loss = NamedLoss(name, 7, "row").build(1.0, 0)
        assert (loss.negatives[0].num_negatives, loss.shared_by) == (7, "row")


def test_all_items_as_corrected_negatives_are_the_full_softmax():
    queries = tf.random.stateless_normal([30, 4], [1, 2])
    items = tf.random.stateless_normal([20, 4], [3, 4])
    targets = tf.range(30) % 20
    context = losses.LossContext(tf.range(30), tf.range(30), tf.range(30), targets)
    many = NamedLoss("sampled-softmax", 20_000).build(0.7, 5)
    full = NamedLoss("full-softmax").build(0.7, 5)
    found = float(many(queries, items, targets, context=context))
    assert found == pytest.approx(float(full(queries, items, targets)), rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "hinge"}, "`loss` must be one of .*'sampled-softmax'.*'hinge'"),
        (
            {"name": "full-softmax", "num_negatives": 9},
            r"`num_negatives` belongs to the losses sampled-softmax, gbce, bce\. "
            r"Received: num_negatives=9, loss='full-softmax'\. Leave one",
        ),
        (
            {"name": "gbce", "correct_sampling": False},
            "`correct_sampling` belongs to the losses sampled-softmax",
        ),
        ({"name": "bce", "num_negatives": 0}, "`num_negatives` must be a positive int"),
        ({"name": "bce", "shared_by": "user"}, "`shared_by` must be one of 'batch'"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        NamedLoss(**options)
