"""What the model in memory says, for comparison with what was saved of it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.export.popularity import log_shares
from tfrs_selfattn.export.query_side import QuerySide, Told, tensors
from tfrs_selfattn.export.requests import Sample, sample
from tfrs_selfattn.features.encoder import FeatureEncoder

UNKNOWN = "\N{REPLACEMENT CHARACTER} no such item"

# Relative to the largest score. A graph adds up in another order than single calls;
# sixteen-bit layers round every intermediate result.
_TOLERANCE = 1e-4
_LOW_PRECISION_TOLERANCE = 3e-2
_LOW_PRECISION = {"float16", "bfloat16"}
_NOTHING = QuerySide()


class Truth(abc.ABC):
    """What an export must answer, worked out without it.

    Args:
        ids: list of N item ids, those that may be answered.
        counts: int `[N]`, events of each item.
        candidates: float32 `[N, D]`.
        keep_seen: bool. Whether items of the history may be answered.
        time_aware: bool. Whether the times of a sample count.
        side: `QuerySide`, what else of a sample counts.
    """

    max_length = 20

    def __init__(
        self,
        ids: Sequence[str],
        counts: npt.NDArray[np.int64],
        candidates: npt.NDArray[np.float32],
        *,
        keep_seen: bool,
        time_aware: bool,
        side: QuerySide,
    ) -> None:
        self.ids = ids
        self.side = side
        self.candidates = candidates
        self.keep_seen = keep_seen
        self.time_aware = time_aware
        self.popular = log_shares(counts)
        self._row_of = {item: row for row, item in enumerate(ids)}

    def rows(self, items: Sequence[str]) -> list[int]:
        """The rows of the items that may be answered."""
        return [self._row_of[item] for item in items if item in self._row_of]

    def samples(self) -> list[Sample]:
        """Histories that try what may go wrong, the same for the same items."""
        draw = np.random.default_rng(0)
        lengths = [self.max_length + 3, *draw.integers(1, self.max_length + 1, 8)]
        drawn = [
            [self.ids[row] for row in draw.integers(0, len(self.ids), size)]
            for size in lengths
        ]
        odd: list[list[str]] = [[], [UNKNOWN], ["", self.ids[-1], UNKNOWN, ""]]
        steps = [3600, 0, 1, -60, *[10 ** (place % 8) for place in range(8)]]
        return [
            sample(row, step)._replace(told=self.side.draw(draw, len(row)))
            for row, step in zip([*odd, *drawn], steps, strict=True)
        ]

    def chosen(
        self, told: Told, places: Sequence[int], length: int
    ) -> dict[str, npt.NDArray[Any]]:
        """What is told of a sample, of its events at some places, as inputs."""
        kept = {
            name: [values[place] for place in places]
            if isinstance(values, list)
            else values
            for name, values in told.items()
        }
        return self.side.arrays([kept], [len(places)], length)

    @abc.abstractmethod
    def encode(self, samples: Sequence[Sample]) -> tuple[npt.NDArray[Any], ...]:
        """The queries `[n, D]` and the scores `[n, N]` of samples."""

    def tolerance(self) -> float:
        """How far an answer may be off, relative to the largest score."""
        return _TOLERANCE


class Live(Truth):
    """The model in memory.

    Args:
        model: `SequenceRetrieval`.
        ids: as in `Truth`, as all that follow.
        counts: int `[N]`.
        candidates: float32 `[N, D]`.
        keep_seen: bool.
        time_aware: bool.
        side: `QuerySide`.
    """

    def __init__(
        self,
        model: Any,
        ids: Sequence[str],
        counts: npt.NDArray[np.int64],
        candidates: npt.NDArray[np.float32],
        *,
        keep_seen: bool = False,
        time_aware: bool = False,
        side: QuerySide = _NOTHING,
    ) -> None:
        super().__init__(
            ids,
            counts,
            candidates,
            keep_seen=keep_seen,
            time_aware=time_aware,
            side=side,
        )
        self._model = model
        self.max_length = int(getattr(model.query_tower, "max_length", 20))

    def encode(self, samples: Sequence[Sample]) -> tuple[npt.NDArray[Any], ...]:
        rows, times, places = [], [], []
        for history, timestamps, *_ in samples:
            known = [place for place, item in enumerate(history) if self.rows([item])]
            rows.append([self.rows([history[place]])[0] + 1 for place in known])
            times.append([timestamps[place] for place in known])
            places.append(known)
        width = max(1, *(len(row) for row in rows)) if rows else 1
        indices = _widened(rows, width)
        inputs: dict[str, Any] = self._features(samples, places, width)
        if self.time_aware:
            asked = np.array([sample.request_time for sample in samples], np.int64)
            inputs |= {
                "timestamps": tf.constant(_widened(times, width)),
                "request_time": tf.constant(asked),
            }
        history = tf.constant(indices, tf.int32)
        # The reloaded version runs there too; other devices may multiply less exactly.
        with tf.device("/CPU:0"):
            queries = self._model.query_tower(history, training=False, **inputs)
            scores = self._model.score(history, **inputs)
        some = (indices > 0).any(axis=1, keepdims=True)
        if self.side.query is not None:
            some |= queries.numpy().any(axis=1, keepdims=True)
        return (
            np.where(some, queries.numpy(), 0.0),
            np.where(some, scores.numpy(), self.popular),
        )

    def _features(
        self,
        samples: Sequence[Sample],
        places: Sequence[Sequence[int]],
        width: int,
    ) -> dict[str, Any]:
        """What the query tower takes of the features, encoded."""
        pieces = [
            self.chosen(sample.told, known, width)
            for sample, known in zip(samples, places, strict=True)
        ]
        found = {}
        for name, features in (
            ("query_features", self.side.query),
            ("event_features", self.side.events),
        ):
            if features is not None:
                raw = {
                    each.name: np.concatenate([piece[each.name] for piece in pieces])
                    for each in features
                }
                raw = dict(zip(raw, tensors(raw), strict=True))
                found[name] = FeatureEncoder(features)(raw)
        return found

    def tolerance(self) -> float:
        layers = [self._model.query_tower, *self._model.query_tower.submodules]
        dtypes = {getattr(layer, "compute_dtype", None) for layer in layers}
        low = bool(dtypes & _LOW_PRECISION)
        return _LOW_PRECISION_TOLERANCE if low else super().tolerance()


class Part(Truth):
    """A shard of the items, asked for queries of the whole model.

    Args:
        whole: `Truth` of all items.
        rows: slice. Those of the shard.
        counts: int `[N]`, events of all items.
    """

    def __init__(
        self, whole: Truth, rows: slice, counts: npt.NDArray[np.int64]
    ) -> None:
        super().__init__(
            whole.ids[rows],
            counts[rows],
            whole.candidates[rows],
            keep_seen=whole.keep_seen,
            time_aware=whole.time_aware,
            side=whole.side,
        )
        self.popular = whole.popular[rows]
        self._whole, self._part = whole, rows

    def samples(self) -> list[Sample]:
        return self._whole.samples()

    def encode(self, samples: Sequence[Sample]) -> tuple[npt.NDArray[Any], ...]:
        queries, scores = self._whole.encode(samples)
        return queries, scores[:, self._part]

    def tolerance(self) -> float:
        return self._whole.tolerance()


def _widened(rows: Sequence[Sequence[int]], width: int) -> npt.NDArray[np.int64]:
    matrix = np.zeros([len(rows), width], np.int64)
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    return matrix
