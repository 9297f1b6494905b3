"""What is said of a run after every epoch."""

from __future__ import annotations

import pytest

from tfrs_selfattn.training.progress import RunProgress, duration


def test_each_epoch_says_how_long_the_others_will_take():
    lines, now = [], [100.0]
    progress = RunProgress(5, lines.append, lambda: now[0])
    progress.on_train_begin()
    for epoch, seconds in ((2, 90.0), (3, 30.0), (4, 30.0)):  # two were there before
        progress.on_epoch_begin(epoch)
        assert len(lines) == epoch - 2  # Keras' own bar has ended before it is said
        now[0] += seconds
        speed = 20_233.4 + epoch
        progress.on_epoch_end(epoch, {"items/s": speed, "val_ndcg@10": 0.19554})
    progress.on_train_end()
    assert lines == [
        "Epoch 3/5, 20,235 items/s, validation NDCG@10 0.1955, 3 min 0 s left",
        "Epoch 4/5, 20,236 items/s, validation NDCG@10 0.1955, 1 min 0 s left",
        "Epoch 5/5, 20,237 items/s, validation NDCG@10 0.1955, the last one",
    ]


def test_what_is_not_measured_is_not_said():
    lines = []
    progress = RunProgress(2, lines.append, lambda: 0.0)
    progress.on_train_begin()
    progress.on_epoch_end(0)
    progress.on_train_end()
    assert lines == ["Epoch 1/2, 0 s left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 5 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_a_time(seconds, text):
    assert duration(seconds) == text
