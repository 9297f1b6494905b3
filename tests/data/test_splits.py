"""Leave-one-out and the split by the clock: nothing is lost, nothing leaks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.data import (
    build_sequences,
    events_from_frame,
    leave_one_out,
    read_events,
    temporal_split,
)


def test_parts_put_together_are_the_whole_log(sequences, split):
    held_out = dict(zip(split.test.users.tolist(), range(len(split.test)), strict=True))
    for user in range(sequences.num_users):
        items, times = sequences.user(user)
        train = sequences.items[sequences.offsets[user] : split.train_stop[user]]
        case = held_out.get(user)
        if case is None:
            assert len(items) < 3
            assert train.tolist() == items.tolist()
            continue
        validation, test = split.validation, split.test
        assert validation.users[case] == user
        # The test history goes on to the validation item.
        assert validation.history(case).tolist() == train.tolist()
        assert test.history(case).tolist() == [*train, validation.targets[case]]
        assert [*test.history(case), test.targets[case]] == items.tolist()
        assert validation.request_times[case] == times[-2]
        assert test.request_times[case] == times[-1]


def test_all_users_of_three_events_are_held_out(sequences, split):
    expected = np.flatnonzero(sequences.lengths >= 3)
    assert 0 < len(expected) < sequences.num_users  # The log has both kinds.
    assert split.test.users.tolist() == expected.tolist()
    assert len(split.validation) == len(split.test) == len(expected)


def test_padded_histories_are_whole_and_left_padded(split):
    padded = split.test.padded_histories(5, 17)
    assert padded.dtype == np.int32
    histories = [split.test.history(case) for case in range(5, 17)]
    assert padded.shape == (12, max(len(history) for history in histories))
    for row, history in zip(padded, histories, strict=True):
        assert row[len(row) - len(history) :].tolist() == history.tolist()
        assert not row[: len(row) - len(history)].any()


def test_padded_timestamps_stand_where_the_items_stand(sequences, split):
    padded = split.test.padded_timestamps(5, 17)
    assert padded.dtype == np.int64
    real = split.test.padded_histories(5, 17) != 0
    assert padded.shape == real.shape
    assert not padded[~real].any()
    for row, case in enumerate(range(5, 17)):
        _, times = sequences.user(split.test.users[case])
        assert padded[row][real[row]].tolist() == times[:-1].tolist()


def test_by_length_reorders_whole_cases(split):
    def cases(held_out):
        return [
            (user, tuple(held_out.history(case)), target, time)
            for case, (user, target, time) in enumerate(
                zip(
                    held_out.users.tolist(),
                    held_out.targets.tolist(),
                    held_out.request_times.tolist(),
                    strict=True,
                )
            )
        ]

    lengths = [len(history) for _, history, _, _ in cases(split.test.by_length())]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 1
    # Stable: users of equal length keep their order.
    by_length = sorted(cases(split.test), key=lambda case: len(case[1]))
    assert cases(split.test.by_length()) == by_length


def test_padded_histories_at_the_ends(split):
    assert len(split.test.padded_histories(0, 10**6)) == len(split.test)
    assert split.test.padded_histories(0, 0).shape == (0, 1)


def test_train_counts_are_those_of_the_training_parts(sequences, split):
    expected = np.zeros(len(sequences.vocabulary) + 1, np.int64)
    for user in range(sequences.num_users):
        part = sequences.items[sequences.offsets[user] : split.train_stop[user]]
        np.add.at(expected, part, 1)
    counts = split.train_counts()
    assert counts.tolist() == expected.tolist()
    assert counts[0] == 0
    assert counts.sum() == sequences.num_events - 2 * len(split.test)


@pytest.fixture(scope="module")
def busy():
    """60 users who come and go all the time, often several times in a second."""
    random = np.random.default_rng(2)
    count = 900
    frame = pl.DataFrame(
        {
            "user_id": random.integers(0, 60, count),
            "item_id": random.integers(0, 40, count),
            "timestamp": random.integers(-200, 200, count),
        }
    )
    return build_sequences(events_from_frame(frame))


def by_the_clock(sequences, validation_time, test_time):
    """Plain loops: every user's training events, validation case, test case."""
    train, validation, test = [], {}, {}
    for user in range(sequences.num_users):
        items, times = (part.tolist() for part in sequences.user(user))
        train.append(
            [i for i, t in zip(items, times, strict=True) if t < validation_time]
        )
        for at, time in enumerate(times):
            case = items[:at], items[at], time
            if validation_time <= time < test_time and at and user not in validation:
                if all(t < validation_time for t in times[:at]):
                    validation[user] = case
            if time >= test_time and at and user not in test:
                if all(t < test_time for t in times[:at]):
                    test[user] = case
    return train, validation, test


def cases_of(held_out):
    return {
        int(held_out.users[case]): (
            held_out.history(case).tolist(),
            int(held_out.targets[case]),
            int(held_out.request_times[case]),
        )
        for case in range(len(held_out))
    }


@pytest.mark.parametrize("quantiles", [(0.5, 0.8), (0.05, 0.1), (0.9, 0.999)])
def test_the_clock_cuts_as_plain_loops_do(busy, quantiles):
    first, second = (int(np.quantile(busy.timestamps, q)) for q in quantiles)
    split = temporal_split(busy, validation_time=first, test_time=second)
    train, validation, test = by_the_clock(busy, first, second)
    for user, expected in enumerate(train):
        part = busy.items[busy.offsets[user] : split.train_stop[user]]
        assert part.tolist() == expected
    assert cases_of(split.validation) == validation
    assert cases_of(split.test) == test
    assert validation and test


def latest_training_event(split):
    log = split.sequences
    spans = zip(log.offsets[:-1], split.train_stop, strict=True)
    return max(log.timestamps[stop - 1] for start, stop in spans if stop > start)


def test_nothing_after_the_cut_is_trained_on(busy):
    split = temporal_split(busy, validation_fraction=0.2, test_fraction=0.2)
    assert latest_training_event(split) < split.validation.request_times.min()
    assert split.validation.request_times.max() < split.test.request_times.min()
    # Everybody's training ends at one moment, which leave-one-out does not do.
    other = leave_one_out(busy)
    assert latest_training_event(other) > other.validation.request_times.min()


def test_fractions_are_those_of_events(busy):
    split = temporal_split(busy, validation_fraction=0.1, test_fraction=0.3)
    trained = (split.train_stop - busy.offsets[:-1]).sum()
    assert trained / busy.num_events == pytest.approx(0.6, abs=0.01)
    later = busy.timestamps >= split.test.request_times.min()
    assert later.mean() == pytest.approx(0.3, abs=0.02)


def test_events_at_the_very_second_of_a_cut_come_after_it():
    frame = pl.DataFrame(
        {
            "user_id": list("aaaaabbc"),
            "item_id": list("uvwxyuzv"),
            "timestamp": [-5, 0, 10, 10, 20, 3, 20, 10],
        }
    )
    sequences = build_sequences(events_from_frame(frame))
    split = temporal_split(sequences, validation_time=10, test_time=20)
    names = sequences.vocabulary.decode
    assert (split.train_stop - sequences.offsets[:-1]).tolist() == [2, 1, 0]
    assert split.validation.users.tolist() == [0]  # b has nothing then, c no history
    assert names(split.validation.targets) == ["w"]
    assert names(split.validation.history(0)) == ["u", "v"]
    assert split.test.users.tolist() == [0, 1]
    assert names(split.test.targets) == ["y", "z"]
    assert names(split.test.history(0)) == ["u", "v", "w", "x"]
    # Training never showed what is asked for here.
    assert split.unknown_targets(split.validation).tolist() == [True]
    assert split.unknown_targets(split.test).tolist() == [True, True]
    assert not leave_one_out(sequences).unknown_targets(split.test)[1:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_time": 5}, r"must lie before `test_time`.*=5, test_time=None"),
        ({"test_time": 5}, r"Received: validation_time=None, test_time=5\. Give both"),
        ({"validation_time": 9, "test_time": 9}, "must lie before `test_time`"),
        ({"test_fraction": 1.0}, "`test_fraction` must be a number in"),
        ({"test_fraction": 0.0}, r"must be above 0 .*Received: 0\.1 and 0\.0"),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.5},
            "leave something to train",
        ),
    ],
)
def test_cuts_that_make_no_sense(sequences, options, message):
    with pytest.raises(ValueError, match=message):
        temporal_split(sequences, **options)


def test_a_log_of_one_moment_cannot_be_cut():
    frame = pl.DataFrame({"user_id": ["a"] * 5, "item_id": list("uvwxy")})
    log = events_from_frame(frame.with_columns(timestamp=pl.lit(7)))
    with pytest.raises(InputError, match=r"validation_time=7, test_time=7"):
        temporal_split(build_sequences(log))


def test_movielens_100k(ml_100k):
    split = leave_one_out(build_sequences(read_events(ml_100k)))
    assert len(split.test) == 943
    assert split.train_counts().sum() == 100_000 - 2 * 943
    assert (split.test.request_times >= split.validation.request_times).all()
