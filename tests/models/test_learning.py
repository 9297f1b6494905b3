"""Does it learn what can be learned, and nothing that cannot? Both sides are bounded.

Leakage makes a model too good, so each test has an upper bound as well.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from tfrs_selfattn import data
from tfrs_selfattn._keras import keras
from tfrs_selfattn.evaluation import check_no_leak, evaluate_ranking
from tfrs_selfattn.models import presets


def split_of(items):
    """Leave-one-out of equally long histories `[B, T]` of item numbers."""
    users, steps = np.indices(items.shape)
    frame = pl.DataFrame(
        {
            "user_id": users.reshape(-1).astype(str),
            "item_id": items.reshape(-1).astype(str),
            "timestamp": steps.reshape(-1),
        }
    )
    return data.leave_one_out(data.build_sequences(data.events_from_frame(frame)))


def small_model(split, max_length):
    keras.utils.set_random_seed(0)
    return presets.sasrec(
        len(split.sequences.vocabulary),
        embedding_dim=32,
        num_blocks=1,
        max_length=max_length,
        dropout=0.0,
        seed=0,
    )


def trained_model(split, row_length, epochs):
    model = small_model(split, row_length)
    model.compile(keras.optimizers.Adam(5e-3))
    rows = data.pack_rows(split, row_length=row_length)
    model.fit(
        data.training_dataset(rows, batch_size=64, seed=0),
        steps_per_epoch=data.steps_per_epoch(rows, 64),
        epochs=epochs,
        verbose=0,
    )
    return model


def hit_rate(model, split, k, filter_seen):
    result = evaluate_ranking(
        model.score, split.test, ks=(k,), filter_seen=filter_seen, batch_size=2048
    )
    return result.metrics[f"hr@{k}"]


def deviation(rate, split):
    """The standard deviation of a hit rate over these users."""
    return np.sqrt(rate * (1 - rate) / len(split.test))


@pytest.mark.parametrize("filter_seen", [True, False])
def test_an_untrained_model_scores_what_chance_does(filter_seen):
    frame = data.generate_events(2000, 100, 8.0, seed=0, exponent=0.0)
    split = data.leave_one_out(data.build_sequences(data.events_from_frame(frame)))
    # Of the items that compete, k are hits. The target competes even when seen.
    chance = []
    for case in range(len(split.test)):
        left_out = set(split.test.history(case).tolist()) - {split.test.targets[case]}
        chance.append(10 / (100 - len(left_out) * filter_seen))
    expected = np.mean(chance)
    rate = hit_rate(small_model(split, 16), split, 10, filter_seen)
    assert abs(rate - expected) < 4 * deviation(expected, split)


def test_a_markov_chain_is_learned_as_far_as_it_can_be():
    log = data.markov_events(2000, 64, 14, seed=3)
    split = data.leave_one_out(data.build_sequences(data.events_from_frame(log.frame)))
    model = trained_model(split, 12, epochs=5)
    for k in (1, 2):
        best = log.best_hit_rate(k)
        rate = hit_rate(model, split, k, filter_seen=True)
        assert 0.95 * best < rate < best + 4 * deviation(best, split)
    check_no_leak(model.score, split.test, batch_size=2048)


# From each item to its successor with probability STAY, else to any item at all.
NUM_ITEMS, LENGTH, NUM_USERS, STAY = 40, 16, 2000, 0.7


def walks_with_jumps():
    """Items int `[B, T]`, and whether each one was jumped to, bool `[B, T]`."""
    random = np.random.default_rng(0)
    successor = np.empty(NUM_ITEMS, np.int64)
    circle = random.permutation(NUM_ITEMS)
    successor[circle] = np.roll(circle, -1)
    jumped = random.random([NUM_USERS, LENGTH]) > STAY
    jumped[:, 0] = True
    items = random.integers(0, NUM_ITEMS, [NUM_USERS, LENGTH])
    for step in range(1, LENGTH):
        onwards = successor[items[:, step - 1]]
        items[:, step] = np.where(jumped[:, step], items[:, step], onwards)
    return items, jumped


def best_without_order(items, jumped):
    """An upper bound on HR@1 of whatever knows a history but not its order.

    A history is a sequence of runs, each begun by a jump. Tell the predictor more than
    it may know: the runs themselves, but not in which order they came. Jumps come
    independently and with equal probability at every step, so a history's probability
    does not depend on the order of its runs: each run was the last one equally often.
    The target is the successor of the last run's end with probability STAY and any
    item otherwise. To guess item j is then right with probability STAY times the share
    of runs whose end j succeeds, plus (1 − STAY) / N: at best, the most frequent end.
    """
    best = []
    for history, jumps in zip(items[:, :-1], jumped[:, :-1], strict=True):
        ends = history[[*(np.flatnonzero(jumps)[1:] - 1), -1]]
        most_frequent = Counter(ends.tolist()).most_common(1)[0][1]
        best.append(STAY * most_frequent / len(ends) + (1 - STAY) / NUM_ITEMS)
    return np.mean(best)


def test_without_the_order_it_knows_no_more_than_can_be_known():
    items, jumped = walks_with_jumps()
    best = STAY + (1 - STAY) / NUM_ITEMS
    bound = best_without_order(items, jumped)
    assert bound < best / 2  # The order is worth something.

    ordered = split_of(items)
    model = trained_model(ordered, LENGTH, epochs=4)
    rate = hit_rate(model, ordered, 1, filter_seen=False)
    assert 0.95 * best < rate < best + 4 * deviation(best, ordered)

    # All but the target: it stays the next item of a history that has lost its order.
    # Item indices stay the same, because every item is as frequent as before.
    mixed = items.copy()
    np.random.default_rng(1).permuted(items[:, :-1], axis=1, out=mixed[:, :-1])
    shuffled = split_of(mixed)
    limit = bound + 4 * deviation(bound, shuffled)
    retrained = trained_model(shuffled, LENGTH, epochs=4)
    for learned in (model, retrained):
        assert hit_rate(learned, shuffled, 1, filter_seen=False) < limit
