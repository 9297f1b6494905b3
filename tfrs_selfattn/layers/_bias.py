"""Base of the layers that bias attention by distance or by time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_float,
    check_timestamps,
    restore_layer,
)
from tfrs_selfattn.ops.biases import AttentionBias
from tfrs_selfattn.ops.heads import static_or_dynamic


class BiasLayer(SequenceLayer):
    """A bias that attention draws block by block, `blocks`, or whole, `call`.

    Args:
        num_heads: int. H, that of the attention it is given to.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).
    """

    needs_times = False  # whether `timestamps` must reach the attention

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_int("num_heads", num_heads)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def build_table(self, num_buckets: int) -> None:
        """Creates the learned bias of every bucket and head, `[num_buckets, H]`."""
        self._table = self.add_weight(
            name="table",
            shape=(num_buckets, self.num_heads),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def table(self) -> tf.Tensor:
        """The learned table in float32: logits are float32 in every precision."""
        return tf.cast(tf.convert_to_tensor(self._table), tf.float32)

    def blocks(
        self, timestamps: tf.Tensor | None, request_times: tf.Tensor | None
    ) -> AttentionBias:
        """The bias as attention takes it."""
        raise NotImplementedError  # pragma: no cover

    def call(
        self,
        inputs: tf.Tensor,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
    ) -> tf.Tensor:
        check_float(self, inputs)
        self.check_inputs_shape(inputs.shape)
        bias = self.blocks(*check_timestamps(self, timestamps, request_times, inputs))
        positions = tf.range(static_or_dynamic(inputs, 1))
        return bias.block(bias.parameters, positions, positions)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """A bias has no padding."""
        return None


def restore_biases(layer: Any, biases: Sequence[Any], num_heads: int) -> list[Any]:
    """The biases of an attention layer, checked, and made known to checkpoints."""
    restored = [restore_layer(bias) for bias in biases]
    for index, bias in enumerate(restored):
        if not isinstance(bias, BiasLayer):
            raise ValueError(
                "`biases` must be a list of `RelativePositionBias`, `AlibiBias` or "
                f"`RelativeTimeBias`. Received: {type(bias).__name__}. Use for example "
                f"[AlibiBias({num_heads})]."
            )
        if bias.num_heads != num_heads:
            raise ValueError(
                "Every bias must have the heads of the attention. Received: "
                f"{type(bias).__name__}(num_heads={bias.num_heads}), num_heads="
                f"{num_heads}. Build the bias with num_heads={num_heads}."
            )
        # Under Keras 3, `tf.train.Checkpoint` does not look into lists.
        setattr(layer, f"_bias_{index}", bias)
    return restored


def check_times(layer: Any, timestamps: Any, request_times: Any) -> None:
    """Raises `ValueError` when a time bias gets no times."""
    if timestamps is None or request_times is None:
        raise ValueError(
            f"`{type(layer).__name__}` needs `timestamps` and `request_times`, int64 "
            "[B, T] Unix seconds. Received: "
            f"timestamps={_name(timestamps)}, request_times={_name(request_times)}. "
            "Pass both to the outermost layer that is called, or leave the bias out."
        )


def _name(tensor: Any) -> str:
    return "None" if tensor is None else f"a tensor of shape {tuple(tensor.shape)}"
