"""The position-wise feed-forward network of a transformer block."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_flag, check_fraction, check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import SequenceLayer, check_float


@register
class FeedForward(SequenceLayer):
    r"""Two dense layers applied to every position by itself.

    Computes $\mathrm{dropout}(W_2\,\mathrm{dropout}(h) + b_2)$ with
    $h = \phi(W_1 x + b_1)$, or, when `gated`, $h = \phi(W_1 x + b_1) \odot
    (W_3 x + b_3)$: with `activation="silu"` that is SwiGLU. The output is as wide as
    the input.

    Args:
        hidden_dim: int. Width between the two dense layers.
        activation: str or callable, $\phi$. Defaults to `"relu"`.
        gated: bool. Multiply by a second projection. Defaults to `False`.
        dropout: float in [0, 1). Defaults to `0.0`.
        **kwargs: `seed` (int or None, of dropout) and those of `keras.layers.Layer`.

    Call arguments:
        inputs: float `[B, T, D]`.
        training: bool.

    Returns:
        float `[B, T, D]`, in the layer's compute dtype.

    Raises:
        ValueError: when an argument is out of range or inputs are not float
            `[B, T, D]`.

    Masking: passes the mask on; positions never mix.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> FeedForward(hidden_dim=64)(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: Keras, which has no such layer: two `Dense` in a row have neither gate
    nor dropout that a checkpoint resumes. From Vaswani et al., whose text has no
    dropout on $h$, and from Shazeer, whose gated networks have no $b_1$, $b_2$, $b_3$.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.3.
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.2.
        - [Shazeer, 2020](https://arxiv.org/abs/2002.05202) (SwiGLU), section 2.
    """

    def __init__(
        self,
        hidden_dim: int,
        *,
        activation: Any = "relu",
        gated: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = check_positive_int("hidden_dim", hidden_dim)
        self.activation = keras.activations.get(activation)
        self.gated = check_flag("gated", gated)
        self.dropout_rate = check_fraction("dropout", dropout)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "activation": keras.activations.serialize(self.activation),
            "gated": self.gated,
            "dropout": self.dropout_rate,
        }

    def build(self, input_shape: Any) -> None:
        width = self.check_inputs_shape(input_shape)
        dtype = self.sublayer_dtype()
        expanded = self.hidden_dim * (2 if self.gated else 1)  # both in one product
        self._expand = keras.layers.Dense(expanded, name="expand", dtype=dtype)
        self.build_sublayer(self._expand, input_shape)
        self._contract = keras.layers.Dense(width, name="contract", dtype=dtype)
        self.build_sublayer(self._contract, (*input_shape[:-1], self.hidden_dim))
        if self.dropout_rate > 0.0:
            self.build_seed_state()
        self.built = True

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        check_float(self, inputs)
        hidden = self._expand(inputs)
        if self.gated:
            hidden, factor = tf.split(hidden, 2, axis=-1)
            hidden = self.activation(hidden) * factor
        else:
            hidden = self.activation(hidden)
        hidden = self.dropout(hidden, self.dropout_rate, training)
        return self.dropout(self._contract(hidden), self.dropout_rate, training)
