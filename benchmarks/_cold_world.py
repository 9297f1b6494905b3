"""A log without some of its items, what is asked about it, and baselines.

Scores are functions from histories int32 `[B, T]` and the users that they are of, int
`[B]`, to float `[B, N + M]`: the N items of training, then the M held-out ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import tensorflow as tf

from tfrs_selfattn.data import (
    Split,
    build_sequences,
    events_from_frame,
    leave_one_out,
    read_events,
)
from tfrs_selfattn.evaluation import ItemToItem

Score: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]

HELD_OUT = 0.1
_BATCH = 256
# How many of the newest events are known, by the name of the case.
_KNOWN_EVENTS = {
    "warm, no event": (0, 0),
    "warm, 1 event": (1, 1),
    "warm, 2 events": (2, 2),
    "warm, 3 to 5": (3, 5),
}


@dataclasses.dataclass(frozen=True)
class World:
    """A log without its held-out items, and what happened to those."""

    split: Split
    cold_ids: list[str]
    cold_users: np.ndarray  # rows of users
    cold_histories: list[np.ndarray]  # item indices of the rest
    cold_targets: np.ndarray  # places in `cold_ids`
    cold_counts: np.ndarray
    seed: int

    @property
    def num_warm(self) -> int:
        """N."""
        return len(self.split.sequences.vocabulary)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is asked: the rank of a target for each history, among eligible columns."""

    name: str
    users: np.ndarray
    histories: list[np.ndarray]
    targets: np.ndarray
    eligible: np.ndarray


def hold_out(path: Path, min_item_events: int, seed: int) -> World:
    """Draws the items to hold out and takes their events out of the log."""
    whole = build_sequences(read_events(path), min_item_events=min_item_events)
    ids = whole.vocabulary.ids
    draw = np.random.default_rng([seed, 10])
    cold = np.zeros(len(ids) + 1, bool)
    cold[1 + draw.choice(len(ids), round(HELD_OUT * len(ids)), replace=False)] = True
    is_cold = cold[whole.items]
    owner = np.repeat(np.arange(whole.num_users), whole.lengths)
    names = np.array(["", *ids], object)
    frame = pl.DataFrame(
        {
            "user_id": whole.user_ids.to_numpy()[owner[~is_cold]],
            "item_id": names[whole.items[~is_cold]],
            "timestamp": whole.timestamps[~is_cold],
        }
    )
    split = leave_one_out(build_sequences(events_from_frame(frame)))
    warm = split.sequences
    place_of = {item: place for place, item in enumerate(names[cold])}
    row_of = {user: row for row, user in enumerate(warm.user_ids.to_list())}
    users, histories, targets = [], [], []
    for user, name in enumerate(whole.user_ids.to_list()):
        events = slice(whole.offsets[user], whole.offsets[user + 1])
        at = np.flatnonzero(is_cold[events])
        if not len(at) or name not in row_of:
            continue
        row = row_of[name]
        before = int((~is_cold[events][: at[-1]]).sum())  # in the order of the log
        start = warm.offsets[row]
        before = min(before, int(split.train_stop[row] - start))
        if before:
            users.append(row)
            histories.append(warm.items[start : start + before])
            targets.append(place_of[names[whole.items[events][at[-1]]]])
    counts = np.bincount(whole.items, minlength=len(ids) + 1)[cold]
    return World(
        split,
        list(names[cold]),
        np.array(users),
        histories,
        np.array(targets),
        counts,
        seed,
    )


def cases_of(world: World) -> Iterator[Case]:
    """All that is asked of a method."""
    test = world.split.test
    users = np.asarray(test.users)
    histories = [test.history(case) for case in range(len(test))]
    targets = test.targets.astype(np.int64) - 1
    total = world.num_warm + len(world.cold_ids)
    warm = np.arange(total) < world.num_warm
    yield Case("warm", users, histories, targets, warm)
    draw = np.random.default_rng([world.seed, 11])
    for name, (least, most) in _KNOWN_EVENTS.items():
        counts = draw.integers(least, most + 1, len(histories))
        known = [
            history[len(history) - min(count, len(history)) :]
            for history, count in zip(histories, counts.tolist(), strict=True)
        ]
        yield Case(name, users, known, targets, warm)
    new = world.cold_targets + world.num_warm
    for name, eligible in (("cold, all", np.ones(total, bool)), ("cold, new", ~warm)):
        yield Case(name, world.cold_users, world.cold_histories, new, eligible)


def ranks_of(score: Score, case: Case) -> np.ndarray:
    """The rank of each target among the eligible columns; ties and -inf are last."""
    ranks = np.empty(len(case.targets), np.int64)
    lengths = [len(history) for history in case.histories]
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        width = max(1, *(lengths[row] for row in part))
        padded = np.zeros([len(part), width], np.int32)
        for line, row in enumerate(part):
            padded[line, width - lengths[row] :] = case.histories[row]
        scores = np.where(case.eligible, score(padded, case.users[part]), np.nan)
        wanted = scores[np.arange(len(part)), case.targets[part]]
        for line, row in enumerate(part):  # what was seen is not recommended
            seen = case.histories[row] - 1
            scores[line, seen[seen != case.targets[row]]] = np.nan
        ranks[part] = (scores >= wanted[:, None]).sum(axis=1)  # NaN is not
    return ranks


def constant(scores: list[float]) -> Score:
    """The same scores for everybody."""
    row = np.array(scores)
    return lambda histories, users: np.tile(row, [len(histories), 1])


def transitions(world: World) -> Score:
    """What came after the newest item in training; held-out items never did."""
    found = ItemToItem(world.split)
    return lambda histories, users: np.pad(
        np.asarray(found(histories), np.float64),
        [(0, 0), (0, len(world.cold_ids))],
        constant_values=-np.inf,
    )


def word_neighbours(rows: Any, num_tokens: int) -> Score:
    """Cosines of TF-IDF vectors of tokens with the sum of those of the history."""
    lengths = np.diff(rows.splits)
    items = np.repeat(np.arange(len(lengths)), lengths)
    shares = np.bincount(rows.tokens, minlength=num_tokens) / len(lengths)
    weights = rows.weights * -np.log(np.maximum(shares, 1e-9))[rows.tokens]
    # A title may say a word twice.
    places, place = np.unique(items * num_tokens + rows.tokens, return_inverse=True)
    weights = np.bincount(place, weights)
    items, tokens = np.divmod(places, num_tokens)
    norms = np.sqrt(np.bincount(items, weights**2, minlength=len(lengths)))
    # A few words of many thousands: dense vectors of Amazon Beauty take minutes.
    matrix = tf.SparseTensor(
        np.stack([items, tokens], axis=1),
        (weights / np.maximum(norms, 1e-9)[items]).astype(np.float32),
        [len(lengths), num_tokens],
    )

    def score(histories: np.ndarray, users: np.ndarray) -> np.ndarray:
        seen = np.zeros([len(lengths), len(histories)], np.float32)
        user, place = np.nonzero(histories)
        np.add.at(seen, (histories[user, place] - 1, user), 1)
        profiles = tf.sparse.sparse_dense_matmul(matrix, seen, adjoint_a=True)
        found = tf.sparse.sparse_dense_matmul(matrix, profiles)
        return np.asarray(found.numpy().T)

    return score


def vector_neighbours(matrix: np.ndarray) -> Score:
    """Cosines of vectors of all items `[N + M, d]` with the history's sum."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix = matrix / np.maximum(lengths, 1e-9)

    def score(histories: np.ndarray, users: np.ndarray) -> np.ndarray:
        profiles = np.zeros([len(histories), matrix.shape[1]], np.float32)
        for row, history in enumerate(histories):
            profiles[row] = matrix[history[history > 0] - 1].sum(axis=0)
        return profiles @ matrix.T

    return score
