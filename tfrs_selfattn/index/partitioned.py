"""Approximate retrieval as a TensorFlow Recommenders `TopK` layer, in stock ops.

The search is `tfrs_selfattn.ops.leaf_search`, the leaves come from
`tfrs_selfattn.index.building`; this file gives them variables and arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn._keras import register, require_legacy_keras

require_legacy_keras("tfrs_selfattn.index.PartitionedTopK")

from tfrs_selfattn.index import (  # noqa: E402
    building,
    recall,
    sources,
    tuning,
    updates,
)
from tfrs_selfattn.index import identifiers as naming  # noqa: E402
from tfrs_selfattn.index._base import CandidateIndex  # noqa: E402
from tfrs_selfattn.ops.leaf_search import (  # noqa: E402
    Leaves,
    among_search,
    leaf_search,
    row_vectors,
)


@register
class PartitionedTopK(CandidateIndex):
    """Finds candidates with high dot products by looking into a part of the catalogue.

    Takes the place of `tfrs.layers.factorized_top_k.ScaNN`, and follows the same
    recipe in stock TF ops: candidates lie in leaves, made by k-means and of one
    capacity; a query looks at the vectors of the leaves whose centers it fits best,
    which may be quantized, and scores the best of these again exactly.

    Every answer has exactly `k` columns, padded as those of `ExactTopK`, and is short
    only when no eligible candidate is left: where exclusions leave too few in the
    searched leaves, all leaves are searched.

    Args:
        query_model: Keras model or None. Turns raw query features into query
            embeddings. Defaults to `None`: queries are embeddings.
        k: int. Number of candidates to answer with. Defaults to `10`.
        distance_measure: `"dot_product"` or `"cosine"`. Defaults to `"dot_product"`.
        num_leaves: int or None. Number of leaves, at most one a candidate. Defaults
            to `None`: 8 √N, with at least 32 candidates each.
        num_leaves_to_search: int or None. Leaves that a query looks into. Defaults to
            `None`: all up to 20,000 candidates, then one in 150, at least 32, and
            enough to find 4 k candidates. `tune` sets it from data.
        training_iterations: int. Rounds of k-means. Defaults to `12`.
        num_reordering_candidates: int or None. How many of the best quantized scores
            are computed again from the originals, which are then stored as well.
            Defaults to `None`: scores stay as they are. Without quantization they are
            exact anyway.
        quantization: None, `"bfloat16"` or `"int8"`. How leaves hold vectors; int8 is
            score-aware, as in ScaNN. Defaults to `None`: float32.
        reordering_dtype: `"float32"` or `"bfloat16"`, of the stored originals.
            Defaults to `"float32"`.
        spill: bool. Store each candidate in a second leaf (SOAR): twice the leaves'
            memory for a higher recall of the same number of leaves. Defaults to
            `False`.
        xla: bool. Compile the scan of the leaves with XLA. A server must then run with
            XLA enabled (`--xla_cpu_compilation_enabled`). Defaults to `False`: no
            attribute of XLA anywhere.
        seed: int. The same seed, arguments and candidates give the same index, byte
            for byte, from a matrix, a file or a dataset of any batches and with any
            number of threads; on one kind of processor and version of TensorFlow,
            which decide how products are summed. Defaults to `0`.
        name: str or None. Name of the layer. Defaults to `None`.
        dimensions_per_block, parallelize_batch_searches: taken so that arguments of
            `ScaNN` work; without effect.

    Call arguments:
        queries: float `[B, D]`, or `[B, K, D]`: K interests of a user, of which each
            candidate counts the one it fits best; or whatever `query_model` takes.
        k: int or None. Replaces the `k` of the constructor, for this call.

    Returns:
        scores float32 `[B, k]` in descending order, identifiers `[B, k]`.

    Serving: stock TF ops only; candidates and identifiers are variables, so the graph
    does not grow with N. Saved by `tf.saved_model.save`, checkpoints and as `.keras`,
    and restored with all its candidates; a checkpoint into an index of as many
    candidates and the same kind of identifiers.

    Memory: with slots for 108 % of the candidates, 4.3 D bytes a candidate of float32
    leaves, 2.2 D of bfloat16 and 1.1 D of int8; as much again with `spill`; 4 D or 2 D
    of originals to reorder by; 8 bytes of numbers, and 12 and the identifiers
    themselves unless these are 0..N-1 in int32, as by default. So int8 alone takes
    .31 of the float32 matrix of a million candidates of 64 dimensions, and no form
    with originals can be under .5.

    Example:

    >>> index = tfrs_selfattn.index.PartitionedTopK(k=2, num_leaves_to_search=1)
    >>> _ = index.index(tf.eye(3), tf.constant(["a", "b", "c"]))
    >>> scores, identifiers = index(tf.constant([[0.1, 0.3, 0.2]]))
    >>> identifiers.numpy().tolist()
    [[b'b', b'c']]

    Differs from: `ScaNN`, whose custom op loads into one version of TensorFlow on
    Linux only. There is no product quantization here; int8 takes the place of its
    four-bit codes, at twice their size with two dimensions a block.

    References:
        - [Guo et al., 2020](https://arxiv.org/abs/1908.10396), score-aware rounding.
        - [Sun et al., 2023](https://arxiv.org/abs/2404.00774), SOAR.
    """

    _STATE = (
        "centers",
        "vectors",
        "members",
        "slots",
        "scales",
        "originals",
        "record",
        *CandidateIndex._STATE,
    )
    _centers: tf.Variable | None
    _members: tf.Variable | None
    _slots: tf.Variable | None
    _originals: tf.Variable | None

    def __init__(
        self,
        query_model: Any = None,
        k: int = 10,
        distance_measure: str = "dot_product",
        num_leaves: int | None = None,
        num_leaves_to_search: int | None = None,
        training_iterations: int = 12,
        dimensions_per_block: int = 2,
        num_reordering_candidates: int | None = None,
        parallelize_batch_searches: bool = True,
        name: str | None = None,
        *,
        quantization: str | None = None,
        reordering_dtype: str = "float32",
        spill: bool = False,
        xla: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(query_model, k, distance_measure, name)
        self.num_leaves = _positive_or_none("num_leaves", num_leaves)
        self.num_leaves_to_search = _positive_or_none(
            "num_leaves_to_search", num_leaves_to_search
        )
        self.num_reordering_candidates = _positive_or_none(
            "num_reordering_candidates", num_reordering_candidates
        )
        self.training_iterations = check_positive_int(
            "training_iterations", training_iterations
        )
        self.dimensions_per_block = dimensions_per_block
        self.parallelize_batch_searches = parallelize_batch_searches
        if quantization is not None:
            check_choice(
                "quantization", quantization, ("bfloat16", "int8"), "Or use None."
            )
        self.quantization = quantization
        self.reordering_dtype = check_choice(
            "reordering_dtype", reordering_dtype, ("float32", "bfloat16")
        )
        self.spill = bool(spill)
        self.xla = bool(xla)
        self.seed = int(seed)

    def is_exact(self) -> bool:
        """Whether every candidate is looked at, by its exact vector."""
        if self._members is None:
            return False
        stored = self.quantization is None or (
            self.num_reordering_candidates is not None
            and self.reordering_dtype == "float32"
        )
        return stored and self._num_probes(self._k) >= self._members.shape[0]

    def original_candidates(self) -> tf.Variable | None:
        """The variable `[N, D]` of candidates to reorder by, None where there is none.

        In `reordering_dtype`, with length 1 where cosines are wanted.
        """
        return self._originals

    def vectors_of(self, rows: tf.Tensor) -> tf.Tensor:
        """The candidates float32 `[..., D]` in these rows, zeros for row -1.

        As exact as the index stores them.
        """
        return row_vectors(self._leaves(), rows)

    def tune(
        self,
        queries: Any,
        target_recall: float,
        *,
        k: int | None = None,
        num_leaves: Sequence[int] | str = (),
        candidates: Any = None,
    ) -> tuning.Tuning:
        """Sets how much is searched so that a recall is reached on these queries.

        Compares answers with those of a search of everything, and takes the setting
        that reaches the target and looks at least. A target that no setting reaches
        sets the search of everything.

        The search of everything is by the best vectors that the index holds. Where
        these are rounded (int8 or bfloat16 without reordering from float32), what
        rounding loses does not count, unless `candidates` are given.

        Args:
            queries: float `[B, D]`, such as are to be expected; a few hundred do.
            target_recall: float in (0, 1].
            k: int or None. Recall of how many. Defaults to the index's own.
            num_leaves: numbers of leaves to try, which builds the index anew for each
                and for the best again; `"auto"` for half the default, the default and
                twice that. Defaults to none: the leaves stay.
            candidates: float `[N, D]` or None. What the index was built from, in the
                same order, to compare with and to build anew from. Defaults to `None`:
                the best vectors at hand.

        Returns:
            `Tuning`: the curve, and which point of it was chosen.
        """
        return tuning.tune(self, queries, target_recall, k, num_leaves, candidates)

    def add(self, candidates: Any, identifiers: Any) -> None:
        """Adds candidates; those whose identifier is known already are replaced.

        Centers stay as they are. Where leaves are full the variables grow, and what
        was traced or exported of the index before keeps the old ones.

        Args:
            candidates: float `[n, D]`, finite.
            identifiers: `[n]`, unique, of the index's type.
        """
        updates.add(self, candidates, identifiers)

    def remove(self, identifiers: Any) -> None:
        """Removes candidates; unknown identifiers are ignored."""
        updates.remove(self, identifiers)

    def drift(self) -> updates.Drift:
        """How far updates have moved the index from one built anew, and what to do."""
        return updates.drift(self)

    @property
    def _width(self) -> int | None:
        return None if self._centers is None else self._centers.shape[1]

    def _num_probes(self, k: int) -> int:
        """P for answers of this size."""
        if self._members is None or self._slots is None:
            return 0
        num_leaves, capacity = self._members.shape
        if self.num_leaves_to_search is not None:
            return int(min(self.num_leaves_to_search, num_leaves))
        return building.default_num_probes(
            self._slots.shape[0], num_leaves, capacity, k, ways=self._ways
        )

    @property
    def _ways(self) -> int:
        return 2 if self.spill else 1

    @property
    def _keeps_originals(self) -> bool:
        return (
            self.quantization is not None and self.num_reordering_candidates is not None
        )

    def _leaves(self) -> Leaves:
        held: dict[str, Any] = {}
        for name in Leaves._fields[:-1]:
            variable = getattr(self, f"_{name}")
            held[name] = None if variable is None else tf.convert_to_tensor(variable)
        return Leaves(**held, compiled=self.xla)

    def _search_rows(
        self,
        queries: tf.Tensor,
        k: int,
        excluded: tf.Tensor | None,
        allowed: tf.Tensor | None,
        num_probes: int | None = None,
        num_reordered: int | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if allowed is not None:
            return among_search(queries, self._leaves(), k, allowed, excluded)
        return leaf_search(
            queries,
            self._leaves(),
            k,
            num_leaves_to_search=num_probes or self._num_probes(k),
            num_reordering_candidates=num_reordered or self.num_reordering_candidates,
            excluded=excluded,
        )

    def _take_in(self, source: sources.Source) -> None:
        # A call of its own, so that nothing else is held when recall is measured.
        self._store(**self._values_of(source))
        updates.record_recall(self)

    def _values_of(self, source: sources.Source) -> dict[str, Any]:
        """The values of all variables for these candidates."""
        names = naming.kept(source.identifiers)
        num_leaves = self.num_leaves or building.default_num_leaves(source.size)
        num_leaves = min(num_leaves, source.size)
        cosine = self.distance_measure == "cosine"
        layout = building.lay_out(
            source,
            num_leaves,
            ways=self._ways,
            cosine=cosine,
            iterations=self.training_iterations,
            seed=self.seed,
        )
        slots, capacity = layout.slots, layout.capacity
        members = sources.blank((num_leaves * capacity,), tf.int32)
        members[:] = -1
        for way in range(self._ways):
            members[slots[:, way]] = np.arange(source.size, dtype=np.int32)
        stored = building.room_for(
            source,
            (num_leaves, capacity),
            quantization=self.quantization,
            originals=self.reordering_dtype if self._keeps_originals else None,
            cosine=cosine,
        )
        statistics = building.LeafStatistics(num_leaves, source.width)
        start = 0
        for block in source.blocks():
            block = building.prepared(block, cosine)
            part = slice(start, start + len(block))
            statistics.add(block, slots[part, 0] // capacity)
            updates.write(stored, np.arange(source.size)[part], slots[part], block)
            start = part.stop
        stored |= {"members": members.reshape(num_leaves, capacity), "slots": slots}
        return {
            "centers": statistics.centers(),
            "record": np.zeros(2, np.float32),
            **names,
            **{
                name: sources.adopted(array, tf.as_dtype(array.dtype))
                for name, array in stored.items()
            },
        }

    def _set(self, num_leaves_to_search: int, reordered: int | None) -> None:
        """Takes a setting that `tune` found."""
        self.num_leaves_to_search = num_leaves_to_search
        self.num_reordering_candidates = reordered
        self._reset_tf_function_cache()
        updates.record_recall(self)

    def _rebuild(self, num_leaves: int, source: sources.Source | None) -> None:
        """Builds the index anew, with another number of leaves.

        From the vectors of `source`, which are those of its rows, or what it holds.
        """
        rows = tf.constant(recall.used_rows(self), tf.int32)
        identifiers = self._names_of(rows)
        if source is None:
            source = sources.as_source(self.vectors_of(rows).numpy(), identifiers)
        source.identifiers = identifiers
        self.num_leaves = num_leaves
        self._index(source)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_leaves": self.num_leaves,
            "num_leaves_to_search": self.num_leaves_to_search,
            "training_iterations": self.training_iterations,
            "dimensions_per_block": self.dimensions_per_block,
            "num_reordering_candidates": self.num_reordering_candidates,
            "parallelize_batch_searches": self.parallelize_batch_searches,
            "quantization": self.quantization,
            "reordering_dtype": self.reordering_dtype,
            "spill": self.spill,
            "xla": self.xla,
            "seed": self.seed,
        }


def _positive_or_none(name: str, value: int | None) -> int | None:
    hint = "Or use None, for a default that fits."
    return None if value is None else check_positive_int(name, value, hint)
