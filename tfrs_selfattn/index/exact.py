"""Exact retrieval as a TensorFlow Recommenders `TopK` layer.

The search itself is `tfrs_selfattn.ops.top_k.exact_search`; this file gives it
variables, identifiers, a query model and the ways Keras saves a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras, register, require_legacy_keras

require_legacy_keras("tfrs_selfattn.index.ExactTopK")

from tensorflow_recommenders.layers import factorized_top_k  # noqa: E402

from tfrs_selfattn.index import identifiers as naming  # noqa: E402
from tfrs_selfattn.ops.top_k import exact_search  # noqa: E402

Queries: TypeAlias = "tf.Tensor | Mapping[str, tf.Tensor]"


@register
class ExactTopK(factorized_top_k.TopK):  # type: ignore[misc]
    """Finds the candidates with the highest dot product, by looking at all of them.

    Takes the place of `tfrs.layers.factorized_top_k.BruteForce`: the same methods, the
    same answers.

    Every answer has exactly `k` columns. Where fewer candidates are eligible, the rest
    is the padding identifier (`""` for strings, -1 for integers) with the finite score
    `tfrs_selfattn.ops.top_k.LOWEST_SCORE`. Among equal scores the candidate
    that was indexed first comes first. A query with a NaN or an infinity gets an
    answer of padding only, and leaves the others of its batch alone.

    Args:
        query_model: Keras model or None. Turns raw query features into query
            embeddings. Defaults to `None`: queries are embeddings.
        k: int. Number of candidates to answer with. Defaults to `10`.
        name: str or None. Name of the layer. Defaults to `None`.

    Call arguments:
        queries: float `[B, D]`, or whatever `query_model` takes.
        k: int or None. Replaces the `k` of the constructor, for this call.

    Returns:
        scores float32 `[B, k]` in descending order, identifiers `[B, k]`.

    Serving: stock TF ops only; candidates and identifiers are variables, so the graph
    does not grow with N. Saved by `tf.saved_model.save`, checkpoints and as `.keras`,
    and restored with all its candidates.

    Example:

    >>> index = tfrs_selfattn.index.ExactTopK(k=2)
    >>> _ = index.index(tf.eye(3), tf.constant(["a", "b", "c"]))
    >>> scores, identifiers = index(tf.constant([[0.1, 0.3, 0.2]]))
    >>> identifiers.numpy().tolist()
    [[b'b', b'c']]

    Differs from: `BruteForce`, which fails when `k`, or `k` and the exclusions
    together, exceed the number of candidates; needs the number of exclusions when the
    graph is built; answers with excluded candidates when nothing else is left; and
    accepts NaN candidates and duplicate identifiers. Scores are float32 here whatever
    the dtype of the candidates.
    """

    def __init__(
        self, query_model: Any = None, k: int = 10, name: str | None = None
    ) -> None:
        super().__init__(k=check_positive_int("k", k), name=name)
        self.query_model = query_model
        self._candidates: tf.Variable | None = None
        self._identifiers: tf.Variable | None = None
        self._keys: tf.Variable | None = None
        self._rows: tf.Variable | None = None

    def index(
        self, candidates: tf.Tensor, identifiers: tf.Tensor | None = None
    ) -> ExactTopK:
        """Takes in the candidates, in place of any it held before.

        Args:
            candidates: float `[N, D]`, finite; stored as float32.
            identifiers: string, int32 or int64 `[N]`, unique. Defaults to 0..N-1.

        Returns:
            The index itself.
        """
        candidates = _checked_candidates(candidates)
        num_candidates = candidates.shape[0]
        if identifiers is None:
            identifiers = tf.range(num_candidates)
        identifiers = _checked_identifiers(identifiers, num_candidates)
        keys, rows = naming.sorted_keys(identifiers)
        self._allocate(num_candidates, candidates.shape[1], identifiers.dtype)
        for variable, value in (
            (self._candidates, candidates),
            (self._identifiers, identifiers),
            (self._keys, keys),
            (self._rows, rows),
        ):
            variable.assign(value)  # type: ignore[union-attr]
        if self.query_model is None:
            # Keras learns the input from a first call, and cannot save without it.
            self(tf.zeros([1, candidates.shape[1]]))
        return self

    def index_from_dataset(self, candidates: tf.data.Dataset) -> ExactTopK:
        """Takes in the candidates of a dataset, in place of any it held before.

        Args:
            candidates: dataset of batches, each float `[batch, D]`, or a pair of
                identifiers `[batch]` and that.

        Returns:
            The index itself.
        """
        batches = list(candidates)
        if not batches:
            raise ValueError(
                "`candidates` must yield at least one batch of candidates. Received: "
                "an empty dataset. Check the dataset, or whether it was used up."
            )
        if not isinstance(candidates.element_spec, tuple):
            return self.index(tf.concat(batches, axis=0))
        if len(candidates.element_spec) != 2:
            raise ValueError(
                "`candidates` must yield embeddings or pairs (identifiers, embeddings)."
                f" Received: {candidates.element_spec}. Map the dataset to such pairs."
            )
        identifiers, embeddings = zip(*batches, strict=True)
        return self.index(tf.concat(embeddings, axis=0), tf.concat(identifiers, axis=0))

    def call(
        self, queries: Queries, k: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self._search(queries, None, k)

    # A function of its own, as in TFRS, so that a SavedModel can carry it.
    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def query_with_exclusions(
        self, queries: Queries, exclusions: tf.Tensor, k: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The answer without some candidates, still k of them.

        Args:
            queries: as in a call of the index.
            exclusions: identifiers `[B, E]`, a row for each query; E may be unknown
                when a graph is built. Unknown identifiers, duplicates and the padding
                identifier are harmless.
            k: int or None. Replaces the `k` of the constructor, for this call.

        Returns:
            scores float32 `[B, k]` in descending order, identifiers `[B, k]`.
        """
        return self._search(queries, exclusions, k)

    def is_exact(self) -> bool:
        """True: no candidate is overlooked."""
        return True

    def _search(
        self, queries: Queries, exclusions: tf.Tensor | None, k: int | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if self._candidates is None:
            raise ValueError(
                "The index must hold candidates before it is queried. Received: none. "
                "Call `index` or `index_from_dataset` first."
            )
        if self.query_model is not None:
            queries = self.query_model(queries)
        queries = _checked_queries(queries, self._candidates.shape[1])
        excluded = None if exclusions is None else self._rows_of(exclusions)
        k = self._k if k is None else check_positive_int("k", k)
        scores, rows = exact_search(
            queries, tf.convert_to_tensor(self._candidates), k, excluded=excluded
        )
        return scores, naming.name_rows(rows, tf.convert_to_tensor(self._identifiers))

    def _rows_of(self, exclusions: tf.Tensor) -> tf.Tensor:
        identifiers = tf.convert_to_tensor(self._identifiers)
        exclusions = tf.convert_to_tensor(exclusions)
        if (exclusions.dtype == tf.string) != (identifiers.dtype == tf.string):
            raise ValueError(
                "`exclusions` must hold identifiers of the index, which are "
                f"{identifiers.dtype.name}. Received: {exclusions.dtype.name}. "
                "Convert them."
            )
        return naming.find_rows(
            exclusions,
            identifiers,
            tf.convert_to_tensor(self._keys),
            tf.convert_to_tensor(self._rows),
        )

    def _allocate(self, num_candidates: int, width: int, dtype: tf.DType) -> None:
        """Makes the variables, unless those at hand have the same shapes."""
        if (
            self._candidates is not None
            and self._identifiers is not None
            and self._candidates.shape == (num_candidates, width)
            and self._identifiers.dtype == dtype
        ):
            return

        def variable(name: str, shape: list[int], dtype: tf.DType) -> tf.Variable:
            # Any value of the right dtype: what counts is assigned or restored later.
            zero = keras.initializers.Constant(tf.zeros((), dtype))
            return self.add_weight(
                name=name, shape=shape, dtype=dtype, initializer=zero, trainable=False
            )

        self._candidates = variable("candidates", [num_candidates, width], tf.float32)
        self._identifiers = variable("identifiers", [num_candidates], dtype)
        self._keys = variable("keys", [num_candidates], tf.int64)
        self._rows = variable("rows", [num_candidates], tf.int32)
        self._reset_tf_function_cache()

    def _reset_tf_function_cache(self) -> None:
        # Functions traced before still hold the variables that were dropped just now.
        self.query_with_exclusions = tf.function(
            self.query_with_exclusions.python_function, reduce_retracing=True
        )
        self.predict_function = None

    def get_config(self) -> dict[str, Any]:
        return {
            "query_model": keras.saving.serialize_keras_object(self.query_model),
            "k": self._k,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        query_model = keras.saving.deserialize_keras_object(
            config["query_model"], custom_objects=custom_objects
        )
        return cls(**{**config, "query_model": query_model})

    def get_build_config(self) -> None:
        # Nothing is built from an input's shape; Keras would try, by a call.
        return None

    def save_own_variables(self, store: Any) -> None:
        if self._candidates is None or self._identifiers is None:
            return
        store["candidates"] = self._candidates.numpy()
        names = self._identifiers.numpy()
        if self._identifiers.dtype == tf.string:
            # The file holds numbers only: the bytes of all strings, and their lengths.
            store["lengths"] = np.array([len(name) for name in names], np.int64)
            names = np.frombuffer(b"".join(names), np.uint8)
        store["identifiers"] = names

    def load_own_variables(self, store: Any) -> None:
        if "candidates" not in store:
            return
        names = np.asarray(store["identifiers"])
        if "lengths" in store:
            ends = np.cumsum(np.asarray(store["lengths"]))
            text = names.tobytes()
            starts = np.concatenate([[0], ends[:-1]])
            names = np.array(
                [text[a:b] for a, b in zip(starts, ends, strict=True)], object
            )
        self.index(np.asarray(store["candidates"]), names)


def _checked_candidates(candidates: Any) -> tf.Tensor:
    candidates = tf.convert_to_tensor(candidates)
    if candidates.shape.rank != 2 or 0 in candidates.shape:
        raise ValueError(
            "`candidates` must be a matrix [candidates, width] with at least one "
            f"candidate. Received: shape {tuple(candidates.shape)}. "
            "Pass one embedding a row."
        )
    if not candidates.dtype.is_floating:
        raise ValueError(
            "`candidates` must be floating point. Received: "
            f"{candidates.dtype.name}. Pass embeddings, not identifiers."
        )
    candidates = tf.cast(candidates, tf.float32)
    finite = tf.reduce_all(tf.math.is_finite(candidates), axis=1).numpy()
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"`candidates` must be finite. Received: NaN or infinity in {bad.size} "
            f"rows, the first of which is row {bad[0]}. Check the model that made "
            "them, or leave these candidates out."
        )
    return candidates


def _checked_identifiers(identifiers: Any, num_candidates: int) -> tf.Tensor:
    identifiers = tf.convert_to_tensor(identifiers)
    if identifiers.dtype not in naming.DTYPES:
        allowed = ", ".join(dtype.name for dtype in naming.DTYPES)
        raise ValueError(
            f"`identifiers` must be one of {allowed}. Received: "
            f"{identifiers.dtype.name}. Convert them."
        )
    if identifiers.shape != (num_candidates,):
        raise ValueError(
            f"`identifiers` must name each of the {num_candidates} candidates once. "
            f"Received: shape {tuple(identifiers.shape)}. Pass one identifier for "
            "each row of `candidates`."
        )
    return identifiers


def _checked_queries(queries: Any, width: int) -> tf.Tensor:
    queries = tf.convert_to_tensor(queries)
    if queries.shape.rank not in (None, 2) or queries.shape[-1] not in (None, width):
        raise ValueError(
            f"Queries must be embeddings [queries, {width}], as wide as the "
            f"candidates. Received: shape {tuple(queries.shape)}. Pass a batch of "
            "them, from the model that the candidates belong to."
        )
    return queries
