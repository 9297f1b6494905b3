"""A resumed run sees the batches it would have seen; an epoch shows every row once."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.data import (
    PackedRows,
    evaluation_dataset,
    pack_rows,
    steps_per_epoch,
    training_dataset,
)


@pytest.fixture(scope="module")
def rows(split) -> PackedRows:
    return pack_rows(split, row_length=13)


def batches(dataset, count):
    return [
        {name: tensor.numpy() for name, tensor in batch.items()}
        for batch in dataset.take(count)
    ]


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for name in ("history", "targets", "segment_ids"):
            np.testing.assert_array_equal(one[name], other[name])


def test_each_epoch_shows_every_row_once(rows):
    steps = steps_per_epoch(rows, 7)
    assert len(rows) % 7 != 0  # So that the last batch is a smaller one.
    seen = batches(training_dataset(rows, batch_size=7, seed=3), 3 * steps)
    whole = np.stack([rows.items, rows.targets, rows.segment_ids], axis=1)
    orders = []
    for epoch in range(3):
        part = seen[epoch * steps : (epoch + 1) * steps]
        assert [len(batch["history"]) for batch in part[:-1]] == [7] * (steps - 1)
        columns = [np.concatenate([batch[name] for batch in part]) for name in part[0]]
        shown = np.stack(columns, axis=1)
        assert sorted(shown.tolist()) == sorted(whole.tolist())
        orders.append(shown.tolist())
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != whole.tolist()


@pytest.mark.parametrize("start_epoch", [1, 3])
def test_a_resumed_dataset_equals_the_uninterrupted_one(rows, start_epoch):
    steps = steps_per_epoch(rows, 7)
    whole = batches(training_dataset(rows, batch_size=7, seed=3), 5 * steps)
    rest = training_dataset(rows, batch_size=7, seed=3, start_epoch=start_epoch)
    resumed = batches(rest, (5 - start_epoch) * steps)
    assert_same(resumed, whole[start_epoch * steps :])


def test_the_seed_decides_the_order(rows):
    steps = steps_per_epoch(rows, 7)
    one, same, other = (
        batches(training_dataset(rows, batch_size=7, seed=seed), steps)
        for seed in (3, 3, 4)
    )
    assert_same(one, same)
    with pytest.raises(AssertionError):
        assert_same(one, other)


def test_training_batches_are_int32_and_endless(rows):
    dataset = training_dataset(rows, batch_size=len(rows) + 5, seed=0)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert list(dataset.element_spec) == ["history", "targets", "segment_ids"]
    for spec in dataset.element_spec.values():
        assert spec.dtype == tf.int32
        assert spec.shape.as_list() == [None, 13]
    assert steps_per_epoch(rows, len(rows) + 5) == 1
    assert len(next(iter(dataset))["history"]) == len(rows)


def test_evaluation_shows_each_case_in_order(split):
    cases = split.validation
    dataset = evaluation_dataset(cases, batch_size=9)
    assert dataset.cardinality() == -(-len(cases) // 9)
    start = 0
    for _ in range(2):  # A dataset may be read again.
        start = 0
        for batch in dataset:
            stop = min(start + 9, len(cases))
            np.testing.assert_array_equal(
                batch["history"], cases.padded_histories(start, stop)
            )
            np.testing.assert_array_equal(batch["target"], cases.targets[start:stop])
            assert batch["history"].dtype == batch["target"].dtype == tf.int32
            start = stop
        assert start == len(cases)


def test_batch_size_is_checked(rows, split):
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        training_dataset(rows, batch_size=0, seed=0)
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        evaluation_dataset(split.test, batch_size=0)
