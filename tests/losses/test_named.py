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


COUNTS = [5, 1, 0, 2]


@pytest.mark.parametrize("name", ["sampled-softmax", "bce"])
def test_where_negatives_come_from(name):
    def made(negatives, number=None):
        chosen = NamedLoss(name, number, negatives=negatives).build(1.0, 0, COUNTS)
        kinds = [type(each).__name__ for each in chosen.negatives]
        return kinds, [each.num_negatives for each in chosen.negatives], chosen

    own = 1 if name == "bce" else 256
    assert made("uniform")[:2] == made(None)[:2] == (["UniformNegatives"], [own])
    kinds, numbers, loss = made("popularity")
    assert (kinds, numbers) == (["PopularityNegatives"], [own])
    assert list(loss.negatives[0].counts) == COUNTS
    assert made("popularity", 7)[1] == [7]
    kinds, numbers, loss = made("in-batch")
    assert (kinds, numbers, loss.shared_by) == (["InBatchNegatives"], [None], "batch")
    assert made("in-batch", 7)[1] == [7]
    kinds, numbers, loss = made("mixed", 7)
    assert kinds == ["InBatchNegatives", "UniformNegatives"]
    assert (numbers, loss.shared_by) == ([None, 7], "batch")
    assert list(loss.negatives[0].counts) == COUNTS


def test_popular_negatives_need_counts():
    with pytest.raises(
        ValueError, match="`item_counts` must be given for negatives='m"
    ):
        NamedLoss("sampled-softmax", negatives="mixed").build(1.0, 0)


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
        ({"name": "bce", "negatives": "hard"}, "`negatives` must be one of 'uniform'"),
        ({"name": "gbce", "negatives": "uniform"}, "`negatives` belongs to the losses"),
        (
            {"name": "bce", "negatives": "mixed", "shared_by": "query"},
            "`shared_by` must be 'batch' for negatives of a whole batch",
        ),
        ({"name": "bce", "shared_by": "user"}, "`shared_by` must be one of 'batch'"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        NamedLoss(**options)
