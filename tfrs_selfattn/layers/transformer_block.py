"""One block of self-attention and feed-forward network, with norms and residuals."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_fraction, check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import SequenceLayer, check_float
from tfrs_selfattn.layers.feed_forward import FeedForward
from tfrs_selfattn.layers.self_attention import MultiHeadSelfAttention

_EPSILON = 1e-6


@register
class TransformerBlock(SequenceLayer):
    r"""Self-attention, then a feed-forward network, each around a residual.

    With $A$ the attention, $F$ the feed-forward network, $N_1, N_2$ layer norms and
    $d$ dropout, `norm` chooses

    - "pre": $y = x + d(A(N_1 x))$, out $= y + F(N_2 y)$;
    - "post": $y = N_1(x + d(A(x)))$, out $= N_2(y + F(y))$;
    - "query": $q = N_1 x$, $y = N_2(q + d(A(q; x)))$, out $= y + F(y)$: queries come
      from $q$, keys and values from $x$, as in SASRec.

    Args:
        num_heads: int. Number of heads, H.
        key_dim: int. Width of each head, K.
        feed_forward_dim: int. Hidden width of the feed-forward network.
        causal: bool. Hide later positions. Defaults to `True`.
        dropout: float in [0, 1). On attention weights, on the attention's output and
            in the feed-forward network. Defaults to `0.0`.
        activation: str or callable, of the feed-forward network. Defaults to `"relu"`.
        norm: str, "pre", "post" or "query". Defaults to `"pre"`.
        **kwargs: `seed` (int or None, of dropout) and those of `keras.layers.Layer`.

    Call arguments:
        inputs: float `[B, T, D]`.
        mask: bool `[B, T]`, True = real item.
        attention_mask: bool `[B, T, T]` or `[T, T]`, True = may attend.
        segment_ids: int `[B, T]`; attention never crosses a segment, 0 is padding.
        training: bool.

    Returns:
        float `[B, T, D]`, in the layer's compute dtype.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            or a mask has another shape.

    Masking: consumes and passes on the mask; padding may be on either side.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> block = TransformerBlock(num_heads=2, key_dim=8, feed_forward_dim=64)
    >>> block(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.1 (post).
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745) (pre).
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.2
          (query; the residual from the normalized query is that of the authors' code).
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        feed_forward_dim: int,
        *,
        causal: bool = True,
        dropout: float = 0.0,
        activation: Any = "relu",
        norm: str = "pre",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_int("num_heads", num_heads)
        self.key_dim = check_positive_int("key_dim", key_dim)
        self.feed_forward_dim = check_positive_int("feed_forward_dim", feed_forward_dim)
        self.causal = bool(causal)
        self.dropout_rate = check_fraction("dropout", dropout)
        self.activation = keras.activations.get(activation)
        self.norm = check_choice("norm", norm, ("pre", "post", "query"))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "feed_forward_dim": self.feed_forward_dim,
            "causal": self.causal,
            "dropout": self.dropout_rate,
            "activation": keras.activations.serialize(self.activation),
            "norm": self.norm,
        }

    def build(self, input_shape: Any) -> None:
        self.check_inputs_shape(input_shape)
        dtype = self.sublayer_dtype()
        self._attention = MultiHeadSelfAttention(
            self.num_heads,
            self.key_dim,
            causal=self.causal,
            dropout=self.dropout_rate,
            seed=self._sublayer_seed(1),
            name="attention",
            dtype=dtype,
        )
        self._feed_forward = FeedForward(
            self.feed_forward_dim,
            activation=self.activation,
            dropout=self.dropout_rate,
            seed=self._sublayer_seed(2),
            name="feed_forward",
            dtype=dtype,
        )
        self._attention_norm = keras.layers.LayerNormalization(
            epsilon=_EPSILON, name="attention_norm", dtype=dtype
        )
        self._feed_forward_norm = keras.layers.LayerNormalization(
            epsilon=_EPSILON, name="feed_forward_norm", dtype=dtype
        )
        for layer in (
            self._attention_norm,
            self._attention,
            self._feed_forward_norm,
            self._feed_forward,
        ):
            self.build_sublayer(layer, input_shape)
        if self.dropout_rate > 0.0:
            self.build_seed_state()
        self.built = True

    def _sublayer_seed(self, offset: int) -> int | None:
        return None if self.seed is None else self.seed + offset

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        segment_ids: tf.Tensor | None = None,
        training: Any = None,
    ) -> tf.Tensor:
        check_float(self, inputs)

        def attend(keys: tf.Tensor, query: tf.Tensor | None = None) -> tf.Tensor:
            output = self._attention(
                keys,
                mask=mask,
                attention_mask=attention_mask,
                segment_ids=segment_ids,
                training=training,
                query=query,
            )
            return self.dropout(output, self.dropout_rate, training)

        def feed(states: tf.Tensor) -> tf.Tensor:
            return self._feed_forward(states, training=training)

        if self.norm == "pre":
            states = inputs + attend(self._attention_norm(inputs))
            return states + feed(self._feed_forward_norm(states))
        if self.norm == "post":
            states = self._attention_norm(inputs + attend(inputs))
            return self._feed_forward_norm(states + feed(states))
        query = self._attention_norm(inputs)
        states = self._feed_forward_norm(query + attend(inputs, query))
        return states + feed(states)
