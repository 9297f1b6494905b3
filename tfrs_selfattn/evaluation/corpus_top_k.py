"""`FactorizedTopK`'s figures, faster: as a metric of a task, and as a callback.

Needs no TensorFlow Recommenders itself, and so works with Keras 3 as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras
from tfrs_selfattn.evaluation.corpus import Corpus


class CorpusTopK(keras.layers.Layer):  # type: ignore[misc]
    """How often the true candidate is among the top k of the whole corpus, exactly.

    Takes the place of `tfrs.metrics.FactorizedTopK` in
    `tfrs.tasks.Retrieval(metrics=…)`, under the same names. The corpus is embedded once
    an evaluation, when Keras resets the metrics before it, not once a batch; and one
    count of the candidates that score at least as much as the true one gives every k,
    without a search for the best.

    In training steps the corpus would be that of the beginning of the epoch: give the
    task `compute_metrics=not training`.

    Args:
        candidates: dataset of batches (identifiers `[b]`, embeddings float `[b, D]`),
            usually the batched identifiers with the candidate model mapped over them;
            strings or integers.
        ks: ints. Defaults to `(1, 5, 10, 50, 100)`.
        name: str. Defaults to `"factorized_top_k"`.

    Raises:
        ValueError: when a candidate occurs twice, the dataset is empty or not of pairs,
            or an update has no identifiers.

    Example:

    >>> vectors = tf.constant([[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]])
    >>> items = tf.data.Dataset.from_tensor_slices((["a", "b", "c"], vectors))
    >>> metric = tfrs_selfattn.evaluation.CorpusTopK(items.batch(2), ks=(1, 2))
    >>> metric.reset_state()
    >>> queries = tf.constant([[1.0, 0.0], [1.0, 0.0]])
    >>> _ = metric.update_state(queries, None, tf.constant(["a", "c"]))
    >>> [float(value) for value in metric.result()]
    [0.5, 1.0]

    Differs from: `FactorizedTopK`, which counts ties for the candidate when it gets no
    identifiers, takes duplicate candidates, and cannot leave out what a user has seen.
    The task must be given `candidate_ids`. A tie counts against the candidate here.
    """

    def __init__(
        self,
        candidates: tf.data.Dataset,
        ks: Sequence[int] = (1, 5, 10, 50, 100),
        name: str = "factorized_top_k",
    ) -> None:
        super().__init__(name=name)
        self.ks = tuple(check_positive_int("ks", k) for k in ks)
        self._corpus = Corpus(candidates)
        self._is_fresh = False
        self._top_k_metrics = [
            _MeanWithNews(self._refresh_at_reset, f"{name}/{_accuracy_name(k)}")
            for k in self.ks
        ]
        # Nothing to build: Keras 3 would warn about a model that holds it.
        self.built = True

    def refresh(self) -> None:
        """Embeds the corpus with the model as it is now."""
        self._corpus.refresh()
        self._is_fresh = True

    def update_state(
        self,
        query_embeddings: tf.Tensor,
        true_candidate_embeddings: Any = None,
        true_candidate_ids: tf.Tensor | None = None,
        sample_weight: tf.Tensor | None = None,
        seen_ids: tf.Tensor | None = None,
    ) -> Any:
        """Counts a batch.

        Args:
            query_embeddings: float `[B, D]`.
            true_candidate_embeddings: ignored: the corpus has them. Defaults to
                `None`.
            true_candidate_ids: `[B]`. Must be given. More than B, of a task with
                extra negatives, are cut to the first B. Defaults to `None`.
            sample_weight: float `[B]` or None. Defaults to `None`.
            seen_ids: `[B, E]` or None. What to leave out of each ranking, except the
                true candidate; unknown identifiers, such as padding, are harmless.
                Defaults to `None`.
        """
        if true_candidate_ids is None:
            raise ValueError(
                "`true_candidate_ids` must be given: scores alone cannot tell a "
                "candidate from its ties. Received: None. Pass `candidate_ids=` to "
                "the Retrieval task."
            )
        if not self._is_fresh:
            with tf.init_scope():
                self.refresh()
        query_embeddings = tf.convert_to_tensor(query_embeddings)
        true_candidate_ids = tf.convert_to_tensor(true_candidate_ids)
        ranks = self._corpus.ranks(
            query_embeddings,
            true_candidate_ids[: tf.shape(query_embeddings)[0]],
            seen_ids,
        )
        updates = [
            metric.update_state(tf.cast(ranks <= k, tf.float32), sample_weight)
            for k, metric in zip(self.ks, self._top_k_metrics, strict=True)
        ]
        # None when run eagerly, and in Keras 3: there is no operation to wait for.
        return tf.group([update for update in updates if update is not None])

    def result(self) -> list[tf.Tensor]:
        """The accuracies, in the order of `ks`."""
        return [metric.result() for metric in self._top_k_metrics]

    def reset_state(self) -> None:
        """Forgets what was counted, and embeds the corpus anew."""
        self._is_fresh = False
        for metric in self._top_k_metrics:
            metric.reset_state()

    def _refresh_at_reset(self, metric: Any) -> None:
        # Keras resets each of the means; the corpus is the same for all.
        if metric is self._top_k_metrics[0]:
            self.refresh()


class CorpusTopKCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Evaluates `CorpusTopK` after every epoch, without a metric in the task.

    For a model whose `fit` has no validation data, or whose ranking should leave out
    what a user has seen. The figures join the epoch's logs as
    `val_factorized_top_k/top_10_categorical_accuracy` and the like, where callbacks
    after this one, early stopping for instance, find them.

    Args:
        metric: `CorpusTopK`.
        query_model: function from the features of a batch to query embeddings float
            `[B, D]`; a Keras model, usually.
        queries: dataset of batches (features, identifiers `[B]` of the true
            candidates), or with a third part, seen identifiers `[B, E]`, that are left
            out of the ranking.
        prefix: str. Of the names in the logs. Defaults to `"val_"`.
    """

    def __init__(
        self,
        metric: CorpusTopK,
        query_model: Callable[[Any], tf.Tensor],
        queries: tf.data.Dataset,
        prefix: str = "val_",
    ) -> None:
        super().__init__()
        spec = queries.element_spec
        if not isinstance(spec, tuple) or len(spec) not in (2, 3):
            raise ValueError(
                "`queries` must yield (features, identifiers) or (features, "
                f"identifiers, seen identifiers). Received: {spec}. Map the dataset to "
                "such tuples."
            )
        self.metric = metric
        self.queries = queries
        self.prefix = prefix

        def update(features: Any, identifiers: tf.Tensor, seen: Any = None) -> None:
            embeddings = query_model(features)
            metric.update_state(embeddings, None, identifiers, seen_ids=seen)

        self._update = tf.function(update, reduce_retracing=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the figures of this epoch to the logs."""
        figures = self.evaluate()
        if logs is not None:
            logs.update(figures)

    def evaluate(self) -> dict[str, float]:
        """The figures of the model as it is now, by their names in the logs."""
        self.metric.reset_state()
        for batch in self.queries:
            self._update(*batch)
        return {
            f"{self.prefix}{self.metric.name}/{_accuracy_name(k)}": float(accuracy)
            for k, accuracy in zip(self.metric.ks, self.metric.result(), strict=True)
        }


class _MeanWithNews(keras.metrics.Mean):  # type: ignore[misc]
    """A mean that tells when it is reset: the one sign of a new evaluation."""

    def __init__(self, on_reset: Callable[[Any], None], name: str) -> None:
        super().__init__(name=name)
        self._on_reset = on_reset

    def reset_state(self) -> None:
        super().reset_state()
        self._on_reset(self)


def _accuracy_name(k: int) -> str:
    return f"top_{k}_categorical_accuracy"
