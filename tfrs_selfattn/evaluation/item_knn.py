"""Item-based nearest neighbors, the classic of collaborative filtering.

Shape alphabet: B users, T positions, N candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.evaluation._interactions import Interactions, distinct_columns

if TYPE_CHECKING:
    from tfrs_selfattn.data.splits import Split


class ItemKNN:
    r"""Scores items by their similarity to the items of the history.

    The similarity of two items that $c_i$ and $c_j$ users have in training, $c_{ij}$ of
    them both, is their cosine with shrinkage, $c_{ij} / (\sqrt{c_i c_j} + h)$. Each
    item of the history votes for its nearest neighbors. An empty history scores all
    items 0. Order does not matter.

    Args:
        split: the `Split` whose training part counts.
        neighbors: int. Nearest neighbors that are kept of each item; among equal ones
            the lower item index. Defaults to `100`.
        shrinkage: float, at least 0. h: how much rarely shared users are distrusted.
            Defaults to `10.0`.

    Call arguments:
        histories: int32 `[B, T]`, 0 = padding on either side.

    Returns:
        float32 `[B, N]`.

    Memory: N times `neighbors`.

    References:
        - [Deshpande and Karypis, 2004](https://doi.org/10.1145/963770.963776), votes of
          each item's nearest neighbors.
        - [Bell and Koren, 2007](https://doi.org/10.1109/ICDM.2007.90), shrinkage.
    """

    def __init__(
        self, split: Split, *, neighbors: int = 100, shrinkage: float = 10.0
    ) -> None:
        neighbors = check_positive_int("neighbors", neighbors)
        if not 0.0 <= shrinkage < float("inf"):
            raise ValueError(
                "`shrinkage` must be a finite number of at least 0. Received: "
                f"shrinkage={shrinkage!r}. 0 gives the plain cosine."
            )
        interactions = Interactions(split)
        self.num_items = interactions.num_items
        width = min(neighbors, self.num_items)
        # Fewer than `width` neighbors: the rest points at item 0, with similarity 0.
        self.neighbors = np.zeros([self.num_items, width], np.int32)
        self.similarities = np.zeros([self.num_items, width], np.float32)
        norms = np.sqrt(interactions.counts)
        for column in np.flatnonzero(norms).tolist():
            together = interactions.together(column)
            together[column] = 0
            near = np.flatnonzero(together)
            similarity = together[near] / (norms[column] * norms[near] + shrinkage)
            best = np.argsort(-similarity, kind="stable")[:width]
            self.neighbors[column, : len(best)] = near[best]
            self.similarities[column, : len(best)] = similarity[best]

    def __call__(self, histories: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scores = np.empty([len(histories), self.num_items], np.float32)
        for row, history in enumerate(histories):
            columns = distinct_columns(history)
            scores[row] = np.bincount(
                self.neighbors[columns].reshape(-1),
                weights=self.similarities[columns].reshape(-1),
                minlength=self.num_items,
            )
        return scores
