"""Additive biases of attention logits: by distance, or by time.

A bias is a function of learned parameters and of a block of positions, so that long
histories never hold a whole `[H, T, S]` bias and its gradient flows block by block.

Shape alphabet: B users, T positions, S attended positions, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from tfrs_selfattn.ops.attention_mask import positions_of


class AttentionBias(Protocol):
    """What attention asks of a bias."""

    @property
    def parameters(self) -> Sequence[tf.Tensor]:
        """Tensors that gradients flow to."""

    def block(
        self, parameters: Sequence[tf.Tensor], rows: tf.Tensor, columns: tf.Tensor
    ) -> tf.Tensor:
        """Of positions, int `[t]`, and keys, int `[s]`.

        float32, broadcastable to `[B, H, t, s]`.
        """


@dataclass(frozen=True)
class DistanceBias:
    r"""A learned bias per head and bucket of the distance t - s (T5).

    Distances up to half the buckets have a bucket each; larger ones share buckets that
    grow logarithmically up to `max_distance`. With `bidirectional`, half of the buckets
    serve keys that are newer than the query.

    Args:
        table: float `[num_buckets, H]`.
        max_distance: int. From here on distances share the last bucket.
        bidirectional: bool.

    References:
        - [Raffel et al., 2020](https://arxiv.org/abs/1910.10683), section 2.1.
    """

    table: tf.Tensor
    max_distance: int = 128
    bidirectional: bool = False

    @property
    def parameters(self) -> Sequence[tf.Tensor]:
        return (self.table,)

    def block(
        self, parameters: Sequence[tf.Tensor], rows: tf.Tensor, columns: tf.Tensor
    ) -> tf.Tensor:
        (table,) = parameters
        distance = _distance(rows, columns)
        buckets = distance_buckets(
            distance,
            num_buckets=int(table.shape[0]),
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        return _lookup(table, buckets)[tf.newaxis]  # [1, H, t, s]


@dataclass(frozen=True)
class LinearBias:
    """ALiBi: `-slope * |t - s|`, nothing learned.

    Head h of H has the slope 2^(-8 (h + 1) / H); for H no power of two the paper takes
    every other slope of the next power, which this single formula interpolates.

    Args:
        num_heads: int. H.

    References:
        - [Press et al., 2022](https://arxiv.org/abs/2108.12409), section 3.
    """

    num_heads: int

    @property
    def parameters(self) -> Sequence[tf.Tensor]:
        return ()

    def block(
        self, parameters: Sequence[tf.Tensor], rows: tf.Tensor, columns: tf.Tensor
    ) -> tf.Tensor:
        exponents = [-8.0 * (h + 1) / self.num_heads for h in range(self.num_heads)]
        slopes = tf.constant([2.0**exponent for exponent in exponents], tf.float32)
        distance = tf.abs(_distance(rows, columns))
        slopes = slopes[:, tf.newaxis, tf.newaxis]
        return (-slopes * tf.cast(distance, tf.float32))[tf.newaxis]  # [1, H, t, s]


@dataclass(frozen=True)
class TimeBias:
    r"""A learned bias per head and bucket of the time between query and key (HSTU).

    The bucket of $\Delta$ seconds is $\lfloor \log(\max(1, |\Delta|)) / .301 \rfloor$,
    at most the last one, where $\Delta$ runs from the key's event to the moment at
    which the query asks for the next one.

    Args:
        table: float `[num_buckets, H]`.
        timestamps: int64 `[B, S]`. Unix seconds of each event.
        request_times: int64 `[B, T]`. When the item after each position was, or is,
            asked for.

    References:
        - [Zhai et al., 2024](https://arxiv.org/abs/2402.17152) (HSTU) and the authors'
          code, for the bucket.
    """

    table: tf.Tensor
    timestamps: tf.Tensor
    request_times: tf.Tensor

    @property
    def parameters(self) -> Sequence[tf.Tensor]:
        return (self.table,)

    def block(
        self, parameters: Sequence[tf.Tensor], rows: tf.Tensor, columns: tf.Tensor
    ) -> tf.Tensor:
        (table,) = parameters
        asked = positions_of(self.request_times, rows, 1)[:, :, tf.newaxis]
        happened = positions_of(self.timestamps, columns, 1)[:, tf.newaxis, :]
        buckets = time_buckets(asked - happened, num_buckets=int(table.shape[0]))
        return _lookup(table, buckets)  # [B, H, t, s]


def distance_buckets(
    distance: tf.Tensor, *, num_buckets: int, max_distance: int, bidirectional: bool
) -> tf.Tensor:
    """T5's bucket of each distance t - s: int32 of the shape of `distance`."""
    offset = tf.zeros([], tf.int32)
    if bidirectional:
        num_buckets //= 2
        offset = tf.where(distance < 0, num_buckets, 0)
        distance = tf.abs(distance)
    distance = tf.maximum(distance, 0)
    exact = num_buckets // 2
    # log(distance / exact) / log(max / exact), spread over the buckets that are left.
    ratio = tf.cast(tf.maximum(distance, 1), tf.float32) / max(exact, 1)
    steps = (num_buckets - exact) / math.log(max_distance / max(exact, 1))
    far = exact + tf.cast(tf.math.log(ratio) * steps, tf.int32)
    far = tf.minimum(far, num_buckets - 1)
    return offset + tf.where(distance < exact, distance, far)


def time_buckets(seconds: tf.Tensor, *, num_buckets: int) -> tf.Tensor:
    """HSTU's bucket of each time difference: int32 of the shape of `seconds`."""
    # float32 holds a difference of years to within a minute, far inside its bucket.
    magnitude = tf.cast(tf.maximum(tf.abs(seconds), 1), tf.float32)
    bucket = tf.cast(tf.math.log(magnitude) / 0.301, tf.int32)
    return tf.clip_by_value(bucket, 0, num_buckets - 1)


def _distance(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    return rows[:, tf.newaxis] - columns[tf.newaxis, :]  # [t, s]


def _lookup(table: tf.Tensor, buckets: tf.Tensor) -> tf.Tensor:
    """`[num_buckets, H]` at `[..., t, s]` gives `[..., H, t, s]`, without a transpose.

    Looking a bucket up in each head's row keeps s innermost, as the logits have it.
    """
    rows = tf.gather(tf.transpose(tf.cast(table, tf.float32)), buckets, axis=1)
    if buckets.shape.rank == 2:
        return rows  # [H, t, s]
    return tf.transpose(rows, [1, 0, 2, 3])
