"""What may attend to what, kept as its parts so that any block of it can be drawn.

The whole mask of a row is T * S booleans; the parts are T. Attention draws the blocks
it is working on, and the long form never holds more than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Bound = Any  # an int or a scalar int32 tensor


@dataclass(frozen=True)
class AttentionMask:
    """The conjunction of everything that is given; True = may attend.

    Args:
        padding: bool `[B, S]`, True = real item; hides padding as a key.
        segment_ids: int `[B, T]`; attention never crosses a segment, 0 is padding.
        allowed: bool, broadcastable to `[B, T, S]`, an arbitrary further mask.
        causal: bool. Position t attends to positions s <= t only.
        window: int. Position t attends to positions with |t - s| < window only, so a
            causal window of 1 sees itself. None hides nothing.
    """

    padding: tf.Tensor | None = None
    segment_ids: tf.Tensor | None = None
    allowed: tf.Tensor | None = None
    causal: bool = False
    window: int | None = None

    @property
    def may_hide_all(self) -> bool:
        """Whether some position may be left with nothing to attend to."""
        parts = (self.padding, self.segment_ids, self.allowed)
        return any(part is not None for part in parts)

    def block(
        self, start: Bound, stop: Bound, key_start: Bound, key_stop: Bound
    ) -> tf.Tensor | None:
        """The mask of positions `start:stop` over keys `key_start:key_stop`.

        Returns:
            bool, broadcastable to `[B, stop - start, key_stop - key_start]`; None when
            nothing is hidden.
        """
        parts: list[tf.Tensor] = []
        if self.causal or self.window is not None:
            rows = tf.range(start, stop)[:, tf.newaxis]
            columns = tf.range(key_start, key_stop)[tf.newaxis, :]
            distance = rows - columns  # [t, s]
            if self.causal:
                parts.append((distance >= 0)[tf.newaxis])
            if self.window is not None:
                parts.append((tf.abs(distance) < self.window)[tf.newaxis])
        if self.segment_ids is not None:
            own = self.segment_ids[:, start:stop, tf.newaxis]
            other = self.segment_ids[:, tf.newaxis, key_start:key_stop]
            parts.append(tf.logical_and(own == other, other != 0))
        if self.padding is not None:
            parts.append(self.padding[:, tf.newaxis, key_start:key_stop])
        if self.allowed is not None:
            rows, columns = self.allowed.shape[-2:]
            parts.append(
                self.allowed[
                    ...,
                    slice(None) if rows == 1 else slice(start, stop),
                    slice(None) if columns == 1 else slice(key_start, key_stop),
                ]
            )
        if not parts:
            return None
        combined = parts[0]
        for part in parts[1:]:
            combined = tf.logical_and(combined, part)
        return combined
