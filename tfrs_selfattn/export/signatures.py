"""What a server is asked and what it answers: the signatures of a SavedModel.

The names of signatures, inputs and outputs are fixed; clients depend on them.

| signature | inputs | outputs |
|---|---|---|
| `serving_default` | `history` string [B, T] | `ids` string [B, k], `scores` [B, k] |
| `recommend_excluding` | `history`, `exclude` string [B, E] | same |
| `recommend_among` | `history`, `candidates` string [B, C] | same |
| `tf_example` | `examples` string [B]: `history`, `exclude` | same |
| `embed_query` | `history` | `embedding` float32 [B, D] |
| `embed_item` | `item` string [B] and features | `embedding` float32 [B, D] |
| `explain` | `history`, `item` string [B] | `contribution` float32 [B, T] |
| `search` | `embedding` float32 [B, D], `exclude` | `ids`, `scores` |

A model that knows items by their features takes raw values of them in `embed_item`, by
name: string [B], float32 [B] or [B, d]. They count for an item that it does not know;
`""`, NaN and zeros stand for what is missing.

A time-aware model takes `timestamps` int64 [B, T] and `request_time` int64 [B] beside
`history`, and in the examples. One with features of users and requests takes them by
name, string [B], float32 [B] or [B, d], and of events string or float32 [B, T]; `""`,
NaN and zeros are missing values, and so is what an example lacks. Where they say
something, they answer a history without a known item.

`explain` says how much the score of the item falls when one item of the history is
taken away, item by item; 0 at padding and unknown ids, and for an item that is not
answered. An export holds all but `search`; one of the query tower alone holds
`embed_query`, one of the index alone `search` and `embed_item`.

Each row stands for itself. There is no assertion in the graph, since on a server one
bad row would fail every request of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf

from tfrs_selfattn.explain.occlusion import leave_one_out
from tfrs_selfattn.export.catalogue import Catalogue, Names
from tfrs_selfattn.export.item_side import ItemSide, specs
from tfrs_selfattn.export.query_side import QuerySide, widened
from tfrs_selfattn.export.searching import Search, rank_among, without
from tfrs_selfattn.export.tf_example import decode_examples, like
from tfrs_selfattn.features.feature_set import FeatureSet
from tfrs_selfattn.ops.top_k import LOWEST_SCORE

IDS = tf.TensorSpec([None, None], tf.string)
_ONE_ID = tf.TensorSpec([None], tf.string)
TIMES = {
    "timestamps": tf.TensorSpec([None, None], tf.int64),
    "request_time": tf.TensorSpec([None], tf.int64),
}
# Of the year 9999: differences of what lies between fit any arithmetic on them.
_LATEST = 253_402_300_799

# From tower indices int32 [B, T], the item table [M + 1, D] of a tower that has it
# outside, times for a time-aware one, and raw values of the features of `QuerySide`, to
# queries [B, D].
EncodeQuery: TypeAlias = Callable[..., tf.Tensor]


class Signatures(tf.Module):  # type: ignore[misc]
    """The state of an exported recommender and the functions over it.

    Candidates, identifiers and popularity are variables and the vocabulary is an asset,
    so the graph is the same size for any catalogue. The query tower comes as a plain
    function: tracked as a Keras model, it would bring its optimizer, its metrics and
    the configuration of every layer into the SavedModel.

    Args:
        names: `Names`.
        encode_query: function from tower indices, see `EncodeQuery`, or None for an
            index alone.
        catalogue: `Catalogue`, or None for a query tower alone.
        search: function over the catalogue, see `searching.Search`, or None likewise.
        k: int. Columns of an answer.
        keep_seen: bool. Answer with items of the history too.
        time_aware: bool. Whether the query tower takes times.
        items: `ItemSide` of a model that knows items by features, else None.
        features: `FeatureSet` of the items, likewise.
        side: `QuerySide`, what the query tower takes beside histories.
    """

    def __init__(
        self,
        names: Names,
        *,
        encode_query: EncodeQuery | None,
        catalogue: Catalogue | None,
        search: Search | None,
        k: int,
        keep_seen: bool,
        time_aware: bool,
        items: ItemSide | None = None,
        features: FeatureSet | None = None,
        side: QuerySide | None = None,
    ) -> None:
        super().__init__(name="recommender")
        self.names = names
        self.catalogue: Any = catalogue
        # A refresh takes it from here; the others are for the signatures alone. A
        # SavedModel lists every function that it can see, but not inside a lambda.
        self.encode_query: Any = encode_query
        self._search: Any = None if search is None else lambda *given: search(*given)
        self._k = k
        self._keep_seen = keep_seen
        self._times = TIMES if time_aware else {}
        self._side: QuerySide = side or QuerySide()
        if items is not None:
            self.items = items
        self._item_inputs = {} if features is None else specs(features, None)

    def concrete_functions(self) -> dict[str, Any]:
        """The functions to save, by signature, after tracking what they capture."""
        functions = {}
        asked = {"history": IDS, **self._times, **self._side.specs()}
        if self.encode_query is not None:
            functions["embed_query"] = _traced(self._embed_query, **asked)
        if self.catalogue is not None:
            functions["embed_item"] = _traced(
                self._embed_item, item=_ONE_ID, **self._item_inputs
            )
            width = self.catalogue.candidates.shape[1]
        if self.encode_query is not None and self.catalogue is not None:
            functions |= {
                "serving_default": _traced(self._recommend, **asked),
                "recommend_excluding": _traced(self._recommend, **asked, exclude=IDS),
                "recommend_among": _traced(self._recommend, **asked, candidates=IDS),
                "tf_example": _traced(self._tf_example, examples=_ONE_ID),
                "explain": _traced(self._explain, **asked, item=_ONE_ID),
            }
        elif self.catalogue is not None:
            functions["search"] = _traced(
                self._search_by_vector,
                embedding=tf.TensorSpec([None, width], tf.float32),
                exclude=IDS,
            )
        self._track(functions.values())
        return functions

    def _track(self, functions: Any) -> None:
        """Tracks the variables of the tower and of an index, in a stable order."""
        captured = {v.ref(): v for function in functions for v in function.variables}
        for variable in self.variables:
            captured.pop(variable.ref(), None)
        self.query_tower = sorted(captured.values(), key=lambda variable: variable.name)

    def _recommend(
        self,
        history: tf.Tensor,
        exclude: tf.Tensor | None = None,
        candidates: tf.Tensor | None = None,
        **told: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        places, queries = self._query(history, told)
        excluded = self._excluded(places, exclude)
        allowed = None if candidates is None else self.names.rows_of(candidates)
        return self._named(*self._answer(queries, places, excluded, allowed))

    def _tf_example(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = decode_examples(
            examples, with_times=bool(self._times), side=self._side
        )
        places, queries = self._query(decoded.history, decoded.told)
        excluded = self._excluded(places, decoded.exclude)
        scores, rows = self._answer(queries, places, excluded, None)
        readable = decoded.readable[:, tf.newaxis]
        return self._named(
            tf.where(readable, scores, LOWEST_SCORE), tf.where(readable, rows, -1)
        )

    def _embed_query(
        self, history: tf.Tensor, **told: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        places, queries = self._query(history, told)
        # Zeros for an empty history, also from a tower that does otherwise.
        known = self._is_known(self._indices(places), queries)
        return {"embedding": tf.where(known, queries, 0.0)}

    def _embed_item(self, item: tf.Tensor, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self.names.rows_of(item)
        vectors = self.catalogue.vectors_of(rows)
        if raw:
            ordered = [raw[name] for name in self._item_inputs]
            new, _ = self.items.embed_new(item, *ordered)
            is_new = tf.logical_and(rows < 0, item != "")[:, tf.newaxis]
            vectors = tf.where(is_new, new, vectors)
        return {"embedding": vectors}

    def _explain(
        self, history: tf.Tensor, item: tf.Tensor, **told: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        table = self._item_table()

        def score(indices: tf.Tensor, row: tf.Tensor, *more: tf.Tensor) -> tf.Tensor:
            queries = self.encode_query(indices, *table, *more)
            # Zeros for what an empty history leaves, as in `embed_query`.
            queries = tf.where(self._is_known(indices, queries), queries, 0.0)
            return tf.reduce_sum(queries * self.catalogue.vectors_of(row), axis=1)

        contribution = leave_one_out(
            score,
            self._indices(self.names.find(history)),
            self.names.rows_of(item),
            *self._ordered(history, told),
        )
        # JSON has no NaN: like a query with one, it is no answer.
        usable = tf.math.is_finite(contribution)
        return {"contribution": tf.where(usable, contribution, 0.0)}

    def _search_by_vector(
        self, embedding: tf.Tensor, exclude: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        excluded = self.names.rows_of(exclude)
        # The vector of a history without a known item, as `embed_query` gives it.
        known = tf.reduce_any(embedding != 0, axis=1, keepdims=True)
        return self._named(*self._best(embedding, known, excluded, None))

    def _query(
        self, history: tf.Tensor, told: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The places `[B, T]` of a history and its query vectors `[B, D]`."""
        places = self.names.find(history)
        more = self._ordered(history, told)
        indices = self._indices(places)
        return places, self.encode_query(indices, *self._item_table(), *more)

    def _indices(self, places: tf.Tensor) -> tf.Tensor:
        """What the query tower reads."""
        return tf.gather(self.names.tower_indices, places)

    def _item_table(self) -> list[tf.Tensor]:
        """What `encode_query` of a model that knows items by features takes more."""
        if not self._item_inputs:
            return []
        # Read as a whole: see `Catalogue.vectors_of`.
        return [tf.convert_to_tensor(self.items.table)]

    def _ordered(
        self, history: tf.Tensor, told: Mapping[str, tf.Tensor]
    ) -> list[tf.Tensor]:
        """What is told beside a history, as `encode_query` takes it."""
        more = []
        if self._times:
            more = [like(told["timestamps"], history), told["request_time"]]
            more = [tf.clip_by_value(times, 0, _LATEST) for times in more]
        for feature, of_event in self._side.features():
            values = told[feature.name]
            if of_event:
                values = widened(values, history, feature.missing())
            more.append(values)
        return more

    def _is_known(self, indices: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Whether there is an item, or what is told of the user says something."""
        known = tf.reduce_any(indices > 0, axis=1, keepdims=True)
        if self._side.query is None:
            return known
        return known | tf.reduce_any(queries != 0, axis=1, keepdims=True)

    def _excluded(self, places: tf.Tensor, exclude: tf.Tensor | None) -> tf.Tensor:
        """The rows `[B, E]` that must not be answered."""
        seen = places[:, :0] if self._keep_seen else places
        seen = tf.gather(self.names.rows, seen)
        if exclude is None:
            return seen
        return tf.concat([seen, self.names.rows_of(exclude)], axis=1)

    def _answer(
        self,
        queries: tf.Tensor,
        places: tf.Tensor,
        excluded: tf.Tensor,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores `[B, k]` and rows `[B, k]` for histories."""
        known = self._is_known(self._indices(places), queries)
        return self._best(queries, known, excluded, allowed)

    def _best(
        self,
        queries: tf.Tensor,
        known: tf.Tensor,
        excluded: tf.Tensor,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The best rows for a query; the most popular where nothing is known."""
        popularity, k = self.catalogue.popularity, self._k
        if allowed is None:
            scores, rows = self._search(queries, excluded)
            popular = popularity.top_k(k, excluded)
        else:
            allowed = without(allowed, excluded)
            candidates = tf.convert_to_tensor(self.catalogue.candidates)
            scores, rows = rank_among(queries, candidates, allowed, k)
            popular = popularity.top_k_among(k, allowed)
        return tf.where(known, scores, popular[0]), tf.where(known, rows, popular[1])

    def _named(self, scores: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        scores.set_shape([None, self._k])
        rows.set_shape([None, self._k])
        return {"ids": self.catalogue.names_of(rows), "scores": scores}


def shared(
    encode_query: EncodeQuery,
    *,
    time_aware: bool,
    width: int | None = None,
    side: QuerySide | None = None,
) -> Any:
    """One function that every signature calls, not a copy of the tower in each.

    A concrete one, since any other would be wrapped once more by each refresh. Traces
    without AutoGraph if the tower can do without: 20 times faster.

    Args:
        encode_query: see `EncodeQuery`.
        time_aware: bool. Whether it takes times.
        width: int. D of the item table that it takes, None if it takes none.
        side: `QuerySide`, the features that it takes.
    """
    signature = [tf.TensorSpec([None, None], tf.int32, name="indices")]
    if width is not None:
        signature.append(tf.TensorSpec([None, width], tf.float32, name="item_table"))
    if time_aware:
        signature += [
            tf.TensorSpec(spec.shape, spec.dtype, name=name)
            for name, spec in TIMES.items()
        ]
    signature += (side or QuerySide()).specs().values()
    try:
        plain = tf.function(encode_query, input_signature=signature, autograph=False)
        traced = plain.get_concrete_function()
        traced.encode_query = encode_query  # it owns variables that a graph does not
        return traced
    except tf.errors.OperatorNotAllowedInGraphError:  # a Python `if` on a tensor
        return tf.function(
            encode_query, input_signature=signature
        ).get_concrete_function()


def _traced(function: Callable[..., Any], **inputs: tf.TensorSpec) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(
        **{
            name: tf.TensorSpec(spec.shape, spec.dtype, name=name)
            for name, spec in inputs.items()
        }
    )
