"""Encoding a history as it grows: new events, not the whole history, cost work.

Functions over tensors, so that a state can live in a session store and one step can be
a serving signature. For causal encoders whose positions count from the oldest item:
counted from the newest, every new item would move all the others.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfrs_selfattn.layers._base import check_float, check_mask
from tfrs_selfattn.layers.sequence_encoder import SequenceEncoder
from tfrs_selfattn.layers.transformer_block import TransformerBlock


class EncoderState(NamedTuple):
    """What an encoder remembers of a history.

    Attributes:
        keys: float `[blocks, B, H, L, K]`.
        values: float `[blocks, B, H, L, K]`.
        mask: bool `[B, L]`, True = real item.
    """

    keys: tf.Tensor
    values: tf.Tensor
    mask: tf.Tensor


def initial_state(
    encoder: SequenceEncoder, batch_size: int | tf.Tensor
) -> EncoderState:
    """The state before the first event.

    Args:
        encoder: a built `SequenceEncoder`.
        batch_size: int or scalar tensor, B.

    Raises:
        ValueError: when the encoder cannot be continued; see `append`.
    """
    _check(encoder)
    attention = encoder.blocks[0].attention
    shape = [len(encoder.blocks), batch_size, attention.num_heads, 0, attention.key_dim]
    empty = tf.zeros(shape, attention.compute_dtype)
    return EncoderState(empty, empty, tf.zeros([batch_size, 0], tf.bool))


def append(
    encoder: SequenceEncoder,
    state: EncoderState,
    inputs: tf.Tensor,
    mask: tf.Tensor | None = None,
) -> tuple[tf.Tensor, EncoderState]:
    """Encodes new events behind those of a state.

    The vectors equal those of encoding the whole history at once, to float tolerance.
    Past the `max_length` of a `PositionEmbedding`, where the encoder itself refuses,
    new events share the last position.

    Args:
        encoder: a built `SequenceEncoder` of `TransformerBlock`s with causal attention
            of one shape, no time bias, and positions counted from the oldest item, or
            none.
        state: `initial_state`, or what an earlier call returned.
        inputs: float `[B, T, D]`, the vectors of the new events, oldest first.
        mask: bool `[B, T]`, True = real event. None takes all for real.

    Returns:
        float `[B, T, D]`, the encoded new events, and the state with them added.

    Raises:
        ValueError: when the encoder has another structure or was not built, or inputs
            do not fit it, the mask or the state.

    Example:

    >>> from tfrs_selfattn.layers.incremental import append, initial_state
    >>> block = TransformerBlock(MultiHeadSelfAttention(2, 8), FeedForward(32))
    >>> encoder = SequenceEncoder([block])
    >>> whole = encoder(tf.ones([1, 3, 16]))
    >>> state = initial_state(encoder, 1)
    >>> first, state = append(encoder, state, tf.ones([1, 2, 16]))
    >>> last, state = append(encoder, state, tf.ones([1, 1, 16]))
    >>> bool(tf.reduce_all(tf.abs(last[:, 0] - whole[:, 2]) < 1e-5))
    True
    """
    _check(encoder)
    inputs = tf.convert_to_tensor(inputs)
    check_float(encoder, inputs)
    width = encoder.check_inputs_shape(inputs.shape)
    if width != encoder.width:
        raise ValueError(
            f"`inputs` must be as wide as those the encoder was built with, "
            f"{encoder.width}. Received: shape={tuple(inputs.shape)}. Embed the new "
            "events with the table of the history."
        )
    mask = check_mask(encoder, mask, inputs)
    if mask is None:
        mask = tf.ones(tf.shape(inputs)[:2], tf.bool)
    if not state.mask.shape[:1].is_compatible_with(inputs.shape[:1]):
        raise ValueError(
            "`state` must be of the same users as `inputs`. Received: a state of "
            f"{state.mask.shape[0]}, inputs of {inputs.shape[0]}. Start from "
            "`initial_state(encoder, batch_size)`, or gather the rows of the state."
        )
    inputs = tf.cast(inputs, encoder.compute_dtype)
    known = tf.concat([state.mask, mask], axis=1)  # [B, L + T]
    states = tf.where(mask[..., tf.newaxis], inputs, tf.zeros([], inputs.dtype))
    before = tf.reduce_sum(tf.cast(state.mask, tf.int32), axis=1)  # [B]
    states = encoder.enter(states, mask=mask, start=before)
    keys, values = [], []
    for index, block in enumerate(encoder.blocks):
        cache = (state.keys[index], state.values[index])
        states, (key, value) = block.append(states, cache, known)
        keys.append(key)
        values.append(value)
    return encoder.leave(states), EncoderState(tf.stack(keys), tf.stack(values), known)


def _check(encoder: SequenceEncoder) -> None:
    faults = []
    if getattr(encoder.position, "count_from", "oldest") != "oldest":
        faults.append('positions count from the newest item; use "oldest"')
    for block in encoder.blocks:
        if not isinstance(block, TransformerBlock):
            faults.append(f"{type(block).__name__} keeps no state")
        elif not block.attention.causal:
            faults.append("attention is not causal")
        elif any(bias.needs_times for bias in block.attention.biases):
            faults.append("a time bias depends on the time of each request")
    shapes = {
        (block.attention.num_heads, block.attention.key_dim)
        for block in encoder.blocks
        if isinstance(block, TransformerBlock)
    }
    if len(shapes) > 1:
        faults.append("blocks have heads of different number or width")
    if not encoder.built:
        faults.append("nothing is built yet; call it once, or encoder.build")
    if faults:
        raise ValueError(
            "`encoder` must be built and causal, with positions counted from the "
            "oldest item, to be continued. Received: an encoder where "
            f"{'; '.join(faults)}."
        )
