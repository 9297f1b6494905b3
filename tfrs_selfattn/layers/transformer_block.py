"""One block of self-attention and feed-forward network, with norms and residuals."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_fraction
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_float,
    check_layer,
    check_mask,
    check_segment_ids,
    has_newest,
    real_items,
    zero_padding,
)


@register
class TransformerBlock(SequenceLayer):
    r"""Self-attention, then a feed-forward network, each around a residual.

    With $A$ the attention, $F$ the feed-forward network, $N_1, N_2$ layer norms and
    $d$ dropout, `norm` chooses

    - "pre": $y = x + d(A(N_1 x))$, out $= y + F(N_2 y)$;
    - "post": $y = N_1(x + d(A(x)))$, out $= N_2(y + F(y))$;
    - "query": $q = N_1 x$, $y = N_2(q + d(A(q; x)))$, out $= y + F(y)$: queries come
      from $q$, keys and values from $x$, as in SASRec;
    - "gated": $y = x + \sigma(W_1 x) \odot d(A(N_1 x))$, out $= y + \sigma(W_2 y) \odot
      F(N_2 y)$: "pre" with the gates of LiGR.

    Args:
        attention: `MultiHeadSelfAttention`, $A$.
        feed_forward: `FeedForward`, $F$.
        norm: str, "pre", "post", "query" or "gated". Defaults to `"pre"`.
        dropout: float in [0, 1). On the attention's output. Defaults to `0.0`.
        **kwargs: `seed` (int or None, of dropout) and those of `keras.layers.Layer`.

    Call arguments:
        inputs: float `[B, T, D]`.
        mask: bool `[B, T]`, True = real item.
        attention_mask: bool `[B, T, T]` or `[T, T]`, True = may attend.
        segment_ids: int `[B, T]`; attention never crosses a segment, 0 is padding.
        training: bool.
        timestamps: int64 `[B, T]`, for a time bias of the attention.
        request_times: int64 `[B, T]`, for a time bias of the attention.
        return_attention_scores: bool. Return the attention's weights too, to look at.

    Returns:
        float `[B, T, D]`, in the layer's compute dtype; with `return_attention_scores`
        the pair of it and the weights `[B, H, T, T]`.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            or a mask has another shape.

    Masking: consumes and passes on the mask; padding may be on either side.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> attention = MultiHeadSelfAttention(num_heads=2, key_dim=8)
    >>> block = TransformerBlock(attention, FeedForward(hidden_dim=64))
    >>> block(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: `keras_hub.layers.TransformerEncoder`, which makes its own attention
    and is causal only by an attention mask; here attention and feed-forward network are
    layers that one hands in, each with a rate of dropout of its own. From SASRec's
    text, whose blocks are "pre": "query" is what its authors' code does.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.1 (post).
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745) (pre).
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.2
          (query; the residual from the normalized query is that of the authors' code).
        - [Borisyuk et al., 2025](https://arxiv.org/abs/2502.03417) (LiGR), section 3
          (gated).
    """

    def __init__(
        self,
        attention: Any,
        feed_forward: Any,
        *,
        norm: str = "pre",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.attention = check_layer(
            "attention", attention, "MultiHeadSelfAttention(2, 32)"
        )
        self.feed_forward = check_layer(
            "feed_forward", feed_forward, "FeedForward(256)"
        )
        self.norm = check_choice("norm", norm, ("pre", "post", "query", "gated"))
        self.dropout_rate = check_fraction("dropout", dropout)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "attention": serialize(self.attention),
            "feed_forward": serialize(self.feed_forward),
            "norm": self.norm,
            "dropout": self.dropout_rate,
        }

    def build(self, input_shape: Any) -> None:
        width = self.check_inputs_shape(input_shape)
        dtype = self.sublayer_dtype()
        self._attention_norm = self.layer_norm("attention_norm")
        self._feed_forward_norm = self.layer_norm("feed_forward_norm")
        layers = [
            self._attention_norm,
            self.attention,
            self._feed_forward_norm,
            self.feed_forward,
        ]
        if self.norm == "gated":
            self._attention_gate = keras.layers.Dense(
                width, "sigmoid", name="attention_gate", dtype=dtype
            )
            self._feed_forward_gate = keras.layers.Dense(
                width, "sigmoid", name="feed_forward_gate", dtype=dtype
            )
            layers += [self._attention_gate, self._feed_forward_gate]
        for layer in layers:
            self.build_sublayer(layer, input_shape)
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
        return_attention_scores: bool = False,
    ) -> Any:
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        segment_ids = check_segment_ids(self, segment_ids, inputs)
        real = real_items(mask, segment_ids)
        if real is not None:  # 0 · NaN would make the norms' gradients NaN
            inputs = zero_padding(inputs, real)
        scores = []
        # Not every attention that could stand here knows the argument.
        asked = {"return_attention_scores": True} if return_attention_scores else {}

        def attend(keys: tf.Tensor, query: tf.Tensor | None) -> tf.Tensor:
            output = self.attention(
                keys,
                mask=mask,
                attention_mask=attention_mask,
                segment_ids=segment_ids,
                training=training,
                query=query,
                timestamps=timestamps,
                request_times=request_times,
                **asked,
            )
            if return_attention_scores:
                output, weights = output
                scores.append(weights)
            return self.dropout(output, self.dropout_rate, training)

        states = self._compose(inputs, attend, training)
        return (states, scores[0]) if return_attention_scores else states

    def append(
        self, inputs: tf.Tensor, cache: tuple[tf.Tensor, tf.Tensor], mask: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Encodes new positions behind cached ones; see the attention's `append`."""
        caches = []

        def attend(keys: tf.Tensor, query: tf.Tensor | None) -> tf.Tensor:
            output, longer = self.attention.append(keys, cache, mask, query)
            caches.append(longer)
            return output

        return self._compose(inputs, attend, False), caches[0]

    def newest(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """What `call` gives at the last position alone: `[B, 1, D]`, no dropout."""
        if not has_newest(self.attention):
            times = {"timestamps": timestamps, "request_times": request_times}
            states: tf.Tensor = self(inputs, mask=mask, training=False, **times)
            return states[:, -1:]
        inputs = tf.cast(inputs, self.compute_dtype)
        before = self.norm in ("pre", "gated")
        keys = self._attention_norm(inputs) if before else inputs

        def attend(own: tf.Tensor, query: tf.Tensor | None) -> tf.Tensor:
            return self.attention.newest(
                keys,
                mask,
                query=own if query is None else query,
                timestamps=timestamps,
                request_times=request_times,
            )

        return self._compose(inputs[:, -1:], attend, False)

    def _compose(self, inputs: tf.Tensor, attend: Any, training: Any) -> tf.Tensor:
        """The equation of the class, around whichever attention is handed in."""

        def feed(states: tf.Tensor) -> tf.Tensor:
            return self.feed_forward(states, training=training)

        if self.norm == "query":
            query = self._attention_norm(inputs)
            states = self._feed_forward_norm(query + attend(inputs, query))
            return states + feed(states)
        if self.norm == "post":
            states = self._attention_norm(inputs + attend(inputs, None))
            return self._feed_forward_norm(states + feed(states))
        change = attend(self._attention_norm(inputs), None)
        if self.norm == "gated":
            change *= self._attention_gate(inputs)
        states = inputs + change
        change = feed(self._feed_forward_norm(states))
        if self.norm == "gated":
            change *= self._feed_forward_gate(states)
        return states + change
