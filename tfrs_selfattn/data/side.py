"""What is known of events and of requests beside ids, as numbers that a model reads.

What the numbers mean is the business of `features`; here they follow the events, into
training rows, shards and held-out cases.

Shape alphabet: E events, n different things, L tokens of a thing, F numbers of it, M
places asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn.data.splits import EvaluationSet, Split

# From a column of the log and the log's name to checked raw values of its rows.
ReadColumn: TypeAlias = Callable[[pl.Series, str], npt.NDArray[Any]]

PARTS = ("tokens", "weights", "dense")
# What a model takes, and whether it is known of an event or of the request for it.
QUERY, EVENT = "query_features", "event_features"


@dataclass(frozen=True, eq=False)
class SideTable:
    """Encoded features of n different things, and which of them goes with which event.

    Args:
        splits: int64 `[n + 1]`. Thing i has the tokens `tokens[splits[i]:splits[i +
            1]]`, and likewise weights.
        tokens: int32 `[nnz]`.
        weights: float32 `[nnz]`.
        dense: float32 `[n, F]`.
        thing_of: int32 `[E]`. The thing of each event of the log.
    """

    splits: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    dense: npt.NDArray[np.float32]
    thing_of: npt.NDArray[np.int32]

    @cached_property
    def widths(self) -> dict[str, int]:
        """How many tokens, weights and numbers an event has, padded to the longest."""
        longest = int(np.diff(self.splits).max(initial=0))
        return dict(zip(PARTS, (longest, longest, self.dense.shape[1]), strict=True))

    def at(self, places: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """What is known at some events.

        Args:
            places: int `[M]`. Places in the log.

        Returns:
            `tokens` int32 `[M, L]` and `weights` float32 `[M, L]`, padded with 0, and
            `dense` float32 `[M, F]`.
        """
        things = self.thing_of[places]
        first, stop = self.splits[things], self.splits[things + 1]
        entries = first[:, None] + np.arange(self.widths["tokens"])  # [M, L]
        real = entries < stop[:, None]
        entries = np.where(real, entries, 0)
        if not len(self.tokens):
            nothing = np.zeros(entries.shape, np.int32)
            return {
                "tokens": nothing,
                "weights": nothing.astype(np.float32),
                "dense": self.dense[things],
            }
        return {
            "tokens": np.where(real, self.tokens[entries], 0).astype(np.int32),
            "weights": np.where(real, self.weights[entries], 0).astype(np.float32),
            "dense": self.dense[things],
        }


def with_sides(split: Split, sides: Mapping[str, SideTable]) -> Split:
    """The same split, whose rows and cases say what is known beside ids.

    Args:
        split: `Split`.
        sides: by what a model takes, `"query_features"` (what is known when the item of
            an event is asked for: of the user, and of the request) or
            `"event_features"` (what is known of an event that has happened).
    """
    sequences = replace(split.sequences, sides=dict(sides))

    def moved(cases: EvaluationSet) -> EvaluationSet:
        return replace(cases, sequences=sequences)

    return replace(
        split,
        sequences=sequences,
        validation=moved(split.validation),
        test=moved(split.test),
    )


def side_columns(split: Split) -> dict[str, tuple[str, int]]:
    """Columns of training rows that features need: by name, type and width."""
    types = dict(zip(PARTS, ("int32", "float32", "float32"), strict=True))
    return {
        f"{name}/{part}": (types[part], width)
        for name, table in split.sequences.sides.items()
        for part, width in table.widths.items()
    }


def of_pairs(
    sides: Mapping[str, SideTable],
    source: npt.NDArray[np.int64],
    blank: npt.NDArray[np.bool_],
) -> dict[str, npt.NDArray[Any]]:
    """The values of those columns for (input, target) pairs.

    Args:
        sides: as of `with_sides`.
        source: int64 `[M]`. Where each input stands in the log; its target is next.
        blank: bool `[M]`. Where there is no input.
    """
    columns = {}
    for name, table in sides.items():
        asked = source + 1 if name == QUERY else np.where(blank, 0, source)
        for part, values in table.at(asked).items():
            if name == EVENT and blank.any():
                values[blank] = 0
            columns[f"{name}/{part}"] = values
    return columns


def of_cases(
    cases: EvaluationSet, start: int, stop: int
) -> dict[str, tuple[npt.NDArray[Any], ...]]:
    """What is known of the cases `start:stop`, as a model takes it.

    Returns:
        `query_features`, tokens, weights and numbers of `[b]` requests, and
        `event_features`, those of `[b, longest]` events, padded on the left as
        histories are; each only where the log has them.
    """
    found = {}
    stops = cases.history_stop[start:stop]
    starts = cases.sequences.offsets[cases.users[start:stop]]
    width = max(1, int((stops - starts).max(initial=0)))
    places = stops[:, None] + np.arange(-width, 0)  # [b, longest]
    real = places >= starts[:, None]
    for name, table in cases.sequences.sides.items():
        if name == QUERY:
            # The request for the target: its user, and what came with it.
            found[name] = tuple(table.at(stops)[part] for part in PARTS)
            continue
        parts = table.at(np.where(real, places, 0).reshape(-1))
        found[name] = tuple(
            np.where(
                real[..., None],
                # Not -1 for the width: there may be no case.
                parts[part].reshape(*real.shape, table.widths[part]),
                0,
            ).astype(parts[part].dtype)
            for part in PARTS
        )
    return found


def grouped(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a batch, those of features put together: (tokens, weights, dense)."""
    found = {name: values for name, values in batch.items() if "/" not in name}
    for name in (QUERY, EVENT):
        if f"{name}/{PARTS[0]}" in batch:
            found[name] = tuple(batch[f"{name}/{part}"] for part in PARTS)
    return found
