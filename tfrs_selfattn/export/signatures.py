"""What a server is asked and what it answers: the signatures of a SavedModel.

The names of signatures, inputs and outputs are fixed; clients depend on them.

| signature | inputs | outputs |
|---|---|---|
| `serving_default` | `history` string [B, T] | `ids` string [B, k], `scores` [B, k] |
| `recommend_excluding` | `history`, `exclude` string [B, E] | same |
| `recommend_among` | `history`, `candidates` string [B, C] | same |
| `tf_example` | `examples` string [B]: `history`, `exclude` | same |
| `embed_query` | `history` | `embedding` float32 [B, D] |
| `embed_item` | `item` string [B] | `embedding` float32 [B, D] |

Each row stands for itself. There is no assertion in the graph, since on a server one
bad row would fail every request of its batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.export.popularity import Popularity
from tfrs_selfattn.export.tf_example import decode_examples
from tfrs_selfattn.ops.top_k import LOWEST_SCORE, exact_search

_IDS = tf.TensorSpec([None, None], tf.string)
_ONE_A_ROW = tf.TensorSpec([None], tf.string)


class Signatures(tf.Module):  # type: ignore[misc]
    """The state of an exported recommender and the functions over it.

    Holds candidates, identifiers and popularity as variables and the vocabulary as an
    asset, so the graph is the same size for any catalogue. The query tower comes as a
    plain function: tracked as a Keras model, it would bring its optimizer, its metrics
    and the configuration of every layer into the SavedModel.

    Args:
        encode_query: function from int32 `[B, T]` item indices to float32 `[B, D]`.
        candidates: float32 `[N, D]`.
        ids: string `[N]`, the identifiers of the candidates.
        counts: int `[N]`, events of each item.
        vocabulary_file: path of a file with the ids, one a line.
        k: int. Columns of an answer.
        keep_seen: bool. Answer with items of the history too.
    """

    def __init__(
        self,
        encode_query: Callable[[tf.Tensor], tf.Tensor],
        candidates: tf.Tensor,
        ids: npt.NDArray[np.object_],
        counts: npt.ArrayLike,
        vocabulary_file: str | os.PathLike[str],
        *,
        k: int,
        keep_seen: bool,
    ) -> None:
        super().__init__(name="recommender")
        # One function that every signature calls, not a copy of the tower in each.
        # Hidden in a lambda, since a SavedModel lists the functions that it can see.
        shared = _shared(encode_query)
        self._encode_query: Callable[[tf.Tensor], tf.Tensor] = lambda rows: shared(rows)
        self._k = k
        self._keep_seen = keep_seen
        self.candidates = tf.Variable(candidates, trainable=False, name="candidates")
        # The identifier of row r lies at r + 1, since "" stands for row -1, nothing.
        names = np.concatenate([np.array([b""], object), ids])
        self.identifiers = tf.Variable(names, trainable=False, name="identifiers")
        self.popularity = Popularity(counts)
        self.rows = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                os.fspath(vocabulary_file),
                key_dtype=tf.string,
                key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
                value_dtype=tf.int64,
                value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            default_value=-1,
        )

    def concrete_functions(self) -> dict[str, Any]:
        """The functions to save, by signature, after tracking what they capture."""
        functions = {
            "serving_default": _traced(self._recommend, history=_IDS),
            "recommend_excluding": _traced(
                self._recommend_excluding, history=_IDS, exclude=_IDS
            ),
            "recommend_among": _traced(
                self._recommend_among, history=_IDS, candidates=_IDS
            ),
            "tf_example": _traced(self._tf_example, examples=_ONE_A_ROW),
            "embed_query": _traced(self._embed_query, history=_IDS),
            "embed_item": _traced(self._embed_item, item=_ONE_A_ROW),
        }
        captured = {
            variable.ref(): variable
            for function in functions.values()
            for variable in function.variables
        }
        for variable in self.variables:
            captured.pop(variable.ref(), None)
        self.query_tower = sorted(captured.values(), key=lambda variable: variable.name)
        return functions

    def _recommend(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._named(*self._answer(self._rows_of(history)))

    def _recommend_excluding(
        self, history: tf.Tensor, exclude: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        rows = self._rows_of(history)
        return self._named(*self._answer(rows, excluded=self._rows_of(exclude)))

    def _recommend_among(
        self, history: tf.Tensor, candidates: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        rows = self._rows_of(history)
        return self._named(*self._answer(rows, allowed=self._rows_of(candidates)))

    def _tf_example(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        history, exclude, readable = decode_examples(examples)
        scores, rows = self._answer(
            self._rows_of(history), excluded=self._rows_of(exclude)
        )
        readable = readable[:, tf.newaxis]
        return self._named(
            tf.where(readable, scores, LOWEST_SCORE), tf.where(readable, rows, -1)
        )

    def _embed_query(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._rows_of(history)
        # Zeros for an empty history, also from a tower that does otherwise.
        known = tf.reduce_any(rows >= 0, axis=1, keepdims=True)
        return {"embedding": tf.where(known, self._encode_query(rows + 1), 0.0)}

    def _embed_item(self, item: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self._rows_of(item)
        vectors = tf.gather(self.candidates, tf.maximum(rows, 0))
        return {"embedding": tf.where(rows[:, tf.newaxis] >= 0, vectors, 0.0)}

    def _rows_of(self, ids: tf.Tensor) -> tf.Tensor:
        """The row of each id in int32, -1 for padding and unknown ids."""
        return tf.cast(self.rows.lookup(ids), tf.int32)

    def _answer(
        self,
        history: tf.Tensor,
        excluded: tf.Tensor | None = None,
        allowed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores `[B, k]` and rows `[B, k]`, from histories etc. given as rows."""
        seen = history[:, :0] if self._keep_seen else history
        left_out = seen if excluded is None else tf.concat([seen, excluded], axis=1)
        scores, rows = exact_search(
            self._encode_query(history + 1),
            tf.convert_to_tensor(self.candidates),
            self._k,
            excluded=left_out,
            allowed=allowed,
        )
        if allowed is None:
            popular = self.popularity.top_k(self._k, left_out)
        else:
            # Who has no known history has nothing to leave out either.
            popular = self.popularity.top_k_among(self._k, allowed)
        known = tf.reduce_any(history >= 0, axis=1, keepdims=True)
        return tf.where(known, scores, popular[0]), tf.where(known, rows, popular[1])

    def _named(self, scores: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        scores.set_shape([None, self._k])
        rows.set_shape([None, self._k])
        return {"ids": tf.gather(self.identifiers, rows + 1), "scores": scores}


def _shared(encode_query: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """Traces the tower, without AutoGraph if it can do without: 20 times faster."""
    signature = [tf.TensorSpec([None, None], tf.int32)]
    try:
        plain = tf.function(encode_query, input_signature=signature, autograph=False)
        plain.get_concrete_function()
    except tf.errors.OperatorNotAllowedInGraphError:  # a Python `if` on a tensor
        return tf.function(encode_query, input_signature=signature)
    return plain


def _traced(function: Callable[..., Any], **inputs: tf.TensorSpec) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(
        **{
            name: tf.TensorSpec(spec.shape, spec.dtype, name=name)
            for name, spec in inputs.items()
        }
    )
