"""The encoder of a history: positions, dropout, blocks and a final norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_fraction
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_float,
    check_mask,
    check_segment_ids,
    real_items,
    zero_padding,
)

_EPSILON = 1e-6


@register
class SequenceEncoder(SequenceLayer):
    r"""Encodes a history of item vectors into one vector a position.

    $x \mapsto N(B_n(\ldots B_1(d(s\,x + P))))$ with blocks $B_i$, positions $P$,
    dropout $d$, a final layer norm $N$, and $s = \sqrt{D}$ with `scale_inputs`,
    else 1.

    Args:
        blocks: list of layers with the call arguments of `TransformerBlock`, applied in
            order. At least one.
        position: layer added before the blocks, usually `PositionEmbedding`. None adds
            nothing. Defaults to `None`.
        dropout: float in [0, 1). On the sum of items and positions. Defaults to `0.0`.
        scale_inputs: bool. Multiply the inputs by $\sqrt{D}$. Defaults to `False`.
        final_norm: bool. Normalize the output. Defaults to `True`.
        **kwargs: `seed` (int or None, of dropout) and those of `keras.layers.Layer`.

    Call arguments:
        inputs: float `[B, T, D]`.
        mask: bool `[B, T]`, True = real item. Usually set by an upstream
            `Embedding(mask_zero=True)`.
        segment_ids: int `[B, T]`: several users share a row, nothing crosses from one
            to the other, positions restart; 0 is padding.
        training: bool.

    Returns:
        float `[B, T, D]`, in the layer's compute dtype.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            or a mask has another shape.

    Masking: consumes and passes on the mask; padding may be on either side, and what
    stands in it, even NaN, never reaches a real position.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> encoder = SequenceEncoder(
    ...     [TransformerBlock(num_heads=2, key_dim=8, feed_forward_dim=64)],
    ...     position=PositionEmbedding(max_length=50),
    ... )
    >>> encoder(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        *,
        position: Any = None,
        dropout: float = 0.0,
        scale_inputs: bool = False,
        final_norm: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.blocks = [_restore(block) for block in blocks]
        for index, block in enumerate(self.blocks):
            # Under Keras 3, `tf.train.Checkpoint` does not look into lists.
            setattr(self, f"_block_{index}", block)
        if not self.blocks:
            raise ValueError(
                "`blocks` must be a list of at least one layer. Received: blocks=[]. "
                "Use for example [TransformerBlock(num_heads=2, key_dim=32, "
                "feed_forward_dim=256)]."
            )
        self.position = _restore(position)
        self.dropout_rate = check_fraction("dropout", dropout)
        self.scale_inputs = bool(scale_inputs)
        self.final_norm = bool(final_norm)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "blocks": [serialize(block) for block in self.blocks],
            "position": None if self.position is None else serialize(self.position),
            "dropout": self.dropout_rate,
            "scale_inputs": self.scale_inputs,
            "final_norm": self.final_norm,
        }

    def build(self, input_shape: Any) -> None:
        self.check_inputs_shape(input_shape)
        self._norm = None
        layers = (
            [*self.blocks] if self.position is None else [self.position, *self.blocks]
        )
        if self.final_norm:
            self._norm = keras.layers.LayerNormalization(
                epsilon=_EPSILON, name="final_norm", dtype=self.sublayer_dtype()
            )
            layers.append(self._norm)
        for layer in layers:
            self.build_sublayer(layer, input_shape)
        if self.dropout_rate > 0.0:
            self.build_seed_state()
        self.built = True

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        segment_ids: tf.Tensor | None = None,
        training: Any = None,
    ) -> tf.Tensor:
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        segment_ids = check_segment_ids(self, segment_ids, inputs)
        real = real_items(mask, segment_ids)
        states = inputs if real is None else zero_padding(inputs, real)
        if self.scale_inputs:
            states *= tf.cast(float(inputs.shape[-1]) ** 0.5, states.dtype)
        if self.position is not None:
            states = self.position(states, mask=mask, segment_ids=segment_ids)
        states = self.dropout(states, self.dropout_rate, training)
        for block in self.blocks:
            states = block(
                states, mask=mask, segment_ids=segment_ids, training=training
            )
        return states if self._norm is None else self._norm(states)


def _restore(layer: Any) -> Any:
    """A layer as it is, or rebuilt from its serialized form (`from_config`)."""
    if isinstance(layer, dict):
        return keras.saving.deserialize_keras_object(layer)
    return layer
