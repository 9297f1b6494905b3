"""A loss that is no number: where it began, and with whom."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn import training
from tfrs_selfattn.data import pack_rows, training_dataset, write_shards
from tfrs_selfattn.training.divergence import (
    StopOnDivergence,
    users_of_batches,
    users_of_shards,
)


class Break(tf.keras.callbacks.Callback):
    """Breaks the weights by the update after a step, so the loss of the next one."""

    def __init__(self, epoch, step):
        super().__init__()
        self.at, self.epoch = (epoch, step), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, step, logs=None):
        if (self.epoch, step) == self.at:
            self.model.optimizer.learning_rate.assign(float("nan"))


def segments_of(batch):
    """The items of each segment of a batch, its last target behind them."""
    for history, targets, segments in zip(
        *(batch[name].numpy() for name in ("history", "targets", "segment_ids")),
        strict=True,
    ):
        for number in range(1, segments.max() + 1):
            (places,) = np.nonzero(segments == number)
            yield [*history[places], targets[places[-1]]]


def owners(split, window):
    """The users of whose training part a window is a piece."""
    found = set()
    for row, user in enumerate(split.sequences.user_ids):
        learned = split.train_stop[row] - split.sequences.offsets[row]
        items = list(split.sequences.user(row)[0][:learned])
        starts = range(len(items) - len(window) + 1)
        if any(items[start : start + len(window)] == window for start in starts):
            found.add(user)
    return found


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (1, 2)])
def test_it_ends_at_the_step_and_names_the_users_of_the_batch(
    make_run, split, config, tmp_path, epoch, step
):
    folder = make_run(tmp_path / "run", seed=3)
    with pytest.raises(training.TrainingDiverged) as raised:
        training.train(folder, split, callbacks=[Break(epoch, step)], verbose=0)
    text = str(raised.value)
    rows = pack_rows(split, row_length=16, seed=3)
    steps = -(-len(rows) // 8)
    step += 1  # the loss that broken weights give
    assert f"of epoch {epoch + 1} is nan" in text
    assert f"from step {step + 1} of {steps} on (the batch of the users '" in text
    assert re.search(r"lower --learning-rate; if it stops at the same step", text)
    batches = training_dataset(rows, batch_size=8, seed=3, start_epoch=epoch)
    (batch,) = batches.skip(step).take(1)
    named = users_of_batches(split, rows, config(seed=3), times=False)(epoch, step)
    windows = list(segments_of(batch))
    assert len(named) <= len(windows)
    found = [owners(split, window) for window in windows]
    assert all(each & set(named) for each in found)
    assert set(named) <= set.union(*found)
    assert all(repr(user) in text for user in named[:10])


def test_nothing_is_validated_after_it(make_run, split, tmp_path):
    class Watch(tf.keras.callbacks.Callback):
        validated = False

        def on_test_batch_end(self, batch, logs=None):
            self.validated = True

    rows = pack_rows(split, row_length=16, seed=0)
    last = -(-len(rows) // 8) - 1
    watch = Watch()
    with pytest.raises(training.TrainingDiverged):
        training.train(
            make_run(tmp_path / "run"),
            split,
            callbacks=[Break(0, last - 1), watch],
            verbose=0,
        )
    assert not watch.validated


def test_it_names_the_users_of_a_batch_of_shards_too(make_run, split, tmp_path):
    rows = write_shards(
        split, tmp_path / "rows", row_length=16, seed=3, rows_per_shard=9
    )
    folder = make_run(tmp_path / "run", seed=3)
    with pytest.raises(training.TrainingDiverged) as raised:
        training.train(folder, split, rows=rows, callbacks=[Break(0, 1)], verbose=0)
    text = str(raised.value)
    assert "from step 3 of" in text
    batches = training_dataset(rows, batch_size=8, seed=3)
    (batch,) = batches.skip(2).take(1)
    expected = set.union(*(owners(split, window) for window in segments_of(batch)))
    named = users_of_shards(split, rows, folder.config)(0, 2)
    assert set(named) == expected
    assert all(repr(user) in text for user in named[:10])


class Rate(tf.keras.callbacks.Callback):
    """A learning rate that is far too high, from an epoch on."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.optimizer.learning_rate.assign(100.0)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_finite_explosion_ends_it_and_the_best_epoch_stays(
    make_run, split, tmp_path, epoch
):
    folder = make_run(tmp_path / "run")
    with pytest.raises(training.TrainingDiverged) as raised:
        training.train(folder, split, callbacks=[Rate(epoch)], verbose=0)
    assert re.match(
        rf"The mean loss of epoch {epoch + 1} is \d[\d.e+]+, more than 2 times the "
        r"[\d.]+ that training began with\. The best .*lower --learning-rate",
        str(raised.value),
    )
    assert len(folder.metrics().get("epochs", [])) == epoch
    if epoch:
        # The same again goes on after it, and knows what training began with.
        with pytest.raises(training.TrainingDiverged, match="mean loss of epoch 2"):
            training.train(folder, split, callbacks=[Rate(1)], verbose=0)
        assert training.load_model(folder)


@pytest.mark.parametrize(
    ("first", "losses", "ends"),
    [
        (None, [3.0, 5.0, 6.0], False),
        (None, [3.0, 5.0, 6.1], True),
        (2.0, [5.0, 4.0], False),  # of the epochs before, not of this one
        (2.0, [3.0, 4.1], True),
        (None, [-1.0, 9.0], False),  # a loss that can be negative has no scale
    ],
)
def test_an_epoch_explodes_above_twice_the_first_loss(first, losses, ends):
    if not ends:
        return ended(losses, first=first)
    with pytest.raises(training.TrainingDiverged, match="The mean loss of epoch 5 is"):
        ended(losses, first=first)


def ended(losses, **options):
    stop = StopOnDivergence(len(losses), **options)
    stop.on_epoch_begin(4)
    for step, loss in enumerate(losses):
        stop.on_train_batch_end(step, {"loss": tf.constant(loss)})
    stop.on_epoch_end(4)


def test_finite_losses_do_not_end_it():
    ended([1.0, 3e38, -1.0, 0.0])  # the mean of the epoch is small in the end


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_of_several_bad_steps_is_told(bad):
    with pytest.raises(
        training.TrainingDiverged, match=rf"epoch 5 is {bad}, .* from step 2 of 4 on\."
    ):
        ended([1.0, bad, bad, bad])


def test_many_users_are_counted():
    with pytest.raises(
        training.TrainingDiverged, match=r"the users 'u0', .*'u9' and 3 more\)"
    ):
        ended([np.nan], batch_users=lambda epoch, step: [f"u{n}" for n in range(13)])
