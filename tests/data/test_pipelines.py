"""A resumed run sees the batches it would have seen; an epoch shows every row once."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.data import (
    BucketedRows,
    PackedRows,
    bucket_rows,
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
        assert list(one) == list(other)
        for name in one:
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


def test_times_come_along_when_the_rows_have_them(split, rows):
    timed = pack_rows(split, row_length=13, times=True)
    steps = steps_per_epoch(rows, 7)
    plain = batches(training_dataset(rows, batch_size=7, seed=3), steps)
    found = batches(training_dataset(timed, batch_size=7, seed=3), steps)
    for one, other in zip(plain, found, strict=True):
        assert {name: column.dtype for name, column in other.items()} == {
            **dict.fromkeys(one, np.int32),
            "timestamps": np.int64,
            "request_times": np.int64,
        }
        for name, column in one.items():
            np.testing.assert_array_equal(other[name], column)
        real = other["segment_ids"] > 0
        assert (other["timestamps"][real] > 1_500_000_000).all()
        # Time runs within a segment: nothing is asked for before the item itself.
        assert (other["request_times"] >= other["timestamps"])[real].all()


def test_blocks_are_shuffled_among_themselves_and_within(rows):
    marked = PackedRows(
        items=np.repeat(np.arange(len(rows), dtype=np.int32)[:, None], 13, axis=1),
        targets=rows.targets,
        segment_ids=rows.segment_ids,
    )
    dataset = training_dataset(marked, batch_size=4, seed=3, shuffle_block=10)
    steps = steps_per_epoch(marked, 4)
    numbers = [batch["history"][:, 0] for batch in batches(dataset, 2 * steps)]
    orders = []
    for part in (numbers[:steps], numbers[steps:]):
        order = np.concatenate(part)
        assert sorted(order) == list(range(len(rows)))
        changes = np.flatnonzero(np.diff(order // 10))
        blocks = order[np.concatenate([[0], changes + 1])] // 10
        assert len(blocks) == -(-len(rows) // 10)  # each block in one piece
        assert blocks.tolist() != sorted(blocks)
        places = {block: order[order // 10 == block].tolist() for block in blocks}
        whole = [inside for inside in places.values() if len(inside) == 10]
        assert all(inside != sorted(inside) for inside in whole)
        assert len({tuple(place % 10 for place in inside) for inside in whole}) > 1
        orders.append((blocks.tolist(), places))
    assert orders[0][0] != orders[1][0]
    assert orders[0][1] != orders[1][1]


def test_neighbours_of_one_epoch_part_in_the_next():
    # TensorFlow's own index shuffle keeps hundreds of times too many together.
    count, batch = 40_000, 40
    column = np.arange(count, dtype=np.int32)[:, None]
    rows = PackedRows(column, column, column)
    dataset = training_dataset(rows, batch_size=batch, seed=0)
    order = np.concatenate(
        [each["history"][:, 0] for each in batches(dataset, 2 * count // batch)]
    )
    numbers = np.arange(count) // batch
    first, second = np.empty_like(numbers), np.empty_like(numbers)
    first[order[:count]], second[order[count:]] = numbers, numbers
    left, right = order[: count - 1], order[1:count]
    together = first[left] == first[right]
    still = (second[left] == second[right])[together].mean()
    assert still < 3 * batch / count  # Chance is 1 × batch / count.


@pytest.fixture(scope="module")
def buckets(split) -> BucketedRows:
    rows = bucket_rows(split, row_length=40, times=True)
    assert len(rows.buckets) == 3
    return rows


def test_each_epoch_shows_every_bucket_whole(buckets):
    steps = steps_per_epoch(buckets, 3)
    seen = batches(training_dataset(buckets, batch_size=3, seed=3), 2 * steps)
    widths = []
    for part in (seen[:steps], seen[steps:]):
        for bucket in buckets.buckets:
            width = bucket.row_length
            mine = [batch for batch in part if batch["history"].shape[1] == width]
            sizes = sorted(len(batch["history"]) for batch in mine)
            assert set(sizes[1:]) <= {3 * 40 // width}  # one may be smaller
            for name, column in bucket.features.items():
                shown = np.concatenate([batch[name] for batch in mine])
                assert sorted(shown.tolist()) == sorted(column.tolist())
                assert shown.tolist() != column.tolist()
        widths.append([batch["history"].shape[1] for batch in part])
    # Wide and narrow batches take turns, in another order each time.
    assert widths[0] != widths[1]
    assert sorted(widths[0]) == sorted(widths[1]) != widths[0]


def test_buckets_resume_too(buckets):
    steps = steps_per_epoch(buckets, 3)
    whole = batches(training_dataset(buckets, batch_size=3, seed=3), 3 * steps)
    rest = training_dataset(buckets, batch_size=3, seed=3, start_epoch=2)
    assert_same(batches(rest, steps), whole[2 * steps :])


def test_evaluation_gives_times_when_asked(split):
    cases = split.test
    plain = batches(evaluation_dataset(cases, batch_size=9), 99)
    timed = batches(evaluation_dataset(cases, batch_size=9, times=True), 99)
    start = 0
    for one, other in zip(plain, timed, strict=True):
        stop = start + len(one["target"])
        expected = {
            **one,
            "timestamps": cases.padded_timestamps(start, stop),
            "request_time": cases.request_times[start:stop],
        }
        assert_same([other], [expected])
        assert other["timestamps"].dtype == other["request_time"].dtype == np.int64
        start = stop
    assert start == len(cases)


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
    with pytest.raises(ValueError, match="`shuffle_block` must be a positive integer"):
        training_dataset(rows, batch_size=3, seed=0, shuffle_block=-1)
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        evaluation_dataset(split.test, batch_size=0)
