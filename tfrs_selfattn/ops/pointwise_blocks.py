"""Pointwise attention whose memory grows with T: the blocks of `blockwise.py`, SiLU.

Shape alphabet: B users, T positions, H heads, K head width, b block size.
"""

from __future__ import annotations

import tensorflow as tf

from tfrs_selfattn.ops.blockwise import Blockwise


class PointwiseBlocks(Blockwise):
    """Sums of a row over its blocks, divided by the number of keys that it sees."""

    def _begin(self, queries: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """No key seen, `[B, H, b, 1]`, and no value, `[B, H, b, K]`."""
        blank = tf.zeros_like(queries, tf.float32)
        return blank[..., :1], blank

    def _add(
        self,
        sums: tuple[tf.Tensor, ...],
        logits: tf.Tensor,
        mask: tf.Tensor,
        values: tf.Tensor,
        row: tf.Tensor,
        column: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        count, mixed = sums
        weights = tf.where(mask, tf.nn.silu(logits), 0.0)
        seen = tf.matmul(tf.cast(weights, self._dtype), values)
        number = tf.reduce_sum(tf.cast(mask, tf.float32), -1, keepdims=True)
        return count + number, mixed + tf.cast(seen, tf.float32)

    def _finish(self, *sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.maximum(sums[0], 1.0)
        return sums[1] / count, count

    def _weights(
        self, logits: tf.Tensor, mask: tf.Tensor, statistic: tf.Tensor
    ) -> tf.Tensor:
        return tf.where(mask, tf.nn.silu(logits), 0.0) / statistic

    def _logit_slope(
        self,
        logits: tf.Tensor,
        mask: tf.Tensor,
        weights: tf.Tensor,
        weight_slope: tf.Tensor,
        of_row: tuple[tf.Tensor, tf.Tensor],
    ) -> tf.Tensor:
        sigmoid = tf.sigmoid(logits)
        slope = sigmoid * (1.0 + logits * (1.0 - sigmoid))  # of SiLU
        return tf.where(mask, slope * weight_slope / of_row[0], 0.0)
