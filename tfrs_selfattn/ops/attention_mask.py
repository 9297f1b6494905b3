"""What may attend to what, kept as its parts so that any block of it can be drawn.

The whole mask of a row is T * S booleans; the parts are T. Attention draws the blocks
it is working on, and the long form never holds more than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_flag, optional_positive


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

    Raises:
        ValueError: when `window` is not positive, `causal` no bool, a mask not bool, or
            segment ids are no integers.
    """

    padding: tf.Tensor | None = None
    segment_ids: tf.Tensor | None = None
    allowed: tf.Tensor | None = None
    causal: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        check_flag("causal", self.causal)
        optional_positive("window", self.window)
        for name in ("padding", "allowed"):
            part = getattr(self, name)
            if part is not None and dtype_of(part) != tf.bool:
                raise ValueError(
                    f"`{name}` must be bool, True = may be attended to. Received: "
                    f"dtype={dtype_of(part).name}. Use for example ids != 0."
                )
        if self.segment_ids is not None and not dtype_of(self.segment_ids).is_integer:
            raise ValueError(
                "`segment_ids` must be integers, 0 for padding. Received: dtype="
                f"{dtype_of(self.segment_ids).name}. Number the users of each row "
                "1, 2, … as int32."
            )

    @property
    def may_hide_all(self) -> bool:
        """Whether some position may be left with nothing to attend to."""
        # A window alone hides all where there are fewer keys than queries.
        parts = (self.padding, self.segment_ids, self.allowed, self.window)
        return any(part is not None for part in parts)

    def block(self, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor | None:
        """The mask of some positions, int `[t]`, over some keys, int `[s]`.

        Returns:
            bool, broadcastable to `[B, t, s]`; None when nothing is hidden.
        """
        parts: list[tf.Tensor] = []
        if self.causal or self.window is not None:
            distance = rows[:, tf.newaxis] - columns[tf.newaxis, :]  # [t, s]
            if self.causal:
                parts.append((distance >= 0)[tf.newaxis])
            if self.window is not None:
                parts.append((tf.abs(distance) < self.window)[tf.newaxis])
        if self.segment_ids is not None:
            own = positions_of(self.segment_ids, rows, 1)[:, :, tf.newaxis]
            other = positions_of(self.segment_ids, columns, 1)[:, tf.newaxis, :]
            parts.append(tf.logical_and(own == other, other != 0))
        if self.padding is not None:
            parts.append(positions_of(self.padding, columns, 1)[:, tf.newaxis, :])
        if self.allowed is not None:
            parts.append(self._allowed(rows, columns))
        if not parts:
            return None
        combined = parts[0]
        for part in parts[1:]:
            combined = tf.logical_and(combined, part)
        return combined

    def _allowed(self, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        """The arbitrary mask at these positions, of rank 3."""
        allowed = tf.convert_to_tensor(self.allowed)
        if allowed.shape.rank == 2:
            allowed = allowed[tf.newaxis]
        if allowed.shape[1] != 1:
            allowed = positions_of(allowed, rows, 1)
        if allowed.shape[2] != 1:
            allowed = positions_of(allowed, columns, 2)
        return allowed


def dtype_of(values: Any) -> tf.DType:
    """The dtype of a tensor, or of what would be made one."""
    if not hasattr(values, "dtype"):
        values = tf.convert_to_tensor(values)
    return tf.as_dtype(values.dtype)


def positions_of(tensor: tf.Tensor, positions: tf.Tensor, axis: int) -> tf.Tensor:
    """A tensor at some positions of an axis; those past the end repeat the last.

    Blocks of one size run past the end of a row. A gather, unlike a slice, has a
    static shape wherever it starts, which XLA asks for.
    """
    last = tf.shape(tensor)[axis] - 1
    return tf.gather(tensor, tf.minimum(positions, last), axis=axis)
