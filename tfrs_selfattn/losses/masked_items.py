"""BERT4Rec's objective: guess the items that were hidden from the encoder."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_fraction
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import SequenceLayer
from tfrs_selfattn.losses.context import CandidateLookup, LossContext, takes_context
from tfrs_selfattn.losses.full_softmax import FullSoftmax


@register
class MaskedItems(SequenceLayer):
    """Hides items of the training rows and trains on guessing them from both sides.

    The objective has two halves. `prepare` turns rows for next-item training into rows
    with hidden items: each item of a sequence is hidden by chance, and some sequences
    hide the newest alone, which is what a request for recommendations looks like. The
    rows then go through the query tower, whose queries at the hidden positions go into
    the loss. `SequenceRetrieval` does all of this, for a `QueryTower` with
    `query_token=True` and an encoder that is not causal. In use that tower puts its
    token behind the newest item: a hidden item that was never there.

    Args:
        loss: next-item loss. None takes `FullSoftmax()`. Defaults to `None`.
        rate: float in [0, 1). Share of the items that is hidden. Defaults to `0.2`.
        newest_only: float in [0, 1). Share of the sequences that hide the newest item
            and no other. Defaults to `0.1`.
        seed: int or None. Of what is hidden. None draws one. Defaults to `None`.
        **kwargs: passed to `keras.layers.Layer` (`name`, …).

    Call arguments:
        queries: float `[M, D]`, those of the hidden positions.
        candidates: float `[N, D]` or `CandidateLookup`.
        targets: int `[M]`, catalogue rows of the hidden items.
        sample_weight: float32 `[M]`, or None.
        context: `LossContext`, for a `loss` that takes one.

    Returns:
        float32 scalar, what `loss` returns.

    Raises:
        ValueError: when an argument is out of range.

    Example:

    >>> objective = MaskedItems(rate=0.5, seed=0)
    >>> history, targets = tf.constant([[3, 1, 2]]), tf.constant([[1, 2, 5]])
    >>> hidden = objective.prepare({"history": history, "targets": targets})
    >>> hidden["history"].numpy()
    array([[1, 2, 5]], dtype=int32)
    >>> bool(tf.reduce_all(hidden["hidden"] == (hidden["targets"] > 0)))
    True

    Differs from: BERT4Rec's code, which draws what is hidden once for the whole
    training, and puts a random item or the item itself in some places. Here every step
    hides others. The first item of a sequence, target of none, is left out.

    References:
        - [Sun et al., 2019](https://arxiv.org/abs/1904.06690), section 3.6.
    """

    def __init__(
        self,
        loss: Any = None,
        *,
        rate: float = 0.2,
        newest_only: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.loss: Any = FullSoftmax() if loss is None else loss
        self.rate = check_fraction("rate", rate)
        self.newest_only = check_fraction("newest_only", newest_only)
        with tf.name_scope(self.name):
            self.build_seed_state()
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "rate": self.rate,
            "newest_only": self.newest_only,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedItems:
        restore = keras.saving.deserialize_keras_object
        return cls(**{**config, "loss": restore(config["loss"])})

    def prepare(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Hides items of a batch of training rows.

        A row's sequence is what comes next at each position: the newest item, which is
        no input of next-item training, is there to be guessed. Items that are no
        targets, the older part of a sliding window, are seen and never hidden.

        Args:
            inputs: `history` and `targets` int `[B, T]`, `segment_ids` int `[B, T]` of
                packed rows, and whatever else; see `SequenceRetrieval`.

        Returns:
            The same with another `history`; `hidden` bool `[B, T]`, which of its items
            the tower must not show; and `targets`, the hidden items and 0 elsewhere.
        """
        targets = tf.convert_to_tensor(inputs["targets"])
        segments = inputs.get("segment_ids")
        segments = tf.cast(
            tf.ones_like(targets) if segments is None else segments, tf.int32
        )
        following = tf.cast(inputs["history"], targets.dtype)[:, 1:]
        following = tf.where(segments[:, 1:] == segments[:, :-1], following, 0)
        following = tf.pad(following, [[0, 0], [0, 1]])
        items = tf.where(targets > 0, targets, following)
        real = targets > 0
        segments = tf.where(real, segments, 0)
        # The newest target of each sequence: none of its segment lies behind it.
        order = tf.where(real, tf.range(1, tf.shape(items)[1] + 1), 0)
        newest = _largest_of_segment(order, segments) == order
        draws = tf.random.stateless_uniform(
            tf.concat([[2], tf.shape(items)], axis=0), self.next_seed(), alg="philox"
        )
        hide = draws[0] < self.rate
        # One draw a sequence: that of its newest item.
        drawn = tf.where(newest, tf.cast(draws[1] < self.newest_only, tf.int32), 0)
        alone = _largest_of_segment(drawn, segments) > 0
        hide = tf.logical_and(real, tf.where(alone, newest, hide))
        return {
            **inputs,
            "history": items,
            "hidden": hide,
            "targets": tf.where(hide, targets, 0),
        }

    def __call__(
        self,
        queries: tf.Tensor,
        candidates: tf.Tensor | CandidateLookup,
        targets: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
        *,
        context: LossContext | None = None,
    ) -> tf.Tensor:
        if takes_context(self.loss):
            return self.loss(
                queries, candidates, targets, sample_weight, context=context
            )
        if isinstance(candidates, CandidateLookup):
            candidates = candidates.catalogue()
        return self.loss(queries, candidates, targets, sample_weight)


def _largest_of_segment(values: tf.Tensor, segments: tf.Tensor) -> tf.Tensor:
    """int32 `[B, T]`: at each position the largest of the values of its segment."""
    num_rows = tf.shape(segments)[0]
    size = tf.reduce_max(segments, axis=None) + 1
    size = tf.maximum(size, 1)  # of no segments at all
    numbers = tf.range(num_rows)[:, tf.newaxis] * size + segments
    largest = tf.math.unsorted_segment_max(values, numbers, num_rows * size)
    return tf.gather(largest, numbers)
