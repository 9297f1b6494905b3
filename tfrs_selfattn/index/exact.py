"""Exact retrieval as a TensorFlow Recommenders `TopK` layer.

The search itself is `tfrs_selfattn.ops.top_k.exact_search`.
"""

from __future__ import annotations

import tensorflow as tf

from tfrs_selfattn._keras import register, require_legacy_keras

require_legacy_keras("tfrs_selfattn.index.ExactTopK")

from tfrs_selfattn.index import identifiers as naming  # noqa: E402
from tfrs_selfattn.index import sources  # noqa: E402
from tfrs_selfattn.index._base import CandidateIndex  # noqa: E402
from tfrs_selfattn.ops.top_k import exact_search  # noqa: E402


@register
class ExactTopK(CandidateIndex):
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
        distance_measure: `"dot_product"` or `"cosine"`, the product of vectors scaled
            to length 1 (zeros stay zeros). Defaults to `"dot_product"`.
        name: str or None. Name of the layer. Defaults to `None`.

    Call arguments:
        queries: float `[B, D]`, or `[B, K, D]`: K interests of a user, of which each
            candidate counts the one it fits best; or whatever `query_model` takes.
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

    _STATE = ("candidates", *CandidateIndex._STATE)
    _candidates: tf.Variable | None

    def is_exact(self) -> bool:
        """True: no candidate is overlooked."""
        return True

    @property
    def _width(self) -> int | None:
        return None if self._candidates is None else self._candidates.shape[1]

    def _take_in(self, source: sources.Source) -> None:
        names = naming.kept(source.identifiers)
        candidates = sources.whole(source)
        if self.distance_measure == "cosine":
            candidates[:] = sources.unit(candidates)
        self._store(candidates=sources.adopted(candidates, tf.float32), **names)

    def _search_rows(
        self,
        queries: tf.Tensor,
        k: int,
        excluded: tf.Tensor | None,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        candidates = tf.convert_to_tensor(self._candidates)
        return exact_search(queries, candidates, k, excluded=excluded, allowed=allowed)

    def vectors_of(self, rows: tf.Tensor) -> tf.Tensor:
        """The candidates float32 `[..., D]` in these rows, zeros for row -1."""
        found = tf.gather(tf.convert_to_tensor(self._candidates), tf.maximum(rows, 0))
        return tf.where(rows[..., tf.newaxis] >= 0, found, 0.0)
