"""Which users have which items in the training part of a split.

For baselines that look at sets of items: repetitions and order do not count. Compressed
rows both ways, so that memory is that of the events.

Shape alphabet: N candidates, E distinct pairs of a user and an item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tfrs_selfattn.data.splits import Split


class Interactions:
    """The distinct pairs of a user and an item in training.

    Items are numbered by column, 0 .. N - 1: the item index less one.

    Args:
        split: the `Split` whose training part counts.
    """

    def __init__(self, split: Split) -> None:
        sequences = split.sequences
        self.num_items = len(sequences.vocabulary)
        users = np.repeat(np.arange(sequences.num_users), sequences.lengths)
        train = np.arange(sequences.num_events) < split.train_stop[users]
        pairs = users[train] * self.num_items + (sequences.items[train] - 1)
        users, columns = np.divmod(np.unique(pairs), self.num_items)
        # Pairs are sorted by user, then by column.
        self.user_starts = np.searchsorted(users, np.arange(sequences.num_users + 1))
        self.columns = columns  # [E]
        by_column = np.argsort(columns, kind="stable")
        self.users = users[by_column]  # [E]
        self.column_starts = np.searchsorted(
            columns[by_column], np.arange(self.num_items + 1)
        )

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """The users of each item, int64 `[N]`."""
        return np.diff(self.column_starts)

    def together(self, column: int) -> np.ndarray[Any, Any]:
        """How many users have this item and each other one, int64 `[N]`."""
        users = self.users[self.column_starts[column] : self.column_starts[column + 1]]
        starts = self.user_starts[users]
        lengths = self.user_starts[users + 1] - starts
        shift = np.cumsum(lengths) - lengths
        pairs = np.repeat(starts - shift, lengths) + np.arange(int(lengths.sum()))
        return np.bincount(self.columns[pairs], minlength=self.num_items)


def distinct_columns(history: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The distinct items of one history, without padding, as columns."""
    columns: np.ndarray[Any, Any] = np.unique(history[history != 0]) - 1
    return columns
