"""Encoding a history as it grows: new events, not the whole history, cost work.

Functions over tensors, so that a state can live in a session store and one step can be
a serving signature. For causal encoders whose positions count from the oldest item:
counted from the newest, every new item would move all the others. Not for time biases
either: what a position saw depends on when the item after it is asked for, which a new
event changes.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import tensorflow as tf

from tfrs_selfattn.layers._base import check_float, check_mask, has_append
from tfrs_selfattn.layers.sequence_encoder import SequenceEncoder


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
        batch_size: int or scalar int tensor, B.

    Raises:
        ValueError: when the encoder cannot be continued (see `append`), or
            `batch_size` is no number of users.
    """
    _check(encoder)
    _check_batch_size(batch_size)
    attention = _attention(encoder.blocks[0])
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
        encoder: a built `SequenceEncoder` of `TransformerBlock`s and `HSTUBlock`s with
            causal attention of one shape, no time bias, and positions counted from the
            oldest item, or none: `encoders.sasrec(count_from="oldest")`, or `gsasrec`,
            `esasrec`, and `hstu` with `time_aware=False`.
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
    state = EncoderState(*map(tf.convert_to_tensor, state))
    _check_state(encoder, state, inputs)
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
    """Raises `ValueError` that names everything that keeps it from being continued."""
    faults = []
    if type(encoder).call is not SequenceEncoder.call:
        faults.append(f"{type(encoder).__name__} overrides `call`")
    faults.extend(_faults_of_position(encoder.position))
    shapes = set()
    for block in encoder.blocks:
        found = _faults_of_block(block)
        faults.extend(found)
        if not found:
            attention = _attention(block)
            shapes.add((attention.num_heads, attention.key_dim))
    if len(shapes) > 1:
        faults.append("blocks have heads of different number or width")
    if not encoder.built:
        faults.append("nothing is built yet; call it once, or encoder.build")
    if faults:
        raise ValueError(
            "`encoder` must be built and causal, with positions counted from the "
            "oldest item, to be continued. Received: an encoder where "
            f"{'; '.join(faults)}. Build one that can be, for example by "
            '`encoders.sasrec(count_from="oldest")`.'
        )


def _faults_of_position(position: Any) -> list[str]:
    if position is None:
        return []
    if getattr(position, "count_from", "oldest") != "oldest":
        return ['positions count from the newest item; use "oldest"']
    if "start" not in inspect.signature(position.call).parameters:
        return [f"{type(position).__name__} takes no `start` to count on from"]
    return []


def _faults_of_block(block: Any) -> list[str]:
    for layer in (block, _attention(block)):
        name = type(layer).__name__
        if not hasattr(layer, "append"):
            return [f"{name} keeps no state"]
        if not has_append(layer):
            return [f"{name} overrides `call` and not `append`"]
    attention = _attention(block)
    asked = ("causal", "biases", "num_heads", "key_dim")
    missing = [attribute for attribute in asked if not hasattr(attention, attribute)]
    if missing:
        listed = ", ".join(f"`{attribute}`" for attribute in missing)
        return [f"{type(attention).__name__} has no {listed}"]
    if not attention.causal:
        return ["attention is not causal"]
    if any(bias.needs_times for bias in attention.biases):
        return ["a time bias depends on the time of each request"]
    return []


def _attention(block: Any) -> Any:
    """What attends in a block: a layer of its own, or the block, as in HSTU."""
    return getattr(block, "attention", block)


def _check_batch_size(batch_size: Any) -> None:
    if tf.is_tensor(batch_size):
        fits = batch_size.shape.rank == 0 and batch_size.dtype.is_integer
        received = f"a tensor of {batch_size.dtype.name}, shape={batch_size.shape}"
    else:
        whole = hasattr(batch_size, "__index__") and not isinstance(batch_size, bool)
        fits = whole and batch_size >= 0
        received = f"batch_size={batch_size!r}"
    if not fits:
        raise ValueError(
            "`batch_size` must be an integer of at least 0, or a scalar integer "
            f"tensor. Received: {received}. Pass the number of rows of the events to "
            "come, for example tf.shape(inputs)[0]."
        )


def _check_state(
    encoder: SequenceEncoder, state: EncoderState, inputs: tf.Tensor
) -> None:
    """Raises `ValueError` when a state is of other users or of another encoder."""
    users = state.mask.shape[:1]
    if state.mask.shape.rank == 2 and not users.is_compatible_with(inputs.shape[:1]):
        raise ValueError(
            "`state` must be of the same users as `inputs`. Received: a state of "
            f"{state.mask.shape[0]}, inputs of {inputs.shape[0]}. Start from "
            "`initial_state(encoder, batch_size)`, or gather the rows of the state."
        )
    attention = _attention(encoder.blocks[0])
    length = state.mask.shape[1] if state.mask.shape.rank == 2 else None
    sizes = [len(encoder.blocks), inputs.shape[0], attention.num_heads, length]
    shape = tf.TensorShape([*sizes, attention.key_dim])
    dtype = tf.as_dtype(attention.compute_dtype)
    caches = (state.keys, state.values)
    if not (
        all(shape.is_compatible_with(cache.shape) for cache in caches)
        and all(cache.dtype == dtype for cache in caches)
        and state.mask.shape.rank == 2
        and state.mask.dtype == tf.bool
    ):
        received = ", ".join(
            f"{name} {part.dtype.name} {tuple(part.shape)}"
            for name, part in state._asdict().items()
        )
        raise ValueError(
            "`state` must hold what this encoder remembers: keys and values "
            f"[blocks, B, H, L, K], {dtype.name} {tuple(shape)}, and a mask [B, L], "
            f"bool. Received: {received}. Start from `initial_state(encoder, "
            "batch_size)`; the state of another encoder does not fit."
        )
