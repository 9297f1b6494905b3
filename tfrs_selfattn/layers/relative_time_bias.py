"""A learned bias by the time between two events (HSTU)."""

from __future__ import annotations

from typing import Any

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import register
from tfrs_selfattn.layers._bias import BiasLayer, check_times
from tfrs_selfattn.ops.biases import AttentionBias, TimeBias


@register
class RelativeTimeBias(BiasLayer):
    r"""Adds to each logit a learned number for its bucket of elapsed time.

    $p_{ts} = W_{b(\tau_t - t_s), h}$ with
    $b(\Delta) = \lfloor \ln(\max(1, |\Delta|)) / 0.301 \rfloor$, where $t_s$ is the
    time of event s and $\tau_t$ the moment at which the item after position t was, or
    is, asked for.

    Args:
        num_heads: int. H, that of the attention it is given to.
        num_buckets: int. Defaults to `128`, which never fills up: 64 buckets hold
            seven years.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`, for their T only.
        timestamps: int64 `[B, T]`. Unix seconds of the events.
        request_times: int64 `[B, T]`. Unix seconds of $\tau_t$: in training the time
            of the next event, at the newest position the time of the request.

    Returns:
        float32 `[B, H, T, T]`. `MultiHeadSelfAttention(biases=[…])` draws it by blocks.

    Raises:
        ValueError: when an argument is out of range or times are missing.

    Example:

    >>> times = tf.constant([[10, 20, 90]], tf.int64)
    >>> bias = RelativeTimeBias(num_heads=2)
    >>> bias(tf.zeros([1, 3, 8]), timestamps=times, request_times=times + 5).shape
    TensorShape([1, 2, 3, 3])

    Differs from: Keras, whose attention takes no bias. From HSTU's code, where heads
    share a table, the buckets end at 128 and not at 127, and the newest event stands in
    for the request, whose time it does not know. From TiSASRec, which adds learned
    vectors of intervals, scaled by the user's shortest one, to keys and values.

    References:
        - [Zhai et al., 2024](https://arxiv.org/abs/2402.17152) (HSTU), section 3.1,
          and the authors' code for the bucket.
        - [Li et al., 2020](https://doi.org/10.1145/3336191.3371786) (TiSASRec).
    """

    needs_times = True

    def __init__(
        self, num_heads: int, *, num_buckets: int = 128, **kwargs: Any
    ) -> None:
        super().__init__(num_heads, **kwargs)
        self.num_buckets = check_positive_int("num_buckets", num_buckets)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_buckets": self.num_buckets}

    def build(self, input_shape: Any = None) -> None:
        self.build_table(self.num_buckets)
        self.built = True

    def blocks(
        self, timestamps: Any = None, request_times: Any = None
    ) -> AttentionBias:
        check_times(self, timestamps, request_times)
        return TimeBias(self.table(), timestamps, request_times)
