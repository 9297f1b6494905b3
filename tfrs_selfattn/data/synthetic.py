"""Generated event logs, for tests and benchmarks.

One looks like real traffic (`generate_events`); the other can be predicted to a known
degree (`markov_events`), so that a model is measured against the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import check_positive_int

_FIRST_SECOND = 1_600_000_000


def generate_events(
    num_users: int,
    num_items: int,
    mean_length: float,
    seed: int,
    *,
    exponent: float = 1.0,
) -> pl.DataFrame:
    """Draws a log in which items are popular by Zipf's law and users come and go.

    Nothing but popularity can be learned from it: every item is drawn by itself.

    Args:
        num_users: int. Each has at least one event.
        num_items: int. Items to draw from.
        mean_length: float. Mean events of a user, at least 1; geometric.
        seed: int.
        exponent: float. Item r is drawn in proportion to `r ** -exponent`; 0 makes
            all items alike. Defaults to `1.0`.

    Returns:
        frame of `user_id`, `item_id`, `timestamp`, in the order of time.
    """
    num_users = check_positive_int("num_users", num_users)
    num_items = check_positive_int("num_items", num_items)
    if not mean_length >= 1:
        raise ValueError(
            f"`mean_length` must be at least 1. Received: mean_length={mean_length}. "
            "Every user has an event."
        )
    random = np.random.default_rng(seed)
    lengths = random.geometric(1.0 / mean_length, num_users)
    users = np.repeat(np.arange(num_users, dtype=np.int32), lengths)
    weights = np.cumsum(np.arange(1, num_items + 1) ** -float(exponent))
    draws = random.random(len(users)) * weights[-1]
    items = np.searchsorted(weights, draws, side="right").astype(np.int32)
    # A user arrives within a year and then acts about twice an hour.
    times = np.repeat(random.integers(0, 365 * 86400, num_users), lengths)
    times += _cumulate(random.integers(1, 3600, len(users)), lengths)
    order = np.argsort(times, kind="stable")
    return _log(users[order], items[order], times[order])


@dataclass(frozen=True, eq=False)
class MarkovLog:
    """A log whose next item depends on the current one alone.

    Items stand on a ring of N; from each, the next is 1, 2, … m steps ahead with the
    given probabilities. No user walks a whole round, so no item comes twice, and
    filtering seen items changes nothing. All items are equally popular.

    Args:
        frame: `user_id`, `item_id`, `timestamp`, in the order of time.
        probabilities: of 1, 2, … m steps ahead, summing to 1.
    """

    frame: pl.DataFrame
    probabilities: tuple[float, ...]

    def best_hit_rate(self, k: int) -> float:
        """The expected hit rate at `k` of the best possible recommender."""
        best_first = sorted(self.probabilities, reverse=True)
        return float(sum(best_first[: check_positive_int("k", k)]))


def markov_events(
    num_users: int,
    num_items: int,
    length: int,
    *,
    probabilities: Sequence[float] = (0.6, 0.25, 0.1, 0.05),
    seed: int = 0,
) -> MarkovLog:
    """Walks each user along the ring of items; see `MarkovLog`.

    Args:
        num_users: int.
        num_items: int. N, at least `length` times the number of probabilities.
        length: int. Events of each user.
        probabilities: of 1, 2, … steps ahead.
        seed: int. Defaults to `0`.
    """
    num_users = check_positive_int("num_users", num_users)
    length = check_positive_int("length", length)
    steps = len(probabilities)
    if num_items < length * steps:
        raise ValueError(
            f"`num_items` must be at least length * len(probabilities) = "
            f"{length * steps}, so that no user meets an item twice. Received: "
            f"num_items={num_items}. Use more items or shorter walks."
        )
    if min(probabilities) < 0 or not np.isclose(sum(probabilities), 1.0):
        raise ValueError(
            f"`probabilities` must be at least 0 and sum to 1. Received: "
            f"{tuple(probabilities)}, which sum to {sum(probabilities)}."
        )
    random = np.random.default_rng(seed)
    walks = 1 + random.choice(steps, [num_users, length], p=list(probabilities))
    walks[:, 0] = random.integers(0, num_items, num_users)
    positions = np.cumsum(walks, axis=1) % num_items  # [B, T]
    # Neighbours on the ring get unrelated ids: nothing is to be learned from them.
    items = random.permutation(num_items)[positions]
    times = 60 * np.arange(length)[:, None] + np.zeros(num_users, np.int64)  # [T, B]
    users = np.broadcast_to(np.arange(num_users), times.shape)
    log = _log(users.reshape(-1), items.T.reshape(-1), times.reshape(-1))
    return MarkovLog(log, tuple(float(p) for p in probabilities))


def _cumulate(
    steps: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Cumulative sums that begin anew with each of the runs of these lengths."""
    total = np.cumsum(steps)
    before = np.concatenate([[0], total[np.cumsum(lengths)[:-1] - 1]])
    restarted: npt.NDArray[np.int64] = total - np.repeat(before, lengths)
    return restarted


def _log(
    users: npt.NDArray[np.integer],
    items: npt.NDArray[np.integer],
    times: npt.NDArray[np.int64],
) -> pl.DataFrame:
    codes = pl.DataFrame({"user": users, "item": items, "timestamp": times})
    return codes.select(
        user_id=pl.format("u{}", "user"),
        item_id=pl.format("i{}", "item"),
        timestamp=pl.col("timestamp") + _FIRST_SECOND,
    )
