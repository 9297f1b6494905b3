"""What every index of this package has in common: all but the search itself.

Identifiers, the query model, the methods of a TensorFlow Recommenders `TopK`, several
queries a user, and the ways TensorFlow and Keras save a model. A subclass says which
variables it holds and how it searches rows.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn._keras import keras, require_legacy_keras

require_legacy_keras("tfrs_selfattn.index")

from tensorflow_recommenders.layers import factorized_top_k  # noqa: E402

from tfrs_selfattn.index import identifiers as naming  # noqa: E402
from tfrs_selfattn.index.sources import Dataset, Source, as_source  # noqa: E402
from tfrs_selfattn.ops.top_k import merge_interests  # noqa: E402

Queries: TypeAlias = "tf.Tensor | Mapping[str, tf.Tensor]"
_Self = TypeVar("_Self", bound="CandidateIndex")

MEASURES = ("dot_product", "cosine")


class CandidateIndex(factorized_top_k.TopK, abc.ABC):  # type: ignore[misc]
    """Names, variables and saving of an index; see `ExactTopK`, `PartitionedTopK`."""

    # The variables of an index, in the order in which files hold them; each is the
    # attribute of that name with an underscore before it, None until there is one.
    # These stay None where identifiers are the rows' numbers.
    _STATE: tuple[str, ...] = ("identifiers", "keys", "rows")
    _identifiers: tf.Variable | None

    def __init__(
        self,
        query_model: Any = None,
        k: int = 10,
        distance_measure: str = "dot_product",
        name: str | None = None,
    ) -> None:
        super().__init__(k=check_positive_int("k", k), name=name)
        self.query_model = query_model
        self.distance_measure = check_choice(
            "distance_measure",
            distance_measure,
            MEASURES,
            "Squared distances rank as dot products do once all candidates have one "
            "length, that is as cosines.",
        )
        for variable in self._STATE:
            setattr(self, f"_{variable}", None)

    @abc.abstractmethod
    def _take_in(self, source: Source) -> None:
        """Checks candidates and stores them, in place of any held before."""

    @abc.abstractmethod
    def _search_rows(
        self,
        queries: tf.Tensor,
        k: int,
        excluded: tf.Tensor | None,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores and rows `[B, k]` for queries `[B, D]`."""

    @property
    @abc.abstractmethod
    def _width(self) -> int | None:
        """D, or None while there are no candidates."""

    @property
    def _names_dtype(self) -> tf.DType:
        """The dtype of the identifiers."""
        return tf.int32 if self._identifiers is None else self._identifiers.dtype

    def index(self: _Self, candidates: Any, identifiers: Any = None) -> _Self:
        """Takes in the candidates, in place of any it held before.

        Args:
            candidates: float `[N, D]`, finite; a tensor or an array, which may be
                mapped from a file.
            identifiers: string, int32 or int64 `[N]`, unique. Defaults to 0..N-1.

        Returns:
            The index itself.
        """
        return self._index(as_source(candidates, identifiers))

    def index_from_dataset(self: _Self, candidates: tf.data.Dataset) -> _Self:
        """Takes in the candidates of a dataset, in place of any it held before.

        Args:
            candidates: dataset of batches, each float `[batch, D]`, or a pair of
                identifiers `[batch]` and that.

        Returns:
            The index itself.
        """
        return self._index(Dataset(candidates))

    def _index(self: _Self, source: Source) -> _Self:
        self._take_in(source)
        if self.query_model is None:
            # Keras learns the input from a first call, and cannot save without it.
            self(tf.zeros([1, self._width]))
        return self

    def call(
        self, queries: Queries, k: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self._answer(queries, k)

    # Functions of their own, as in TFRS, so that a SavedModel can carry them.
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
        return self._answer(queries, k, excluded=exclusions)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def query_among(
        self, queries: Queries, candidates: tf.Tensor, k: int | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The best k of the candidates that are listed for each query.

        Args:
            queries: as in a call of the index.
            candidates: identifiers `[B, C]`, a row for each query, with the same
                freedoms as exclusions have.
            k: int or None. Replaces the `k` of the constructor, for this call.

        Returns:
            scores float32 `[B, k]` in descending order, identifiers `[B, k]`.
        """
        return self._answer(queries, k, allowed=candidates)

    def search_rows(
        self,
        queries: tf.Tensor,
        k: int | None = None,
        *,
        excluded: tf.Tensor | None = None,
        allowed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The search itself, with rows 0..N-1 in place of identifiers.

        Args:
            queries: float `[B, D]`, or `[B, K, D]`: K queries a user, of which each
                candidate counts the one that it fits best.
            k: int or None. Replaces the `k` of the constructor, for this call.
            excluded: int32 `[B, E]` or None. Rows to leave out; others are ignored.
            allowed: int32 `[B, C]` or None. If given, only these are answered.

        Returns:
            scores float32 `[B, k]` in descending order, rows int32 `[B, k]`, -1 where
            no eligible candidate is left.
        """
        if self._width is None:
            raise ValueError(
                "The index must hold candidates before it is queried. Received: none. "
                "Call `index` or `index_from_dataset` first."
            )
        queries = self._checked_queries(queries)
        k = self._k if k is None else check_positive_int("k", k)
        if queries.shape.rank != 3:
            return self._search_rows(queries, k, excluded, allowed)
        interests = tf.shape(queries)[1]
        excluded, allowed = (
            None if lists is None else tf.repeat(lists, interests, axis=0)
            for lists in (excluded, allowed)
        )
        scores, rows = self._search_rows(
            tf.reshape(queries, [-1, self._width]), k, excluded, allowed
        )
        return merge_interests(
            tf.reshape(scores, [-1, interests, k]), tf.reshape(rows, [-1, interests, k])
        )

    def _answer(
        self, queries: Queries, k: int | None, **lists: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if self._width is not None and self.query_model is not None:
            queries = self.query_model(queries)
        rows = {name: self._rows_of(listed) for name, listed in lists.items()}
        scores, found = self.search_rows(queries, k, **rows)
        return scores, self._names_of(found)

    def _names_of(self, rows: tf.Tensor) -> tf.Tensor:
        held = self._identifiers
        names = None if held is None else tf.convert_to_tensor(held)
        return naming.name_rows(rows, names)

    def _checked_queries(self, queries: Any) -> tf.Tensor:
        queries, width = tf.convert_to_tensor(queries), self._width
        shape = queries.shape
        if shape.rank not in (None, 2, 3) or shape[-1] not in (None, width):
            raise ValueError(
                f"Queries must be embeddings [queries, {width}], as wide as the "
                f"candidates, or several a user [users, queries, {width}]. Received: "
                f"shape {tuple(shape)}. Pass a batch of them, from the model that the "
                "candidates belong to."
            )
        queries = tf.cast(queries, tf.float32)
        if self.distance_measure == "cosine":
            # Exact zeros stay zeros; a NaN stays one, and the search sees to it.
            queries = tf.math.divide_no_nan(
                queries, tf.norm(queries, axis=-1, keepdims=True)
            )
        return queries

    def _rows_of(self, listed: tf.Tensor) -> tf.Tensor | None:
        if self._width is None:
            return None  # an error follows
        listed, dtype = tf.convert_to_tensor(listed), self._names_dtype
        if (listed.dtype == tf.string) != (dtype == tf.string):
            raise ValueError(
                "Exclusions and allow-lists must hold identifiers of the index, which "
                f"are {dtype.name}. Received: {listed.dtype.name}. Convert them."
            )
        if self._identifiers is None:
            return naming.rows_by_number(listed)
        identifiers = tf.convert_to_tensor(self._identifiers)
        keys, rows = tf.convert_to_tensor(self._keys), tf.convert_to_tensor(self._rows)
        return naming.find_rows(listed, identifiers, keys, rows)

    def _store(self, **values: Any) -> None:
        """Sets all variables, which are made anew where shapes have changed.

        Never a part of one: TensorFlow copies a variable whole at each reading once a
        part of it was written.
        """
        tensors = {name: tf.convert_to_tensor(value) for name, value in values.items()}
        shapes = {
            n: (value.shape.as_list(), value.dtype) for n, value in tensors.items()
        }
        held = {
            name: (variable.shape.as_list(), variable.dtype)
            for name in self._STATE
            if (variable := getattr(self, f"_{name}")) is not None
        }
        if held == shapes:
            return self._assign(**tensors)
        for name in self._STATE:
            setattr(self, f"_{name}", None)  # before there are two
            if name in tensors:
                setattr(self, f"_{name}", self._made(name, tensors.pop(name)))
        return self._reset_tf_function_cache()

    def _made(self, name: str, value: tf.Tensor) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=value.dtype,
            # The value itself, which may be large, and not zeros first.
            initializer=lambda shape, dtype=None, **_: value,
            trainable=False,
            experimental_autocast=False,
        )

    def _assign(self, **values: Any) -> None:
        for name, value in values.items():
            getattr(self, f"_{name}").assign(value)

    def _reset_tf_function_cache(self) -> None:
        # Functions traced before still hold the variables that were dropped just now.
        for name in ("query_with_exclusions", "query_among"):
            function = getattr(self, name).python_function
            setattr(self, name, tf.function(function, reduce_retracing=True))
        self.predict_function = None

    def get_config(self) -> dict[str, Any]:
        return {
            "query_model": keras.saving.serialize_keras_object(self.query_model),
            "k": self._k,
            "distance_measure": self.distance_measure,
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
        for name in self._STATE:
            variable = getattr(self, f"_{name}")
            if variable is not None:
                for part, value in _file_form(variable).items():
                    store[f"{name}{part}"] = value

    def load_own_variables(self, store: Any) -> None:
        values = {
            name: value
            for name in self._STATE
            if (value := _from_file_form(store, name)) is not None
        }
        if not values:
            return
        self._store(**values)
        if self.query_model is None:
            self(tf.zeros([1, self._width]))


def _file_form(variable: tf.Variable) -> dict[str, Any]:
    """A variable as arrays of numbers, all that the file of Keras can hold."""
    value = variable.numpy()
    if variable.dtype == tf.string:
        lengths = np.array([len(name) for name in value], np.int64)
        return {"": np.frombuffer(b"".join(value), np.uint8), ".lengths": lengths}
    if variable.dtype == tf.bfloat16:
        return {".bfloat16": value.view(np.uint16)}
    return {"": value}


def _from_file_form(store: Any, name: str) -> Any:
    if f"{name}.bfloat16" in store:
        bits = np.asarray(store[f"{name}.bfloat16"])
        return tf.bitcast(bits, tf.bfloat16)
    if name not in store:
        return None
    value = np.asarray(store[name])
    if f"{name}.lengths" not in store:
        return value
    ends = np.cumsum(np.asarray(store[f"{name}.lengths"]))
    text = value.tobytes()
    starts = np.concatenate([[0], ends[:-1]])
    names = [text[a:b] for a, b in zip(starts, ends, strict=True)]
    return np.array(names, object)
