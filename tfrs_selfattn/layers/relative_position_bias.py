"""A learned bias by distance between positions (T5)."""

from __future__ import annotations

from typing import Any

from tfrs_selfattn._checks import check_flag, check_positive_int
from tfrs_selfattn._keras import register
from tfrs_selfattn.layers._bias import BiasLayer
from tfrs_selfattn.ops.biases import AttentionBias, DistanceBias


@register
class RelativePositionBias(BiasLayer):
    r"""Adds to each logit a learned number for its bucket of the distance t - s.

    $p_{ts} = W_{b(t - s), h}$ with T5's buckets: of n buckets, $e = \lfloor n / 2
    \rfloor$ near distances have one each, and far ones share the rest, up to the
    distance m,

    $$b(d) = \begin{cases} \max(d, 0) & d < e \\
      \min\left(n - 1,\; e + \left\lfloor (n - e)\,
      \frac{\ln(d / e)}{\ln(m / e)} \right\rfloor\right) & d \ge e \end{cases}$$

    With `bidirectional`, n is half of `num_buckets`, and $b(|d|) + n$ is the bucket of
    a key newer than the query, $d < 0$.

    Args:
        num_heads: int. H, that of the attention it is given to.
        num_buckets: int. Defaults to `32`.
        max_distance: int. From here on distances share the last bucket. Defaults to
            `128`.
        bidirectional: bool. Keep half of the buckets for keys newer than the query;
            for attention that is not causal. Defaults to `False`.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`, for their T only.
        timestamps: taken as every bias takes them, and not used.
        request_times: likewise.

    Returns:
        float32 `[1, H, T, T]`. `MultiHeadSelfAttention(biases=[…])` draws it by blocks.

    Raises:
        ValueError: when an argument is out of range.

    Example:

    >>> bias = RelativePositionBias(num_heads=2)
    >>> bias(tf.zeros([3, 5, 16])).shape
    TensorShape([1, 2, 5, 5])

    Differs from: Keras, whose attention takes no bias. From T5, where all blocks share
    one table and logits are not divided by $\sqrt{K}$: here each attention has its own,
    and they are. From HSTU's code, which has a number for each distance.

    References:
        - [Raffel et al., 2020](https://arxiv.org/abs/1910.10683), section 2.1.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, **kwargs)
        self.num_buckets = check_positive_int("num_buckets", num_buckets)
        self.max_distance = check_positive_int("max_distance", max_distance)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        if self.bidirectional and self.num_buckets < 2:
            raise ValueError(
                "`num_buckets` must be at least 2 with `bidirectional`, one for each "
                f"direction. Received: num_buckets={num_buckets}. Use for example 32."
            )
        if self.max_distance <= max(self.num_buckets // 2, 1):
            raise ValueError(
                "`max_distance` must exceed 1 and half of `num_buckets`, the distances "
                f"that have a bucket each. Received: max_distance={max_distance}, "
                f"num_buckets={num_buckets}. Use fewer buckets or a larger distance."
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "bidirectional": self.bidirectional,
        }

    def build(self, input_shape: Any = None) -> None:
        self.build_table(self.num_buckets)
        self.built = True

    def blocks(
        self, timestamps: Any = None, request_times: Any = None
    ) -> AttentionBias:
        return DistanceBias(self.table(), self.max_distance, self.bidirectional)
