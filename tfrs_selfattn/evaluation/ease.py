"""EASE, the linear model that many deeper ones do not beat.

Shape alphabet: B users, T positions, N candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfrs_selfattn._checks import InputError, check_positive, check_positive_int
from tfrs_selfattn.evaluation._interactions import Interactions, distinct_columns

if TYPE_CHECKING:
    from tfrs_selfattn.data.splits import Split


class EASE:
    r"""Scores items by a linear model of the set of items in the history.

    The item weights $W$ minimize $\|X - XW\|^2 + \lambda \|W\|^2$ with a zero
    diagonal, where $X$ says which user has which item in training. In closed form,
    with $P = (X^\top X + \lambda I)^{-1}$: $W_{ij} = -P_{ij} / P_{jj}$ for $i \neq j$.
    An empty history scores all items 0. Order does not matter.

    Args:
        split: the `Split` whose training part counts.
        l2: float. λ. Defaults to `500.0`, as for MovieLens in the paper.
        max_items: int. Larger catalogues are refused, because fitting holds three
            matrices of N × N float32: 5 GB at the default, and minutes. Defaults to
            `20_000`.

    Call arguments:
        histories: int32 `[B, T]`, 0 = padding on either side.

    Returns:
        float32 `[B, N]`.

    Raises:
        InputError: when the catalogue exceeds `max_items`.

    References:
        - [Steck, 2019](https://arxiv.org/abs/1905.03375), equation 8.
    """

    def __init__(
        self, split: Split, *, l2: float = 500.0, max_items: int = 20_000
    ) -> None:
        l2 = check_positive("l2", l2)
        max_items = check_positive_int("max_items", max_items)
        num_items = len(split.sequences.vocabulary)
        if num_items > max_items:
            gigabytes = 3 * 4 * num_items**2 / 1e9
            raise InputError(
                f"EASE takes catalogues of at most `max_items` items. Received: "
                f"{num_items:,} items, max_items={max_items:,}. Raise `max_items` if "
                f"{gigabytes:,.0f} GB of memory are there, or use `ItemKNN`."
            )
        interactions = Interactions(split)
        gram = np.empty([num_items, num_items], np.float32)
        for column in range(num_items):
            gram[column] = interactions.together(column)
        gram[np.diag_indices(num_items)] += l2
        weights = np.linalg.inv(gram)  # P
        del gram
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0.0)
        self.weights = weights  # [N, N]

    def __call__(self, histories: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scores = np.empty([len(histories), len(self.weights)], np.float32)
        for row, history in enumerate(histories):
            scores[row] = self.weights[distinct_columns(history)].sum(axis=0)
        return scores
