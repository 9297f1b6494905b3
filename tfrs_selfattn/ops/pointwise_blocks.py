"""Pointwise attention whose memory grows with T: the blocks of `blockwise.py`, SiLU.

Shape alphabet: B users, T positions, H heads, K head width, b block size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn.ops.blockwise import Blockwise, join


class PointwiseBlocks(Blockwise):
    """Sums of a row over its blocks, divided by the number of keys that it sees."""

    def _forward(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        parameters: Sequence[tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Output `[B, H, T, K]`, and the keys that each row sees, `[B, H, T, 1]`."""

        def rows(row: tf.Tensor, outputs: Any, counts: Any) -> tuple[Any, ...]:
            queries = self._block(query, row)
            first, last = self._key_blocks(row)

            def columns(
                column: tf.Tensor, count: tf.Tensor, mixed: tf.Tensor
            ) -> tuple[tf.Tensor, ...]:
                keys, values = self._block(key, column), self._block(value, column)
                positions = self._positions(row, column)
                logits, mask = self._logits(queries, keys, parameters, positions)
                weights = tf.where(mask, tf.nn.silu(logits), 0.0)
                seen = tf.matmul(tf.cast(weights, self._dtype), values)
                number = tf.reduce_sum(tf.cast(mask, tf.float32), -1, keepdims=True)
                return column + 1, count + number, mixed + tf.cast(seen, tf.float32)

            blank = tf.zeros_like(queries, tf.float32)
            _, count, mixed = tf.while_loop(
                lambda column, *_: column < last,
                columns,
                (first, blank[..., :1], blank),
                parallel_iterations=1,
            )
            count = tf.maximum(count, 1.0)
            outputs = outputs.write(row, tf.cast(mixed / count, self._dtype))
            return row + 1, outputs, counts.write(row, count)

        _, outputs, counts = tf.while_loop(
            lambda row, *_: row < self._count,
            rows,
            (0, self._array(query), self._array(query[..., :1], tf.float32)),
            parallel_iterations=1,
        )
        return join(outputs, query), join(counts, query[..., :1])

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
