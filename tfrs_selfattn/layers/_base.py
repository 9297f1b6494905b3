"""What every layer of this package shares: masking, random state, input checks."""

from __future__ import annotations

import inspect
import random
from typing import Any

import tensorflow as tf

from tfrs_selfattn._keras import KERAS_3, keras
from tfrs_selfattn.ops.dropout import stateless_dropout
from tfrs_selfattn.ops.masks import lengths_mask

_REPLICA_STRIDE = 1 << 32  # seeds of two replicas never meet
_EPSILON = 1e-6  # of every layer norm
# In pure half precision the slope of 1 / sqrt(0 + epsilon), at padding, overflows.
_POLICY_OF_NORMS = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


class SequenceLayer(keras.layers.Layer):  # type: ignore[misc]
    """Base of the layers over `[B, T, D]`: passes the mask on and draws dropout.

    Dropout is a function of a seed and of a counter that is a weight of the layer. A
    run that resumes from a checkpoint therefore draws what it would have drawn.

    Args:
        seed: int or None. None draws one from Python's `random`, which
            `keras.utils.set_random_seed` governs.
        **kwargs: passed to `keras.layers.Layer`.
    """

    def __init__(self, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.seed = _check_seed(seed)
        self._seed_state: Any = None
        # Names of what may follow the inputs in a call.
        self._arguments = tuple(inspect.signature(self.call).parameters)[1:]

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        mask = getattr(inputs, "_keras_mask", None)
        fits = len(args) <= len(self._arguments)  # else let Keras complain
        if mask is not None and "mask" in self._arguments and fits:
            given = {**dict(zip(self._arguments, args, strict=False)), **kwargs}
            if given.get("mask") is None:
                # None in the place of the mask, `layer(items, None, attention_mask)`,
                # would hide it from Keras, and Keras 3 drops it beside other tensors.
                given.pop("mask", None)
                if KERAS_3 and not isinstance(inputs, keras.KerasTensor):
                    given["mask"] = mask
                return super().__call__(inputs, **given)
        return super().__call__(inputs, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}

    def build_seed_state(self) -> None:
        """Creates the weight behind `dropout`: int64 `[2]`, the seed and a counter."""
        seed = random.randrange(1 << 31) if self.seed is None else self.seed
        aggregation: Any = "only_first_replica"
        if not KERAS_3:
            aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self._seed_state = self.add_weight(
            name="seed_state",
            shape=(2,),
            dtype="int64",
            initializer=lambda shape, dtype=None: tf.constant([seed, 0], tf.int64),
            trainable=False,
            aggregation=aggregation,
        )

    def next_seed(self) -> tf.Tensor:
        """A fresh seed, int64 `[2]`, different in every step and every replica."""
        seed = tf.convert_to_tensor(self._seed_state)
        self._seed_state.assign_add(tf.constant([0, 1], tf.int64))
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
            seed += tf.stack([replica * _REPLICA_STRIDE, tf.zeros([], tf.int64)])
        return seed

    def dropout(self, inputs: tf.Tensor, rate: float, training: Any) -> tf.Tensor:
        """Applies dropout when training; needs `build_seed_state` in `build`."""
        if not training or rate == 0.0:
            return inputs
        return stateless_dropout(inputs, rate, self.next_seed())

    def sublayer_dtype(self) -> Any:
        """The dtype policy to hand to every sublayer."""
        return self.dtype_policy

    def layer_norm(self, name: str) -> Any:
        """A layer norm whose statistics and weights are float32 in every precision."""
        policy = self.sublayer_dtype()
        return keras.layers.LayerNormalization(
            epsilon=_EPSILON,
            name=name,
            dtype=_POLICY_OF_NORMS.get(policy.name, policy),
        )

    def build_sublayer(self, layer: Any, input_shape: Any) -> None:
        """Builds a layer that this one owns, with its name in those of its weights.

        Legacy Keras opens that name scope in `__call__` only; without it two weights
        of one model share a name, which HDF5 files refuse.
        """
        if not layer.built:
            with tf.name_scope(layer.name):
                layer.build(input_shape)

    def check_inputs_shape(self, shape: Any) -> int:
        """Returns D of a `[B, T, D]` shape, else raises `ValueError`."""
        if len(shape) != 3 or shape[-1] is None:
            raise ValueError(
                f"`{type(self).__name__}` needs inputs of shape [B, T, D] (users, "
                f"positions, width) with D known. Received: shape={tuple(shape)}. "
                "Embed item ids first, for example with `Embedding(mask_zero=True)`."
            )
        return int(shape[-1])


def _check_seed(seed: Any) -> int | None:
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ValueError(
            f"`seed` must be an integer or None. Received: seed={seed!r}. Use for "
            "example seed=1, or None for one that keras.utils.set_random_seed governs."
        )
    return int(seed)


def has_newest(layer: Any) -> bool:
    """Whether a layer can work out its last position alone, by a method `newest`."""
    return _has_beside_call(layer, "newest")


def has_append(layer: Any) -> bool:
    """Whether a layer can go on from what it remembers, by a method `append`."""
    return _has_beside_call(layer, "append")


def _has_beside_call(layer: Any, method: str) -> bool:
    """Whether a class has a method that computes what its `call` does.

    A subclass that overrides `call` and not the method has not: what it inherits would
    pass its own computation by.
    """
    for kind in type(layer).__mro__:
        if method in vars(kind):
            return True
        if "call" in vars(kind):
            return False
    return False


def pad_ragged(inputs: Any, mask: Any) -> tuple[tf.Tensor, Any]:
    """Ragged inputs as a padded tensor and its mask; others as they are."""
    if not isinstance(inputs, tf.RaggedTensor):
        return inputs, mask
    # Legacy Keras hands on a ragged mask, of which the lengths are all that counts.
    if mask is not None and not isinstance(mask, tf.RaggedTensor):
        raise ValueError(
            "`mask` must be None with ragged inputs, whose lengths say what is real. "
            f"Received: a tensor of shape {tuple(mask.shape)}. Leave it out, or pad "
            "the inputs."
        )
    padded = inputs.to_tensor()
    return padded, lengths_mask(inputs.row_lengths(), tf.shape(padded)[1])


def check_float(layer: Any, inputs: tf.Tensor) -> None:
    """Raises `ValueError` on ragged inputs, and on ids that were not embedded."""
    if isinstance(inputs, tf.RaggedTensor):
        raise ValueError(
            f"`{type(layer).__name__}` needs padded inputs [B, T, D]. Received: a "
            "RaggedTensor. Use inputs.to_tensor() and mask=lengths_mask(…), or "
            "`SequenceEncoder`, which takes both."
        )
    if not inputs.dtype.is_floating:
        raise ValueError(
            f"`{type(layer).__name__}` needs floating-point inputs [B, T, D]. "
            f"Received: dtype={inputs.dtype.name}. Embed item ids first, for example "
            "with `Embedding(mask_zero=True)`."
        )


def check_mask(layer: Any, mask: Any, inputs: tf.Tensor) -> tf.Tensor | None:
    """Returns a bool `[B, T]` tensor that fits the inputs, else raises `ValueError`."""
    if mask is None:
        return None
    mask = tf.convert_to_tensor(mask)
    _check_shape(layer, "mask", mask, inputs)
    _check_bool(layer, "mask", mask, "mask=ids != 0")
    return mask


def check_segment_ids(layer: Any, ids: Any, inputs: tf.Tensor) -> tf.Tensor | None:
    """Returns an int `[B, T]` tensor that fits the inputs, else raises `ValueError`."""
    if ids is None:
        return None
    ids = tf.convert_to_tensor(ids)
    _check_shape(layer, "segment_ids", ids, inputs)
    if not ids.dtype.is_integer:
        raise ValueError(
            f"`segment_ids` of `{type(layer).__name__}` must be integers, 0 for "
            f"padding. Received: dtype={ids.dtype.name}. Number the users of each row "
            "1, 2, … as int32."
        )
    return ids


def check_start(layer: Any, start: Any, inputs: tf.Tensor) -> tf.Tensor | None:
    """Returns an int32 `[B]` tensor that fits the inputs, else raises `ValueError`."""
    if start is None:
        return None
    start = tf.convert_to_tensor(start)
    users = inputs.shape[:1]
    if not (
        start.dtype.is_integer
        and start.shape.rank == 1
        and start.shape.is_compatible_with(users)
    ):
        raise ValueError(
            f"`start` of `{type(layer).__name__}` must be an integer tensor [B], "
            f"{tuple(users)}: how many items came before. Received: dtype="
            f"{start.dtype.name}, shape={tuple(start.shape)}. Count the real items of "
            "each earlier history."
        )
    return tf.cast(start, tf.int32)


def check_attention_mask(layer: Any, mask: Any, inputs: tf.Tensor) -> tf.Tensor | None:
    """Returns a bool `[B, T, T]` or `[T, T]` tensor, else raises `ValueError`."""
    if mask is None:
        return None
    mask = tf.convert_to_tensor(mask)
    users, length = inputs.shape[0], inputs.shape[1]
    square = tf.TensorShape([users, length, length])
    one = tf.TensorShape([1, length, length])  # the same for all users
    shape = mask.shape
    if not (
        shape.rank in (2, 3)
        and (shape.is_compatible_with(square[-shape.rank :]) or one == shape)
    ):
        raise ValueError(
            f"`attention_mask` of `{type(layer).__name__}` must have the shape "
            f"[B, T, T] or [T, T] of the inputs, {tuple(square)} or "
            f"{tuple(square[1:])}. Received: shape={tuple(shape)}. All heads share "
            "one mask."
        )
    _check_bool(layer, "attention_mask", mask, "tf.cast(attention_mask, tf.bool)")
    return mask


def check_timestamps(
    layer: Any, timestamps: Any, request_times: Any, inputs: tf.Tensor
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """Both as int64 `[B, T]` tensors that fit the inputs, else raises `ValueError`."""
    checked: list[tf.Tensor | None] = []
    for name, times in [("timestamps", timestamps), ("request_times", request_times)]:
        if times is not None:
            times = tf.convert_to_tensor(times)
            _check_shape(layer, name, times, inputs)
            if not times.dtype.is_integer:
                raise ValueError(
                    f"`{name}` of `{type(layer).__name__}` must be integers, Unix "
                    f"seconds. Received: dtype={times.dtype.name}. Use int64: float32 "
                    "is two minutes off."
                )
            times = tf.cast(times, tf.int64)
        checked.append(times)
    return checked[0], checked[1]


def _check_shape(layer: Any, name: str, tensor: tf.Tensor, inputs: tf.Tensor) -> None:
    shape = tensor.shape
    if shape.rank != 2 or not shape.is_compatible_with(inputs.shape[:2]):
        raise ValueError(
            f"`{name}` of `{type(layer).__name__}` must have the shape [B, T] of the "
            f"inputs, {tuple(inputs.shape[:2])}. Received: shape={tuple(shape)}. Pad "
            "it as the inputs are padded."
        )


def _check_bool(layer: Any, name: str, mask: tf.Tensor, hint: str) -> None:
    if mask.dtype != tf.bool:
        raise ValueError(
            f"`{name}` of `{type(layer).__name__}` must be bool, True = keep. "
            f"Received: dtype={mask.dtype.name}. Use for example {hint}."
        )


def real_items(
    mask: tf.Tensor | None, segment_ids: tf.Tensor | None
) -> tf.Tensor | None:
    """Where real items stand: bool `[B, T]`; None when neither argument says so."""
    if segment_ids is None:
        return mask
    real = segment_ids != 0
    return real if mask is None else tf.logical_and(mask, real)


def zero_padding(inputs: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Replaces what stands under padding by 0, also where it is NaN or infinite."""
    return tf.math.multiply_no_nan(inputs, tf.cast(mask, inputs.dtype)[..., tf.newaxis])


def restore_layer(layer: Any) -> Any:
    """A layer as it is, or rebuilt from its serialized form (`from_config`)."""
    if isinstance(layer, dict):
        return keras.saving.deserialize_keras_object(layer)
    return layer


def check_layer(name: str, layer: Any, example: str) -> Any:
    """A layer, restored if need be; `ValueError` for anything else.

    A layer of the other Keras is something else too: it cannot live in one of this.
    """
    layer = restore_layer(layer)
    if not isinstance(layer, keras.layers.Layer):
        kind = type(layer)
        raise ValueError(
            f"`{name}` must be a layer of {keras.layers.Layer.__module__.split('.')[0]}"
            f". Received: {kind.__module__.split('.')[0]}.{kind.__qualname__}. Use for "
            f"example {example}."
        )
    return layer


def fresh_initializer(initializer: Any) -> Any:
    """A copy of an initializer, which draws anew where a shared one would repeat."""
    if hasattr(initializer, "get_config"):
        return type(initializer).from_config(initializer.get_config())
    return initializer
