"""What the model in memory says, for comparison with what was saved of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.export.popularity import log_shares

Histories = Sequence[Sequence[str]]

UNKNOWN = "\N{REPLACEMENT CHARACTER} no such item"

# Relative to the largest score. A graph adds up in another order than single calls;
# sixteen-bit layers round every intermediate result.
_TOLERANCE = 1e-4
_LOW_PRECISION_TOLERANCE = 3e-2
_LOW_PRECISION = {"float16", "bfloat16"}


class Live:
    """The model in memory, and what else decides its answers.

    Args:
        model: `SequenceRetrieval`.
        ids: list of N item ids.
        counts: int `[N]`, events of each item.
        candidates: float32 `[N, D]`.
        keep_seen: bool. Whether items of the history may be answered.
    """

    def __init__(
        self,
        model: Any,
        ids: Sequence[str],
        counts: npt.NDArray[np.int64],
        candidates: npt.NDArray[np.float32],
        keep_seen: bool,
    ) -> None:
        self.ids = ids
        self.candidates = candidates
        self.keep_seen = keep_seen
        self._model = model
        self._popular = log_shares(counts)
        self._row_of = {item: row for row, item in enumerate(ids)}

    def rows(self, items: Sequence[str]) -> list[int]:
        """The rows of the items that are known."""
        return [self._row_of[item] for item in items if item in self._row_of]

    def samples(self) -> list[list[str]]:
        """Histories that try what may go wrong, the same for the same vocabulary."""
        draw = np.random.default_rng(0)
        length = int(getattr(self._model.query_tower, "max_length", 20))
        lengths = [length + 3, *draw.integers(1, length + 1, 8)]
        drawn = [
            [self.ids[row] for row in draw.integers(0, len(self.ids), size)]
            for size in lengths
        ]
        return [[], [UNKNOWN], ["", self.ids[-1], UNKNOWN, ""], *drawn]

    def encode(self, histories: Histories) -> tuple[npt.NDArray[Any], ...]:
        """The queries `[n, D]` and the scores `[n, N]` of histories."""
        width = max([1, *(len(history) for history in histories)])
        indices = np.zeros([len(histories), width], np.int32)
        for number, history in enumerate(histories):
            rows = self.rows(history)
            indices[number, : len(rows)] = np.add(rows, 1)
        # The reloaded version runs there too; other devices may multiply less exactly.
        with tf.device("/CPU:0"):
            queries = self._model.query_tower(tf.constant(indices), training=False)
            scores = self._model.score(tf.constant(indices))
        known = (indices > 0).any(axis=1, keepdims=True)
        return (
            np.where(known, queries.numpy(), 0.0),
            np.where(known, scores.numpy(), self._popular),
        )

    def tolerance(self) -> float:
        """How far an answer may be off, relative to the largest score."""
        layers = [self._model.query_tower, *self._model.query_tower.submodules]
        dtypes = {getattr(layer, "compute_dtype", None) for layer in layers}
        low = bool(dtypes & _LOW_PRECISION)
        return _LOW_PRECISION_TOLERANCE if low else _TOLERANCE
