"""Baselines that any sequential recommender has to beat.

Each is a function from histories, int32 `[B, T]`, to scores float32 `[B, N]`, as
`evaluate_ranking` takes it, and learns from the training part of a split only.

Shape alphabet: B users, T positions, N candidates. Column j belongs to item index
j + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tfrs_selfattn.data.splits import Split


class MostPopular:
    """Scores every item by its number of training events, whoever asks.

    Args:
        split: the `Split` whose training part counts.

    Call arguments:
        histories: int32 `[B, T]`. Only B matters.

    Returns:
        float32 `[B, N]`.
    """

    def __init__(self, split: Split) -> None:
        # A float32 counts exactly up to 16 million events an item, and beyond that
        # to seven digits.
        self.scores = split.train_counts()[1:].astype(np.float32)  # [N]

    def __call__(self, histories: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.tile(self.scores, (len(histories), 1))


class ItemToItem:
    """Scores every item by how often it came right after the user's last item.

    Popularity, as a fraction below 1, breaks ties, and is all there is when the last
    item never had a successor or the history is empty.

    Args:
        split: the `Split` whose training part counts.

    Call arguments:
        histories: int32 `[B, T]`, oldest first, 0 = padding on either side.

    Returns:
        float32 `[B, N]`.
    """

    def __init__(self, split: Split) -> None:
        counts = split.train_counts()[1:]
        self.num_items = len(counts)
        self.popularity = (counts / (counts.max(initial=0) + 1)).astype(np.float32)
        last, following = _training_transitions(split)
        # One number a pair of items, so that one sort groups and counts them.
        pair = last.astype(np.int64) * (self.num_items + 1) + following
        pair, count = np.unique(pair, return_counts=True)
        # Compressed rows: item i's successors are those of pairs starts[i] ..
        # starts[i + 1] - 1. N × N of them would not fit for a large catalogue.
        self.starts = np.searchsorted(
            pair, np.arange(self.num_items + 2) * (self.num_items + 1)
        )
        self.successors = (pair % (self.num_items + 1)).astype(np.int32)
        self.counts = count.astype(np.float32)

    def __call__(self, histories: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scores = np.tile(self.popularity, (len(histories), 1))
        for row, last in enumerate(_last_items(histories)):
            span = slice(self.starts[last], self.starts[last + 1])
            # A row's successors are distinct, so none of these additions is lost.
            scores[row, self.successors[span] - 1] += self.counts[span]
        return scores


def _training_transitions(
    split: Split,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All pairs (item, next item) within the training part of one user."""
    offsets, items = split.sequences.offsets, split.sequences.items
    user_stop = np.repeat(split.train_stop, np.diff(offsets))  # [E]
    followed = np.flatnonzero(np.arange(1, len(items) + 1) < user_stop)
    return items[followed], items[followed + 1]


def _last_items(histories: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The newest real item of each history, 0 for an empty one."""
    if histories.shape[1] == 0:
        return np.zeros(len(histories), np.int32)
    newest = histories.shape[1] - 1 - np.argmax(histories[:, ::-1] != 0, axis=1)
    last: np.ndarray[Any, Any] = histories[np.arange(len(histories)), newest]
    return last
