"""Leave-one-out occlusion: the score with an item of the history, and without it.

Not for attention weights (`rollout`), which say where a model looked and not what that
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

# From histories int [M, T], items int [M] and, for a time-aware model, timestamps
# int64 [M, T] and request times int64 [M], to scores float32 [M].
Score: TypeAlias = Callable[..., tf.Tensor]

# Rows are encoded in pieces of so many positions: memory does not grow with the batch,
# and the pieces stay in the processor's cache.
_POSITIONS_AT_ONCE = 32_768


def leave_one_out(
    score: Score,
    history: tf.Tensor,
    item: tf.Tensor,
    *times: tf.Tensor,
) -> tf.Tensor:
    r"""How much the score of an item falls when one item of the history is taken away.

    $c_t = s(h, i) - s(h \setminus h_t, i)$, exact for the model as it answers: the
    history without the item is scored as a server would score it, with an older item
    moving up where the history is longer than the model reads. An item that stands
    twice in the history is taken away once. The contributions are no shares of a
    whole: two items that say the same can both be missed little.

    Args:
        score: function from histories int `[M, T]`, items int `[M]` and the times of
            the model, if it takes any, to scores float32 `[M]`. 0 in a history is
            padding, wherever it stands.
        history: int `[B, T]`, 0 = padding.
        item: int `[B]`. The item whose score is explained.
        *times: for a time-aware model int64 `[B, T]`, the times of the history, and
            int64 `[B]`, those of the requests.

    Returns:
        float32 `[B, T]`, 0 at padding. Positive where the item speaks for the one that
        is explained.

    Serving: stock TF ops only; B and T may be dynamic. Costs one more history for each
    real item.

    Example:

    >>> history = tf.constant([[1, 2, 4]])
    >>> def score(history, item):
    ...     return tf.cast(tf.reduce_sum(history, axis=1) * item, tf.float32)
    >>> leave_one_out(score, history, tf.constant([10])).numpy()
    array([[10., 20., 40.]], dtype=float32)

    References:
        - [Li, Monroe and Jurafsky, 2016](https://arxiv.org/abs/1612.08220), erasure.
    """
    whole = tf.cast(score(history, item, *times), tf.float32)  # [B]
    places = tf.cast(tf.where(history != 0), tf.int32)  # [M, 2]
    count = tf.shape(places)[0]
    width = tf.shape(history)[1]
    step = tf.maximum(_POSITIONS_AT_ONCE // tf.maximum(width, 1), 1)

    def piece(start: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        some = places[start : start + step]  # [m, 2]
        rows = some[:, 0]
        removed = tf.range(width) == some[:, 1:]  # [m, T]
        without = tf.gather(history, rows)
        without = tf.where(removed, tf.zeros_like(without), without)
        scores = score(
            without, tf.gather(item, rows), *(tf.gather(time, rows) for time in times)
        )
        change = tf.gather(whole, rows) - tf.cast(scores, tf.float32)
        return start + step, tf.tensor_scatter_nd_update(found, some, change)

    _, contribution = tf.while_loop(
        lambda start, found: start < count,
        piece,
        [tf.constant(0), tf.zeros(tf.shape(history), tf.float32)],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, None])],
        parallel_iterations=1,  # each is as wide as the machine; more only take memory
    )
    contribution = tf.ensure_shape(contribution, history.shape)
    return contribution
