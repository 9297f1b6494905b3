"""Finds out whether a recommender sees what it is asked to predict.

What must not be seen is changed; what is scored must stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.evaluation.evaluate import batches, score_inputs, take

if TYPE_CHECKING:
    from tfrs_selfattn.data.sequences import Sequences
    from tfrs_selfattn.data.splits import EvaluationSet, Split


class LeakError(AssertionError):
    """A target or a later event is visible to what is being evaluated."""


def check_no_leak(
    score: Callable[..., Any],
    cases: EvaluationSet,
    *,
    batch_size: int = 256,
    seed: int = 0,
) -> None:
    """Checks that scores do not depend on the targets or on what came after them.

    First, that every case's history ends before its target. Then each case is scored
    twice: as it is, and while its target and the later events of its user are other
    items, at later times. They are changed in the arrays of `cases.sequences` and
    `cases.targets` themselves and put back afterwards, so that a scoring function
    that reads these arrays is found out as well as one that is handed too much.

    What a model learned in training cannot be found this way: see
    `check_no_training_leak`.

    Args:
        score: as of `evaluate_ranking`; deterministic.
        cases: the `EvaluationSet` of a split, of which no one else makes use meanwhile.
        batch_size: int. Users scored at a time. Defaults to `256`.
        seed: int. Of the items put in their places. Defaults to `0`.

    Raises:
        LeakError: naming the first case that sees too much.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    _check_positions(cases)
    random = np.random.default_rng(seed)
    # A user's second case may see the target of the first: one case a user at a time.
    for round_of_cases in _one_case_a_user(cases.users):
        for part in batches(len(round_of_cases), batch_size):
            chosen = round_of_cases[part]
            before = _scores(score, take(cases, chosen))
            with _other_future(cases, chosen, random):
                after = _scores(score, take(cases, chosen))
            _compare_scores(before, after, cases, chosen)


def check_no_training_leak(
    fit: Callable[[Split], Callable[..., Any]],
    split: Split,
    *,
    batch_size: int = 256,
    seed: int = 0,
) -> None:
    """Checks that training sees nothing of what validation and test hold out.

    Fits twice: to the split as it is, and while all held-out events are other items.
    The two must give the test cases, with their histories as they are, the same scores.

    Args:
        fit: function from a `Split` to a scoring function, a baseline's class for
            instance; deterministic, for a model by a fixed seed.
        split: the `Split`, of which no one else makes use meanwhile.
        batch_size: int. Users scored at a time. Defaults to `256`.
        seed: int. Of the items put in the place of held-out ones. Defaults to `0`.

    Raises:
        LeakError: naming the first case whose scores depend on held-out events.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    random = np.random.default_rng(seed)
    score = fit(split)
    with _other_held_out(split, random):
        other = fit(split)
    for part in batches(len(split.test), batch_size):
        chosen = np.arange(part.start, part.stop)
        cases = take(split.test, chosen)
        _compare_scores(
            _scores(score, cases), _scores(other, cases), split.test, chosen
        )


def _check_positions(cases: EvaluationSet) -> None:
    """Every history stops where its target stands, within one user's events."""
    sequences = cases.sequences
    starts, ends = sequences.offsets[cases.users], sequences.offsets[cases.users + 1]
    stops = cases.history_stop
    inside = (stops >= starts) & (stops < ends)
    at_stop = np.where(inside, stops, 0)
    good = inside & (sequences.items[at_stop] == cases.targets)
    good &= sequences.timestamps[at_stop] == cases.request_times
    if not good.all():
        case = int(np.argmin(good))
        raise LeakError(
            "Every history must end right before its target. Received: the history "
            f"of case {case}, user {_name(cases, case)}, stops at position "
            f"{int(stops[case] - starts[case])} of {int(ends[case] - starts[case])}, "
            "where another event stands than its target. Check `history_stop` and "
            "`targets`."
        )


def _one_case_a_user(users: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Case numbers, in rounds in which no user comes twice."""
    order = np.argsort(users, kind="stable")
    first = np.flatnonzero(np.diff(users[order], prepend=-1))
    which = np.arange(len(users)) - np.repeat(first, np.diff([*first, len(users)]))
    for number in range(int(which.max(initial=-1)) + 1):
        yield np.sort(order[which == number])


def _scores(score: Callable[..., Any], cases: EvaluationSet) -> np.ndarray[Any, Any]:
    return np.array(score(*score_inputs(score, cases, slice(0, len(cases)))))


def _compare_scores(
    before: np.ndarray[Any, Any],
    after: np.ndarray[Any, Any],
    cases: EvaluationSet,
    chosen: np.ndarray[Any, Any],
) -> None:
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    if not same.all():
        row, column = np.argwhere(~same)[0]
        raise LeakError(
            "Scores must not depend on the target or on later events. Received: for "
            f"case {chosen[row]}, user {_name(cases, chosen[row])}, the score of item "
            f"{cases.sequences.vocabulary.ids[column]!r} changed from "
            f"{before[row, column]} to {after[row, column]} with them. Look for what "
            "reads whole sequences or the targets, or for scores that differ from "
            "call to call (dropout)."
        )


@contextmanager
def _other_future(
    cases: EvaluationSet, chosen: np.ndarray[Any, Any], random: np.random.Generator
) -> Iterator[None]:
    """Other items, at later times, from the target on; then what was there."""
    sequences = cases.sequences
    stops = cases.history_stop[chosen]
    ends = sequences.offsets[cases.users[chosen] + 1]
    events = _ranges(stops, ends)
    with (
        _replaced(sequences.items, events, _others(sequences, events, random)),
        # The request time, which `cases` holds, is known to who is asked.
        _replaced(sequences.timestamps, events, sequences.timestamps[events] + 1),
        _replaced(cases.targets, chosen, sequences.items[stops]),
    ):
        yield


@contextmanager
def _other_held_out(split: Split, random: np.random.Generator) -> Iterator[None]:
    sequences = split.sequences
    events = _ranges(split.train_stop, sequences.offsets[1:])
    validation, test = split.validation, split.test
    with (
        _replaced(sequences.items, events, _others(sequences, events, random)),
        _replaced(
            validation.targets, slice(None), sequences.items[validation.history_stop]
        ),
        _replaced(test.targets, slice(None), sequences.items[test.history_stop]),
    ):
        yield


@contextmanager
def _replaced(
    array: np.ndarray[Any, Any],
    where: np.ndarray[Any, Any] | slice,
    values: np.ndarray[Any, Any],
) -> Iterator[None]:
    known, writeable = array[where].copy(), array.flags.writeable
    array.flags.writeable = True
    array[where] = values
    try:
        yield
    finally:
        array[where] = known
        array.flags.writeable = writeable


def _others(
    sequences: Sequences, events: np.ndarray[Any, Any], random: np.random.Generator
) -> np.ndarray[Any, Any]:
    """For each event an item index that is not its own."""
    num_items = len(sequences.vocabulary)
    if num_items < 2:
        raise ValueError(
            "`cases` must have at least two items to tell apart. Received: "
            f"{num_items}. Use a larger log."
        )
    steps = random.integers(1, num_items, len(events))
    others: np.ndarray[Any, Any] = (sequences.items[events] - 1 + steps) % num_items + 1
    return others


def _ranges(
    starts: np.ndarray[Any, Any], stops: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The integers of all `range(start, stop)`, one after the other."""
    lengths = np.maximum(stops - starts, 0)
    shift = np.cumsum(lengths) - lengths
    return np.repeat(starts - shift, lengths) + np.arange(int(lengths.sum()))


def _name(cases: EvaluationSet, case: int) -> str:
    return repr(cases.sequences.user_ids[int(cases.users[case])])
