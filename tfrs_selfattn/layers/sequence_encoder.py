"""The encoder of a history: positions, dropout, blocks, a final norm and a head."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_flag, check_fraction
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_attention_mask,
    check_float,
    check_layer,
    check_mask,
    check_segment_ids,
    has_newest,
    pad_ragged,
    real_items,
    zero_padding,
)
from tfrs_selfattn.layers._bias import check_times


@register
class SequenceEncoder(SequenceLayer):
    r"""Encodes a history of item vectors into one vector a position.

    $x \mapsto N(B_n(\ldots B_1(d(s\,x + P))))$ with blocks $B_i$, positions $P$,
    dropout $d$, a final layer norm $N$, and $s = \sqrt{D}$ with `scale_inputs`,
    else 1; then the head, if there is one.

    Args:
        blocks: list of layers with the call arguments of `TransformerBlock`, applied in
            order. At least one.
        position: layer added before the blocks, `PositionEmbedding` or
            `SinusoidalPositions`. None adds nothing. Defaults to `None`.
        dropout: float in [0, 1). On the sum of items and positions. Defaults to `0.0`.
        scale_inputs: bool. Multiply the inputs by $\sqrt{D}$. Defaults to `False`.
        final_norm: bool. Normalize the output. Defaults to `True`.
        head: layer applied last, position by position. Defaults to `None`.
        require_mask: bool. Raise where nothing says which items are real, neither a
            mask nor segment ids nor ragged rows: a mask that got lost on its way is
            found where it is missed, not in the results. Defaults to `False`.
        **kwargs: `seed` (int or None, of dropout) and those of `keras.layers.Layer`.

    Call arguments:
        inputs: float `[B, T, D]`, or a RaggedTensor of users' histories; the other
            arguments are then ragged too, and there is no `mask`.
        mask: bool `[B, T]`, True = real item. Usually set by an upstream
            `Embedding(mask_zero=True)`.
        segment_ids: int `[B, T]`: several users share a row, nothing crosses from one
            to the other, positions restart; 0 is padding.
        training: bool.
        timestamps: int64 `[B, T]`, Unix seconds, for blocks with a time bias.
        request_times: int64 `[B, T]`, when the item after each position was, or is,
            asked for, for blocks with a time bias.
        return_attention_scores: bool. Return the blocks' attention weights too, to
            look at.
        attention_mask: bool `[B, T, T]` or `[T, T]`, True = may attend; for all blocks.

    Returns:
        float `[B, T, D]`, in the layer's compute dtype; ragged where the input was.
        With `return_attention_scores` the pair of it and a list of `[B, H, T, T]`
        weights, one a block.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            a mask has another shape or is missing with `require_mask`, times are
            missing for a time bias, or scores are asked for of a block without any.

    Masking: consumes and passes on the mask; padding may be on either side, and what
    stands in it, even NaN, never reaches a real position.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> block = TransformerBlock(
    ...     MultiHeadSelfAttention(num_heads=2, key_dim=8), FeedForward(hidden_dim=64)
    ... )
    >>> encoder = SequenceEncoder([block], position=PositionEmbedding(max_length=50))
    >>> encoder(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: `keras.Sequential` of the same layers, which hands on a mask at best:
    here blocks and positions get segments and times too. From SASRec, BERT4Rec and
    their kin, where a history's vector depends on how far it is padded; here it does
    not. What else they do outside of blocks (scale, final norm, head) is an argument,
    since they do not agree.

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.
    """

    _supports_ragged_inputs = True  # legacy Keras asks for it

    def __init__(
        self,
        blocks: Sequence[Any],
        *,
        position: Any = None,
        dropout: float = 0.0,
        scale_inputs: bool = False,
        final_norm: bool = True,
        head: Any = None,
        require_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.blocks = _check_blocks(blocks)
        for index, block in enumerate(self.blocks):
            # Under Keras 3, `tf.train.Checkpoint` does not look into lists.
            setattr(self, f"_block_{index}", block)
        self.position = None
        if position is not None:
            self.position = check_layer("position", position, "PositionEmbedding(200)")
        self.dropout_rate = check_fraction("dropout", dropout)
        self.scale_inputs = check_flag("scale_inputs", scale_inputs)
        self.final_norm = check_flag("final_norm", final_norm)
        self.head = None
        if head is not None:
            self.head = check_layer("head", head, "a Dense, or None")
        self.require_mask = check_flag("require_mask", require_mask)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "blocks": [serialize(block) for block in self.blocks],
            "position": None if self.position is None else serialize(self.position),
            "dropout": self.dropout_rate,
            "scale_inputs": self.scale_inputs,
            "final_norm": self.final_norm,
            "head": None if self.head is None else serialize(self.head),
            "require_mask": self.require_mask,
        }

    def build(self, input_shape: Any) -> None:
        self.width = self.check_inputs_shape(input_shape)
        self._norm = None
        if self.final_norm:
            self._norm = self.layer_norm("final_norm")
        for layer in (self.position, *self.blocks, self._norm, self.head):
            if layer is not None:
                self.build_sublayer(layer, input_shape)
        if self.dropout_rate > 0.0:
            self.build_seed_state()
        self._needs_times = any(
            getattr(layer, "needs_times", False) for layer in self._flatten_layers()
        )
        self.built = True

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        segment_ids: tf.Tensor | None = None,
        training: Any = None,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
        return_attention_scores: bool = False,
        attention_mask: tf.Tensor | None = None,
    ) -> Any:
        if isinstance(inputs, tf.RaggedTensor):
            states, scores = self._encode(
                *pad_ragged(inputs, mask),
                segment_ids=_dense("segment_ids", segment_ids),
                training=training,
                timestamps=_dense("timestamps", timestamps),
                request_times=_dense("request_times", request_times),
                return_attention_scores=return_attention_scores,
                attention_mask=attention_mask,
            )
            states = tf.RaggedTensor.from_tensor(states, lengths=inputs.row_lengths())
        else:
            states, scores = self._encode(
                inputs,
                mask,
                segment_ids,
                training,
                timestamps,
                request_times,
                return_attention_scores,
                attention_mask,
            )
        return (states, scores) if return_attention_scores else states

    def _encode(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None,
        segment_ids: tf.Tensor | None,
        training: Any,
        timestamps: tf.Tensor | None,
        request_times: tf.Tensor | None,
        return_attention_scores: bool,
        attention_mask: tf.Tensor | None,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The states `[B, T, D]` and, if asked for, the weights of each block."""
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        segment_ids = check_segment_ids(self, segment_ids, inputs)
        attention_mask = check_attention_mask(self, attention_mask, inputs)
        if self._needs_times:
            check_times(self, timestamps, request_times)
        real = real_items(mask, segment_ids)
        if real is None and self.require_mask:
            raise ValueError(
                f"`{type(self).__name__}(require_mask=True)` needs to know which items "
                "are real. Received: mask=None, segment_ids=None, and inputs that "
                "carry no mask. Pass mask=ids != 0; an operation between the embedding "
                "and this layer, such as x + 1.0, may have lost it."
            )
        states = inputs if real is None else zero_padding(inputs, real)
        states = self.enter(states, mask=mask, segment_ids=segment_ids)
        states = self.dropout(states, self.dropout_rate, training)
        times = _times(timestamps, request_times)
        asked: dict[str, Any] = {}
        scores = []
        if attention_mask is not None:  # not every block knows it
            asked["attention_mask"] = attention_mask
        if return_attention_scores:
            _check_scores(self.blocks)
            asked["return_attention_scores"] = True
        for block in self.blocks:
            states = block(
                states,
                mask=mask,
                segment_ids=segment_ids,
                training=training,
                **times,
                **asked,
            )
            if return_attention_scores:
                states, weights = states
                scores.append(weights)
        return self.leave(states), scores

    def newest(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """What `call` gives at the last position alone: `[B, 1, D]`, no dropout.

        All that a request for recommendations needs. The last block, of two say, costs
        next to nothing then; the arguments are those of `call`, `mask` is not optional.
        """
        times = _times(timestamps, request_times)
        if not self.built:  # which Keras does in a call
            self(inputs, mask=mask, training=False, **times)
        if self._needs_times:
            check_times(self, timestamps, request_times)
        states = zero_padding(tf.cast(inputs, self.compute_dtype), mask)
        states = self.enter(states, mask=mask)
        *blocks, last = self.blocks
        for block in blocks:
            states = block(states, mask=mask, training=False, **times)
        if has_newest(last):
            states = last.newest(states, mask, **times)
        else:
            states = last(states, mask=mask, training=False, **times)[:, -1:]
        return self.leave(states)

    def enter(self, states: tf.Tensor, **position_arguments: Any) -> tf.Tensor:
        """What happens to item vectors before the first block."""
        if self.scale_inputs:
            states *= tf.cast(float(states.shape[-1]) ** 0.5, states.dtype)
        if self.position is not None:
            states = self.position(states, **position_arguments)
        return states

    def leave(self, states: tf.Tensor) -> tf.Tensor:
        """What happens to states after the last block."""
        if self._norm is not None:
            states = self._norm(states)
        return states if self.head is None else self.head(states)


def _check_blocks(blocks: Any) -> list[Any]:
    example = "TransformerBlock(MultiHeadSelfAttention(2, 32), FeedForward(256))"
    if not isinstance(blocks, Sequence) or isinstance(blocks, str) or not blocks:
        received = f"blocks={blocks!r}"
        if isinstance(blocks, keras.layers.Layer):
            received = f"one {type(blocks).__name__}"
        raise ValueError(
            f"`blocks` must be a list of at least one layer. Received: {received}. "
            f"Use for example [{example}]."
        )
    return [check_layer("blocks", block, f"[{example}]") for block in blocks]


def _times(
    timestamps: tf.Tensor | None, request_times: tf.Tensor | None
) -> dict[str, tf.Tensor | None]:
    """The arguments of a block, which may not know of times at all."""
    if timestamps is None and request_times is None:
        return {}
    return {"timestamps": timestamps, "request_times": request_times}


def _check_scores(blocks: Sequence[Any]) -> None:
    for block in blocks:
        if "return_attention_scores" not in inspect.signature(block.call).parameters:
            raise ValueError(
                "`return_attention_scores` needs blocks with attention weights, such "
                f"as `TransformerBlock`. Received: {type(block).__name__}, which has "
                "none (those of HSTU are no shares of a whole). Explain such a model "
                "by leaving items out."
            )


def _dense(name: str, tensor: Any) -> tf.Tensor | None:
    """A ragged argument beside ragged inputs, padded as they are."""
    if tensor is None:
        return None
    if not isinstance(tensor, tf.RaggedTensor):
        raise ValueError(
            f"`{name}` must be a RaggedTensor when the inputs are. Received: a tensor "
            f"of shape {tuple(tensor.shape)}. Make both ragged, or pad both."
        )
    return tensor.to_tensor()
