"""Cut histories: the same targets in smaller pieces, others in every step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.data import (
    cut_histories,
    pack_rows,
    steps_per_epoch,
    training_dataset,
)

T = 64


def rows_of(segments, count):
    """`count` batches of these rows, cut in half of their rows."""
    batch = {"history": segments * 3, "segment_ids": segments}
    dataset = tf.data.Dataset.from_tensors(batch).repeat(count)
    return list(cut_histories(dataset, 0.5, seed=7).as_numpy_iterator())


@pytest.fixture(scope="module")
def whole():
    """300 rows of one history of T items."""
    return np.ones([300, T], np.int32)


@pytest.fixture(scope="module")
def cut(whole):
    return np.concatenate([batch["segment_ids"] for batch in rows_of(whole, 20)])


def test_pieces_lie_within_what_they_are_cut_of():
    segments = np.array([[1] * 9 + [2] * 7 + [0] * 3, [0, 0, *[5] * 17]], np.int32)
    seen = set()
    for batch in rows_of(segments, 200):
        np.testing.assert_array_equal(batch["history"], segments * 3)
        for before, after in zip(segments, batch["segment_ids"], strict=True):
            np.testing.assert_array_equal(after > 0, before > 0)
            numbers = after[after > 0]
            assert numbers[0] == 1
            steps = np.diff(numbers)
            assert set(steps) <= {0, 1}
            # Where a history begins, a piece begins.
            assert (steps[np.diff(before[before > 0]) != 0] == 1).all()
            seen.add(tuple(after))
    assert len(seen) > 50


def test_so_many_rows_are_cut(cut):
    # A cut row stays whole when no item of it begins a piece.
    u = np.linspace(0, 1, 10_000)
    stays_whole = np.mean((1 - float(T) ** -u) ** (T - 1))
    share = 0.5 * (1 - stays_whole)
    assert (cut[:, -1] > 1).mean() == pytest.approx(share, abs=0.03)


def test_pieces_are_of_every_size(cut):
    """What begins a piece is T^-u of the items, u uniform; by plain integration."""
    begins = np.diff(cut, axis=1)
    chance = (1 - 1 / T) / np.log(T)
    assert begins.mean() == pytest.approx(0.5 * chance, rel=0.05)
    some = cut[cut[:, -1] > 1]
    pieces = np.concatenate([np.bincount(row)[1:] for row in some])
    items = {
        "single": pieces[pieces == 1].sum(),
        "few": pieces[(pieces > 1) & (pieces <= 5)].sum(),
        "some": pieces[(pieces > 5) & (pieces <= 20)].sum(),
        "many": pieces[pieces > 20].sum(),
    }
    for count in items.values():
        assert count > 0.1 * pieces.sum(), items


def test_steps_differ_and_a_resumed_dataset_equals_the_rest(split):
    rows = pack_rows(split, row_length=13)
    steps = steps_per_epoch(rows, 7)

    def shown(epoch, seed=3, worker=0):
        dataset = training_dataset(rows, batch_size=7, seed=3, start_epoch=epoch)
        dataset = cut_histories(
            dataset, 0.5, seed=seed, start_step=epoch * steps, worker=worker
        )
        taken = dataset.take((2 - epoch) * steps).as_numpy_iterator()
        return np.concatenate([batch["segment_ids"] for batch in taken])

    whole = shown(0)
    np.testing.assert_array_equal(whole[len(rows) :], shown(1))
    assert (whole[: len(rows)] != shown(0, seed=4)[: len(rows)]).any()
    assert (whole != shown(0, worker=1)).any()


def test_the_batches_keep_their_form(split):
    rows = pack_rows(split, row_length=13, times=True)
    dataset = training_dataset(rows, batch_size=7, seed=3)
    cut = cut_histories(dataset, 0.5, seed=3)
    assert cut.element_spec == dataset.element_spec
    assert cut.cardinality() == tf.data.INFINITE_CARDINALITY
    assert cut_histories(dataset, 0, seed=3) is dataset


def test_no_rows_of_a_worker_are_cut_into_no_rows():
    batch = {"segment_ids": np.zeros([0, T], np.int32)}
    dataset = cut_histories(tf.data.Dataset.from_tensors(batch), 0.5, seed=0)
    assert next(iter(dataset))["segment_ids"].shape == (0, T)


@pytest.mark.parametrize("share", [1, -0.1, "much"])
def test_shares_that_are_none(share):
    with pytest.raises(ValueError, match=r"`share` must be a number in \[0, 1\)"):
        cut_histories(tf.data.Dataset.range(3), share, seed=0)
