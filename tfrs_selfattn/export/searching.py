"""The best rows for a query: by an index, or among given rows.

Both take and give rows; -1 stands for nothing. The indexes are those of
`tfrs_selfattn.index`, asked in their common form: candidates are called by their row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import InputError, check_choice
from tfrs_selfattn.ops.top_k import LOWEST_SCORE, PADDING_ROW, exact_search

INDEX_KINDS = ("exact", "partitioned")

# Of the many settings of a layer, those that an export decides itself.
_NOT_SETTINGS = {"query_model", "k", "name"}

# Eight bits leave 1/256 of the range of a dimension, of which the errors add up.
_ROUNDING = 0.05

# From queries [B, D] and excluded rows [B, E] to scores [B, k] and rows [B, k].
Search: TypeAlias = "Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]"


@dataclass(frozen=True)
class Index:
    """Which index an export has.

    Args:
        kind: str. `"exact"` or `"partitioned"`.
        settings: constructor arguments of `tfrs_selfattn.index.PartitionedTopK`.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether it overlooks nothing."""
        return self.kind == "exact"

    @property
    def tolerance(self) -> float:
        """How far its scores may be off, relative to the largest one."""
        quantized = self.settings.get("quantization") is not None
        reordered = self.settings.get("num_reordering_candidates") is not None
        exact = self.settings.get("reordering_dtype", "float32") == "float32"
        return _ROUNDING if quantized and not (reordered and exact) else 0.0

    @property
    def compiled(self) -> bool:
        """Whether a server needs XLA for it."""
        return bool(self.settings.get("xla", False))

    def of_shard(self, num_items: int, shard_items: int, k: int) -> Index:
        """The index of a part of the items, that overlooks no more than one of all.

        Unless the settings say how many leaves are searched, so many are as an index of
        all items would search: leaves of a part are smaller, but as near.

        Args:
            num_items: int. N, of all shards.
            shard_items: int. Of this one.
            k: int. Columns of an answer.
        """
        if self.is_exact or self.settings.get("num_leaves_to_search") is not None:
            return self
        from tfrs_selfattn.index import building

        ways = 2 if self.settings.get("spill") else 1

        def probes(size: int) -> int:
            leaves = self.settings.get("num_leaves")
            leaves = min(leaves or building.default_num_leaves(size), size)
            capacity = building.capacity_of(size, leaves, ways)
            return building.default_num_probes(size, leaves, capacity, k, ways=ways)

        most = max(probes(num_items), probes(shard_items))
        return replace(self, settings={**self.settings, "num_leaves_to_search": most})

    def over(
        self, candidates: npt.NDArray[np.float32], k: int
    ) -> tuple[Search, tf.Variable]:
        """The search over candidates `[N, D]`, and a variable that holds these.

        The index's own one if it keeps them as they are, so that none is held twice.
        """
        if self.is_exact:
            held = _variable(candidates)

            def exact(queries: tf.Tensor, excluded: tf.Tensor) -> Any:
                matrix = tf.convert_to_tensor(held)
                return exact_search(queries, matrix, k, excluded=excluded)

            return exact, held
        from tfrs_selfattn.index import PartitionedTopK  # needs legacy Keras

        layer = PartitionedTopK(k=k, **self.settings).index(candidates)
        kept = layer.original_candidates()
        if kept is None or kept.dtype != tf.float32:
            kept = _variable(candidates)

        def partitioned(queries: tf.Tensor, excluded: tf.Tensor) -> Any:
            return layer.query_with_exclusions(queries, excluded)

        return partitioned, kept


def _variable(candidates: npt.NDArray[np.float32]) -> tf.Variable:
    return tf.Variable(candidates, trainable=False, name="candidates")


def as_index(index: Any, *, k: int, xla: bool) -> Index:
    """The index that is meant by its name, or by a layer with the right settings."""
    if not isinstance(index, str):
        if type(index).__name__ != "PartitionedTopK":
            raise ValueError(
                f"`index` must be one of {', '.join(map(repr, INDEX_KINDS))}, or a "
                f"PartitionedTopK. Received: {index!r}. Pass its name for an exact one."
            )
        config = index.get_config()
        settings = {n: v for n, v in config.items() if n not in _NOT_SETTINGS}
        if settings["distance_measure"] != "dot_product":
            raise ValueError(
                "`index` must rank by dot product, as the model does. Received: "
                f"distance_measure={settings['distance_measure']!r}. Normalize the "
                "towers for cosines."
            )
        return Index("partitioned", {**settings, "xla": xla or settings["xla"]})
    if check_choice("index", index, INDEX_KINDS) == "partitioned":
        if not xla:
            return Index(index)
        # What XLA is for: it scans eight-bit leaves, and the best are scored again.
        settings = {
            "quantization": "int8",
            "num_reordering_candidates": max(200, 2 * k),
        }
        return Index(index, {**settings, "xla": True})
    if xla:
        raise InputError(
            "`xla` must be left out with an exact index. Received: index='exact'. "
            "Pass index='partitioned', whose search XLA makes faster."
        )
    return Index(index)


def rank_among(
    queries: tf.Tensor, candidates: tf.Tensor, allowed: tf.Tensor, k: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best k of int32 `[B, C]` allowed rows, each once; other rows cost nothing.

    Args:
        queries: float32 `[B, D]`. One with a NaN or an infinity gets no answer.
        candidates: float32 `[N, D]`, finite.
        allowed: int32 `[B, C]`, -1 for nothing. Duplicates are harmless.
        k: int. Columns of the answer; may exceed C.

    Returns:
        As `tfrs_selfattn.ops.top_k.exact_search`.
    """
    missing = tf.maximum(k - tf.shape(allowed)[1], 0)
    allowed = tf.pad(allowed, [[0, 0], [0, missing]], constant_values=PADDING_ROW)
    # Sorted, so that duplicates are neighbors and equal scores keep the row order.
    allowed = tf.sort(allowed, axis=-1)
    repeated = tf.pad(allowed[:, 1:] == allowed[:, :-1], [[0, 0], [1, 0]])
    usable = tf.reduce_all(tf.math.is_finite(queries), axis=-1, keepdims=True)
    queries = tf.where(usable, queries, tf.zeros_like(queries))
    vectors = tf.gather(candidates, tf.maximum(allowed, 0))  # [B, C, D]
    scores = tf.linalg.matvec(vectors, queries)  # [B, C]
    real = tf.logical_and(allowed >= 0, tf.logical_not(repeated))
    scores = tf.where(real & usable, scores, float("-inf"))
    values, places = tf.math.top_k(scores, k)
    answered = values > float("-inf")
    values = tf.minimum(values, tf.float32.max)
    rows = tf.gather(allowed, places, batch_dims=1)
    return (
        tf.where(answered, values, LOWEST_SCORE),
        tf.where(answered, rows, PADDING_ROW),
    )


def without(rows: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Int32 `[B, C]` rows, those that occur in `[B, E]` replaced by -1."""
    # A last column beyond every row, for what is searched and not there, and a last
    # row, since the search fails on an empty batch.
    excluded = tf.sort(tf.pad(excluded, [[0, 1], [0, 0]]), axis=-1)
    excluded = tf.pad(excluded, [[0, 0], [0, 1]], constant_values=tf.int32.max)
    sought = tf.pad(rows, [[0, 1], [0, 0]])
    places = tf.searchsorted(excluded, sought)
    found = tf.gather(excluded, places, batch_dims=1)[:-1]
    return tf.where(found == rows, PADDING_ROW, rows)
