"""The block of HSTU: pointwise attention and an elementwise gate in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import (
    check_flag,
    check_fraction,
    check_positive_int,
    optional_positive,
)
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_attention_mask,
    check_float,
    check_mask,
    check_segment_ids,
    check_timestamps,
    real_items,
    zero_padding,
)
from tfrs_selfattn.layers._bias import restore_biases
from tfrs_selfattn.ops.attention_mask import AttentionMask
from tfrs_selfattn.ops.heads import merge_heads, split_heads
from tfrs_selfattn.ops.pointwise import pointwise_attention


@register
class HSTUBlock(SequenceLayer):
    r"""Pointwise attention, gated, around a residual; no feed-forward network.

    $$[U, V, Q, K] = \mathrm{SiLU}(N_1(x) W_1), \qquad
      Y_t = \frac{1}{n_t} \sum_s m_{ts}\,\mathrm{SiLU}(q_t k_s + p_{ts})\,v_s, \qquad
      \mathrm{out} = x + d(N_2(Y) \odot U)\,W_2 + b_2$$

    for every head, with $p$ the biases, $m$ the mask and $n_t$ the number of positions
    that t may attend to.

    Args:
        num_heads: int. H.
        key_dim: int. Width of queries, keys, values and gates of each head, K.
        causal: bool. Hide later positions. Defaults to `True`.
        dropout: float in [0, 1). Before the output projection. Defaults to `0.0`.
        biases: list of `RelativePositionBias`, `AlibiBias`, `RelativeTimeBias`, added
            to the logits. Defaults to `()`.
        window: int. Attend to positions with $|t - s|$ below it only, counted in slots
            of the row. None sees all. Defaults to `None`.
        block_size: int. Attend block against block, in memory that grows with T and
            not with T², for histories of thousands of items. Defaults to `None`.
        **kwargs: `seed` (int or None, of dropout) and those of `keras.layers.Layer`.

    Call arguments:
        inputs: float `[B, T, D]`.
        mask: bool `[B, T]`, True = real item.
        attention_mask: bool `[B, T, T]` or `[T, T]`, True = may attend.
        segment_ids: int `[B, T]`; attention never crosses a segment, 0 is padding.
        training: bool.
        timestamps: int64 `[B, T]`, for a time bias.
        request_times: int64 `[B, T]`, for a time bias.

    Returns:
        float `[B, T, D]`, in the layer's compute dtype.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            a mask has another shape, or times are missing for a time bias.

    Masking: consumes and passes on the mask; padding may be on either side.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> HSTUBlock(num_heads=2, key_dim=8)(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: `keras.layers.MultiHeadAttention`, whose weights are a softmax. From
    the authors' code, which divides by the padded length, so that the same history in a
    wider batch gives another vector, and whose norms $N_1$, $N_2$ have no weights.

    References:
        - [Zhai et al., 2024](https://arxiv.org/abs/2402.17152) (HSTU), section 3.1.
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        *,
        causal: bool = True,
        dropout: float = 0.0,
        biases: Sequence[Any] = (),
        window: int | None = None,
        block_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_int("num_heads", num_heads)
        self.key_dim = check_positive_int("key_dim", key_dim)
        self.causal = check_flag("causal", causal)
        self.dropout_rate = check_fraction("dropout", dropout)
        self.biases = restore_biases(self, biases, self.num_heads)
        self.window = optional_positive("window", window)
        self.block_size = optional_positive("block_size", block_size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "causal": self.causal,
            "dropout": self.dropout_rate,
            "biases": [keras.saving.serialize_keras_object(b) for b in self.biases],
            "window": self.window,
            "block_size": self.block_size,
        }

    def build(self, input_shape: Any) -> None:
        width = self.check_inputs_shape(input_shape)
        inner = self.num_heads * self.key_dim
        dtype = self.sublayer_dtype()
        self._input_norm = self.layer_norm("input_norm")
        self._project = keras.layers.Dense(
            4 * inner, "silu", use_bias=False, name="project", dtype=dtype
        )
        self._value_norm = self.layer_norm("value_norm")
        self._output = keras.layers.Dense(width, name="output", dtype=dtype)
        inner_shape = (*input_shape[:-1], inner)
        for layer in (self._input_norm, self._project, *self.biases):
            self.build_sublayer(layer, input_shape)
        for layer in (self._value_norm, self._output):
            self.build_sublayer(layer, inner_shape)
        if self.dropout_rate > 0.0:
            self.build_seed_state()
        self.built = True

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        segment_ids: tf.Tensor | None = None,
        training: Any = None,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
    ) -> tf.Tensor:
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        segment_ids = check_segment_ids(self, segment_ids, inputs)
        attention_mask = check_attention_mask(self, attention_mask, inputs)
        times = check_timestamps(self, timestamps, request_times, inputs)
        real = real_items(mask, segment_ids)
        if real is not None:
            inputs = zero_padding(inputs, real)
        gate, value, query, key = self._projections(inputs)
        mask = AttentionMask(
            padding=mask,
            segment_ids=segment_ids,
            allowed=attention_mask,
            causal=self.causal,
            window=self.window,
        )
        key, value = (split_heads(part, self.num_heads) for part in (key, value))
        gated = self._mixed(query, key, value, mask, times) * gate
        return inputs + self._output(self.dropout(gated, self.dropout_rate, training))

    def append(
        self, inputs: tf.Tensor, cache: tuple[tf.Tensor, tf.Tensor], mask: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Encodes new positions behind cached ones, for a causal block without times.

        Args:
            inputs: float `[B, T, D]`, the new positions.
            cache: keys and values of the L earlier ones, each `[B, H, L, K]`.
            mask: bool `[B, L + T]`, True = real item.

        Returns:
            float `[B, T, D]`, and the cache with the new positions behind the others.
        """
        past = tf.shape(cache[0])[2]
        inputs = zero_padding(inputs, mask[:, past:])
        gate, value, query, key = self._projections(inputs)
        key = tf.concat([cache[0], split_heads(key, self.num_heads)], axis=2)
        value = tf.concat([cache[1], split_heads(value, self.num_heads)], axis=2)
        # A position divides by the items it sees, which later ones do not change.
        visible = AttentionMask(padding=mask, causal=True, window=self.window)
        mixed = self._mixed(query, key, value, visible, (None, None), offset=past)
        return inputs + self._output(mixed * gate), (key, value)

    def newest(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """What `call` gives at the last position alone: `[B, 1, D]`, no dropout."""
        inputs = zero_padding(tf.cast(inputs, self.compute_dtype), mask)
        gate, value, query, key = self._projections(inputs)
        key, value = (split_heads(part, self.num_heads) for part in (key, value))
        last = tf.shape(inputs)[1] - 1
        times = timestamps, request_times
        # Nothing is later than the last position: causal or not, it sees the same.
        visible = AttentionMask(padding=mask, window=self.window)
        mixed = self._mixed(query[:, -1:], key, value, visible, times, offset=last)
        return inputs[:, -1:] + self._output(mixed * gate[:, -1:])

    def _projections(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        """U, V, Q and K of all heads side by side, each `[B, T, H * K]`."""
        projected = self._project(self._input_norm(inputs))  # [B, T, 4 * H * K]
        parts: list[tf.Tensor] = tf.split(projected, 4, axis=-1)
        return parts

    def _mixed(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        mask: AttentionMask,
        times: tuple[tf.Tensor | None, tf.Tensor | None],
        offset: Any = None,
    ) -> tf.Tensor:
        """The heads' mixtures, merged and normalized: float `[B, t, H * K]`.

        Queries are `[B, t, H * K]`, keys and values `[B, H, S, K]`.
        """
        mixed = pointwise_attention(
            split_heads(query, self.num_heads),
            key,
            value,
            mask,
            bias=[bias.blocks(*times) for bias in self.biases],
            offset=offset,
            block_size=self.block_size if offset is None else None,
        )
        normed: tf.Tensor = self._value_norm(merge_heads(mixed))
        return normed
