"""Leave-one-out: nothing is lost, nothing leaks."""

from __future__ import annotations

import numpy as np

from tfrs_selfattn.data import build_sequences, leave_one_out, read_events


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


def test_movielens_100k(ml_100k):
    split = leave_one_out(build_sequences(read_events(ml_100k)))
    assert len(split.test) == 943
    assert split.train_counts().sum() == 100_000 - 2 * 943
    assert (split.test.request_times >= split.validation.request_times).all()
