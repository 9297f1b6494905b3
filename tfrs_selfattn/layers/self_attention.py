"""Masked multi-head self-attention over a history of items."""

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
    fresh_initializer,
    real_items,
    zero_padding,
)
from tfrs_selfattn.layers._bias import restore_biases
from tfrs_selfattn.ops.attention import dot_product_attention
from tfrs_selfattn.ops.attention_mask import AttentionMask
from tfrs_selfattn.ops.biases import AttentionBias
from tfrs_selfattn.ops.blockwise import blockwise_attention
from tfrs_selfattn.ops.heads import merge_heads, split_heads, static_or_dynamic
from tfrs_selfattn.ops.rotary import rotate


@register
class MultiHeadSelfAttention(SequenceLayer):
    r"""Lets each item of a user's history attend to the others, or the earlier ones.

    Computes, for every head $h$ of width $K$,

    $$Z_h = \mathrm{softmax}(Q_h K_h^\top / \sqrt{K} + P_h + M)\,V_h, \qquad
      Q_h = R(X W^Q_h + b^Q_h),\; K_h = R(X W^K_h + b^K_h),\; V_h = X W^V_h + b^V_h$$

    and returns $[Z_1, \ldots, Z_H] W^O + b^O$. $P$ is the sum of the `biases`, $R$
    turns each row by its position with `rotary` and is the identity without, the $b$
    are there with `use_bias`. $M$ is 0 or $-\infty$: it hides padding, the future if
    `causal`, what is outside of the `window`, other segments of a packed row, and
    whatever `attention_mask` hides. A hidden position has weight exactly 0; a position
    that may attend to nothing outputs $b^O$ only.

    Args:
        num_heads: int. Number of heads, H.
        key_dim: int. Width of each head, K.
        causal: bool. Hide later positions. Defaults to `True`.
        dropout: float in [0, 1). Applied to the weights. Defaults to `0.0`.
        use_bias: bool. Biases in the four projections. Defaults to `True`.
        kernel_initializer: initializer of the four kernels. Defaults to
            `"glorot_uniform"`.
        window: int. Attend to positions with $|t - s|$ below it only, counted in
            slots of the row. None sees all. Defaults to `None`.
        rotary: bool. Rotate queries and keys by their position (RoPE); `key_dim` must
            be even. Defaults to `False`.
        biases: list of `RelativePositionBias`, `AlibiBias`, `RelativeTimeBias`, added
            to the logits. Defaults to `()`.
        block_size: int. Attend block against block, in memory that grows with T and
            not with T², for histories of thousands of items. None computes each weight
            once, which is faster while they fit. Defaults to `None`.
        **kwargs: `seed` (int or None, of dropout) and those of `keras.layers.Layer`
            (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`.
        mask: bool `[B, T]`, True = real item. Usually set by an upstream
            `Embedding(mask_zero=True)`.
        attention_mask: bool `[B, T, T]` or `[T, T]`, True = may attend.
        segment_ids: int `[B, T]`; attention never crosses a segment, 0 is padding.
        training: bool.
        return_attention_scores: bool. Also return the weights, before dropout.
        query: float `[B, T, D]`. Takes the place of `inputs` as the source of $Q$, for
            blocks that normalize the query only (SASRec).
        timestamps: int64 `[B, T]`, Unix seconds of the events, for a time bias.
        request_times: int64 `[B, T]`, when the item after each position was, or is,
            asked for, for a time bias.

    Returns:
        float `[B, T, D]` in the layer's compute dtype; with `return_attention_scores`
        the pair of it and the weights `[B, H, T, T]`.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            a mask has another shape, times are missing for a time bias, or scores are
            asked for of blockwise attention.

    Masking: consumes and passes on the mask; padding may be on either side, and what
    stands in it, even NaN, never reaches a real position.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> layer = MultiHeadSelfAttention(num_heads=2, key_dim=8)
    >>> layer(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: `keras.layers.MultiHeadAttention`, which may average what is hidden in
    a fully masked row, is not causal unless each call says so, and knows no segments,
    windows, biases or rotation. An implicit mask gets lost before either, behind
    `x + 1.0`, say: pass `mask` then. From SASRec's code, which has no $W^O$ and $b^O$.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781) (SASRec), 3.2.
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864) (RoPE), section 3.2.
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135), for `block_size`.
        - [Beltagy et al., 2020](https://arxiv.org/abs/2004.05150), section 3.1, for
          `window`; its w counts both sides.
        - [Krell et al., 2021](https://arxiv.org/abs/2107.02027), for `segment_ids`.
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        *,
        causal: bool = True,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        window: int | None = None,
        rotary: bool = False,
        biases: Sequence[Any] = (),
        block_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_int("num_heads", num_heads)
        self.key_dim = check_positive_int("key_dim", key_dim)
        self.causal = check_flag("causal", causal)
        self.dropout_rate = check_fraction("dropout", dropout)
        self.use_bias = check_flag("use_bias", use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.window = optional_positive("window", window)
        self.rotary = check_flag("rotary", rotary)
        self.biases = restore_biases(self, biases, self.num_heads)
        self.block_size = optional_positive("block_size", block_size)
        if self.rotary and self.key_dim % 2:
            raise ValueError(
                "`key_dim` must be even with `rotary`, which turns pairs of channels. "
                f"Received: key_dim={key_dim}. Use key_dim={key_dim + 1}."
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "causal": self.causal,
            "dropout": self.dropout_rate,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "window": self.window,
            "rotary": self.rotary,
            "biases": [keras.saving.serialize_keras_object(b) for b in self.biases],
            "block_size": self.block_size,
        }

    def build(self, input_shape: Any) -> None:
        width = self.check_inputs_shape(input_shape)
        inner = self.num_heads * self.key_dim
        self._query_kernel, self._query_bias = self._projection("query", width, inner)
        self._key_kernel, self._key_bias = self._projection("key", width, inner)
        self._value_kernel, self._value_bias = self._projection("value", width, inner)
        self._output_kernel, self._output_bias = self._projection(
            "output", inner, width
        )
        for bias in self.biases:
            self.build_sublayer(bias, input_shape)
        if self.dropout_rate > 0.0:
            self.build_seed_state()
        self.built = True

    def _projection(self, name: str, inputs: int, outputs: int) -> tuple[Any, Any]:
        kernel = self.add_weight(
            name=f"{name}_kernel",
            shape=(inputs, outputs),
            # An initializer object gives the same values each time it is called.
            initializer=fresh_initializer(self.kernel_initializer),
        )
        bias = None
        if self.use_bias:
            bias = self.add_weight(
                name=f"{name}_bias", shape=(outputs,), initializer="zeros"
            )
        return kernel, bias

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        segment_ids: tf.Tensor | None = None,
        training: Any = None,
        return_attention_scores: bool = False,
        query: tf.Tensor | None = None,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
    ) -> Any:
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        segment_ids = check_segment_ids(self, segment_ids, inputs)
        attention_mask = check_attention_mask(self, attention_mask, inputs)
        times = check_timestamps(self, timestamps, request_times, inputs)
        query = _check_query(query, inputs)
        real = real_items(mask, segment_ids)
        if real is not None:
            inputs = zero_padding(inputs, real)
        rate = self.dropout_rate if training else 0.0
        heads, weights = self._attend(
            *self._heads(inputs, query),
            AttentionMask(
                padding=mask,
                segment_ids=segment_ids,
                allowed=attention_mask,
                causal=self.causal,
                window=self.window,
            ),
            [bias.blocks(*times) for bias in self.biases],
            rate,
            return_attention_scores,
        )
        output = self._output(heads)
        return (output, weights) if return_attention_scores else output

    def _attend(
        self,
        q: tf.Tensor,
        k: tf.Tensor,
        v: tf.Tensor,
        mask: AttentionMask,
        biases: list[AttentionBias],
        rate: float,
        return_weights: bool,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Heads `[B, H, T, K]` and, when asked for, the weights `[B, H, T, T]`."""
        options: dict[str, Any] = {
            "bias": biases,
            "dropout_rate": rate,
            "dropout_seed": self.next_seed() if rate > 0.0 else None,
            "scale": 1.0,  # `_heads` has scaled the query
        }
        if self.block_size is None:
            result = dot_product_attention(
                q, k, v, mask, return_weights=return_weights, **options
            )
            return result if return_weights else (result, None)
        if return_weights:
            raise ValueError(
                "`return_attention_scores` must be False with `block_size`, which "
                "never holds all weights. Received: return_attention_scores=True, "
                f"block_size={self.block_size}. Set block_size=None to look at them."
            )
        heads = blockwise_attention(
            q, k, v, mask, block_size=self.block_size, **options
        )
        return heads, None

    def append(
        self,
        inputs: tf.Tensor,
        cache: tuple[tf.Tensor, tf.Tensor],
        mask: tf.Tensor,
        query: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Attends from new positions to cached ones and to themselves.

        Args:
            inputs: float `[B, T, D]`, the new positions.
            cache: keys and values of the L earlier ones, each `[B, H, L, K]`.
            mask: bool `[B, L + T]`, True = real item.
            query: float `[B, T, D]`, as of `call`.

        Returns:
            float `[B, T, D]`, and the cache with the new positions behind the others.
        """
        past = tf.shape(cache[0])[2]
        q, k, v = self._heads(zero_padding(inputs, mask[:, past:]), query, past)
        k, v = tf.concat([cache[0], k], axis=2), tf.concat([cache[1], v], axis=2)
        heads = dot_product_attention(
            q,
            k,
            v,
            AttentionMask(padding=mask, causal=True, window=self.window),
            bias=[bias.blocks(None, None) for bias in self.biases],
            offset=past,
            scale=1.0,
        )
        return self._output(heads), (k, v)

    def newest(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        query: tf.Tensor | None = None,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """What `call` gives at the last position alone, without dropout.

        Args:
            inputs: float `[B, T, D]`.
            mask: bool `[B, T]`, True = real item.
            query: float `[B, 1, D]`, the last position's, as of `call`.
            timestamps: int64 `[B, T]`.
            request_times: int64 `[B, T]`.

        Returns:
            float `[B, 1, D]`.
        """
        inputs = zero_padding(tf.cast(inputs, self.compute_dtype), mask)
        query = inputs[:, -1:] if query is None else tf.cast(query, inputs.dtype)
        last = tf.shape(inputs)[1] - 1
        q, k, v = self._heads(inputs, query, query_start=last)
        heads = dot_product_attention(
            q,
            k,
            v,
            # Nothing is later than the last position: causal or not, it sees the same.
            AttentionMask(padding=mask, window=self.window),
            bias=[bias.blocks(timestamps, request_times) for bias in self.biases],
            offset=last,
            scale=1.0,
        )
        return self._output(heads)

    def _output(self, heads: tf.Tensor) -> tf.Tensor:
        merged = merge_heads(heads)
        return self._dense(merged, self._output_kernel, self._output_bias)

    def _heads(
        self,
        inputs: tf.Tensor,
        query: tf.Tensor | None,
        start: Any = 0,
        query_start: Any = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Q, K and V, each `[B, H, T, K]`; `start` is the position of the first.

        `query_start` is that of the first query, where it is another.
        """
        source = inputs if query is None else query
        # Three products, not one that must be cut in three again.
        scale = self.key_dim**-0.5  # of the small kernel, not of every query
        q = self._dense(source, self._query_kernel, self._query_bias, scale)
        k = self._dense(inputs, self._key_kernel, self._key_bias)
        v = self._dense(inputs, self._value_kernel, self._value_bias)
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        if self.rotary:
            q = rotate(q, start if query_start is None else query_start)
            k = rotate(k, start)
        return q, k, v

    def _dense(
        self, inputs: tf.Tensor, kernel: Any, bias: Any, scale: float = 1.0
    ) -> tf.Tensor:
        """`[B, T, D]` to `[B, T, outputs]` in one product over all B * T rows.

        A batched product would give every user a gradient of the kernel to be summed.
        """
        rows = tf.reshape(inputs, [-1, kernel.shape[0]])
        outputs = tf.matmul(rows, self._scaled(kernel, scale))
        if bias is not None:
            outputs = tf.nn.bias_add(outputs, self._scaled(bias, scale))
        shape = [-1, static_or_dynamic(inputs, 1), kernel.shape[1]]
        return tf.reshape(outputs, shape)

    def _scaled(self, weight: Any, scale: float) -> tf.Tensor:
        weight = tf.convert_to_tensor(weight)
        if scale != 1.0:
            weight *= tf.cast(scale, weight.dtype)
        return tf.cast(weight, self.compute_dtype)


def _check_query(query: Any, inputs: tf.Tensor) -> tf.Tensor | None:
    if query is None:
        return None
    query = tf.cast(query, inputs.dtype)
    if not query.shape.is_compatible_with(inputs.shape):
        raise ValueError(
            "`query` must have the shape of the inputs, "
            f"{tuple(inputs.shape)}. Received: shape={tuple(query.shape)}. Self-"
            "attention asks for every position of the inputs."
        )
    return query
