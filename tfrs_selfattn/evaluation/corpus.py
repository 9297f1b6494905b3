"""A corpus of candidates, embedded once, and exact ranks in it.

Shape alphabet: B users, N candidates, D width, E identifiers a user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn.evaluation.ranking import target_ranks

# Scores held at a time: 25 million, 100 MB in float32.
_MAX_SCORES = 25_000_000
_FINGERPRINTS = 2**63 - 1


class Corpus:
    """The candidates of a dataset as they were when it was last read.

    Plain variables behind a plain object: Keras neither saves them with a model nor
    counts them as weights.

    Args:
        candidates: dataset of batches (identifiers `[b]`, embeddings float `[b, D]`).
            Read again by every `refresh`, which embeds anew what it maps a model over.
    """

    def __init__(self, candidates: tf.data.Dataset) -> None:
        self._dataset = candidates
        identifiers, embeddings = _element_spec(candidates)
        self.dtype = identifiers.dtype
        # Sorted by key. Shapes are open, for a corpus that grows.
        self._keys = _variable([None], tf.int64)
        self._names = _variable([None], self.dtype)
        self._rows = _variable([None], tf.int32)
        self._embeddings = _variable([None, embeddings.shape[1]], tf.float32)

    def refresh(self) -> None:
        """Embeds the corpus with the model as it is now.

        Raises:
            ValueError: when the dataset is empty or an identifier occurs twice.
        """
        batches = list(self._dataset)
        if not batches:
            raise ValueError(
                "`candidates` must yield at least one batch. Received: an empty "
                "dataset. Check the dataset, or whether it was used up."
            )
        names = tf.concat([names for names, _ in batches], axis=0)
        keys = _keys_of(names).numpy()
        order = np.argsort(keys, kind="stable")
        _check_unique(names.numpy()[order], keys[order])
        self._keys.assign(keys[order])
        self._names.assign(tf.gather(names, order))
        self._rows.assign(order.astype(np.int32))
        self._embeddings.assign(
            tf.concat([tf.cast(vectors, tf.float32) for _, vectors in batches], axis=0)
        )

    def ranks(
        self,
        queries: tf.Tensor,
        identifiers: tf.Tensor,
        seen: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The rank of each query's candidate among all, by dot product.

        Args:
            queries: float `[B, D]`.
            identifiers: `[B]` or `[B, 1]` of the true candidates. One that the corpus
                does not have is `UNRANKED`.
            seen: identifiers `[B, E]` or None. Left out of the ranking, but for the
                true candidate; unknown ones are harmless. Defaults to `None`.

        Returns:
            int32 `[B]`, best = 1, ties counted against the candidate.
        """
        queries = tf.cast(queries, tf.float32)
        targets = self._indices(tf.reshape(identifiers, [-1]))  # [B]
        others = tf.zeros([tf.shape(targets)[0], 0], tf.int32)
        if seen is not None:
            others = self._indices(seen)  # [B, E]
        # Rows at a time, never columns: all scores of a user come out of one product,
        # so that equal embeddings have equal scores.
        batch_size = tf.shape(queries)[0]
        most = tf.maximum(1, _MAX_SCORES // tf.shape(self._embeddings)[0])
        blocks = tf.maximum(1, -(-batch_size // most))
        rows = tf.maximum(1, -(-batch_size // blocks))  # Blocks of about equal size.

        def step(start: tf.Tensor, ranks: tf.TensorArray) -> tuple[Any, Any]:
            part = slice(start, tf.minimum(start + rows, batch_size))
            scores = tf.matmul(queries[part], self._embeddings, transpose_b=True)
            found = target_ranks(scores, targets[part], others[part])
            return start + rows, ranks.write(start // rows, found)

        ranks = tf.TensorArray(tf.int32, 0, dynamic_size=True, infer_shape=False)
        _, ranks = tf.while_loop(
            lambda start, _: start < batch_size, step, (0, ranks), parallel_iterations=1
        )
        found = ranks.concat()
        found.set_shape([queries.shape[0]])
        return found

    def _indices(self, identifiers: tf.Tensor) -> tf.Tensor:
        """1 + the row of each identifier in the corpus, 0 for an unknown one."""
        wanted = tf.reshape(identifiers, [-1])
        keys = _keys_of(wanted)
        last = tf.shape(self._keys)[0] - 1
        place = tf.minimum(tf.searchsorted(self._keys, keys), last)
        if self.dtype == tf.string:
            # A fingerprint alone could be that of another string.
            same = tf.gather(self._names, place) == wanted
        else:
            same = tf.gather(self._keys, place) == keys
        index = tf.where(same, 1 + tf.gather(self._rows, place), 0)
        return tf.reshape(index, tf.shape(identifiers))


def _variable(shape: list[int | None], dtype: tf.DType) -> tf.Variable:
    empty = tf.zeros([size or 0 for size in shape], dtype)
    return tf.Variable(empty, trainable=False, shape=tf.TensorShape(shape))


def _keys_of(identifiers: tf.Tensor) -> tf.Tensor:
    if identifiers.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(identifiers, _FINGERPRINTS)
    return tf.cast(identifiers, tf.int64)


def _element_spec(candidates: Any) -> tuple[Any, Any]:
    spec = getattr(candidates, "element_spec", candidates)
    if (
        isinstance(spec, tuple)
        and len(spec) == 2
        and spec[0].shape.rank == 1
        and spec[1].shape.rank == 2
        and (spec[0].dtype == tf.string or spec[0].dtype.is_integer)
    ):
        return spec
    raise ValueError(
        "`candidates` must be a dataset of batches of pairs (identifiers [b], "
        f"embeddings [b, D]). Received: {spec}. Batch the items first and map the "
        "candidate model over them: "
        "`items.batch(4096).map(lambda ids: (ids, candidate_model(ids)))`."
    )


def _check_unique(names: np.ndarray[Any, Any], keys: np.ndarray[Any, Any]) -> None:
    """Takes names and keys sorted by key."""
    for place in np.flatnonzero(keys[1:] == keys[:-1]):
        first, second = names[place], names[place + 1]
        if first == second:
            raise ValueError(
                "`candidates` must hold every identifier once. Received: "
                f"{_shown(first)} twice. A duplicate takes a place of the top k twice "
                "and makes the metric wrong; use `Dataset.unique()`, or drop it."
            )
        raise ValueError(
            f"`candidates` must not share fingerprints. Received: {_shown(first)} and "
            f"{_shown(second)} with the same one. Rename one of them."
        )


def _shown(name: Any) -> str:
    return (
        repr(name.decode("utf-8", "replace")) if isinstance(name, bytes) else f"{name}"
    )
