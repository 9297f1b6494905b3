"""Learned attention over an encoded history: one or several vectors a user."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_float,
    check_mask,
    pad_ragged,
)


@register
class AttentionPooling(SequenceLayer):
    r"""Reduces an encoded history to weighted means of its positions.

    $A = \mathrm{softmax}_t(\tanh(X W_1) W_2)$ over real items, $V = A^\top X$. With
    `num_interests` every user has that many vectors, and a candidate is scored by the
    best of them, as `tfrs.tasks.Retrieval` and `SequenceRetrieval` do. An empty
    history gives zeros.

    Args:
        num_interests: int. Vectors a user, K. None gives one, without the axis.
            Defaults to `None`.
        hidden_dim: int. Width of $\tanh$; None takes 4 D. Defaults to `None`.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`, or a RaggedTensor of that, without `mask`.
        mask: bool `[B, T]`, True = real item. None takes every position for real.

    Returns:
        float `[B, D]`, or `[B, K, D]` with `num_interests`, in the compute dtype.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            or the mask has another shape.

    Masking: consumes the mask; padding may be on either side, or between.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> AttentionPooling(num_interests=4)(tf.ones([3, 5, 16])).shape
    TensorShape([3, 4, 16])

    Differs from: `keras.layers.Attention`, which needs a query from outside. From Lin
    et al., who add a penalty so that the vectors differ, and from ComiRec, which adds
    positions before it pools: here the encoder has done so.

    References:
        - [Lin et al., 2017](https://arxiv.org/abs/1703.03130), section 2.1.
        - [Cen et al., 2020](https://arxiv.org/abs/2005.09347) (ComiRec-SA), section
          3.2.
    """

    _supports_ragged_inputs = True  # legacy Keras asks for it

    def __init__(
        self,
        num_interests: int | None = None,
        *,
        hidden_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_interests is not None:
            check_positive_int("num_interests", num_interests, "Or pass None.")
        if hidden_dim is not None:
            check_positive_int("hidden_dim", hidden_dim, "Or pass None.")
        self.num_interests = num_interests
        self.hidden_dim = hidden_dim

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_interests": self.num_interests,
            "hidden_dim": self.hidden_dim,
        }

    def build(self, input_shape: Any) -> None:
        width = self.check_inputs_shape(input_shape)
        hidden = 4 * width if self.hidden_dim is None else self.hidden_dim
        self._hidden_kernel = self.add_weight(
            name="hidden_kernel",
            shape=(width, hidden),
            initializer="glorot_uniform",
        )
        self._interest_kernel = self.add_weight(
            name="interest_kernel",
            shape=(hidden, self.num_interests or 1),
            initializer="glorot_uniform",
        )
        self.built = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """No positions are left to mask."""
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        if self.num_interests is None:
            return (input_shape[0], input_shape[-1])
        return (input_shape[0], self.num_interests, input_shape[-1])

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        inputs, mask = pad_ragged(inputs, mask)
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        if mask is not None:
            inputs = tf.where(mask[..., tf.newaxis], inputs, tf.zeros([], inputs.dtype))
        hidden = tf.tanh(tf.matmul(inputs, tf.cast(self._hidden_kernel, inputs.dtype)))
        logits = tf.matmul(hidden, tf.cast(self._interest_kernel, inputs.dtype))
        logits = tf.cast(tf.transpose(logits, [0, 2, 1]), tf.float32)  # [B, K, T]
        if mask is not None:
            logits = tf.where(mask[:, tf.newaxis], logits, tf.float32.min)
        weights = tf.cast(tf.nn.softmax(logits), inputs.dtype)
        pooled = tf.matmul(weights, inputs)  # [B, K, D]; padding is zeros
        return pooled[:, 0] if self.num_interests is None else pooled
