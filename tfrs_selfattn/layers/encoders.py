"""The encoders of the literature, composed from this package's layers.

What a paper does outside of its encoder (loss, negatives, masking of items, towers)
is not here; see `tfrs_selfattn.models.presets`.
"""

from __future__ import annotations

from typing import Any

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers.feed_forward import FeedForward
from tfrs_selfattn.layers.hstu_block import HSTUBlock
from tfrs_selfattn.layers.positions import PositionEmbedding
from tfrs_selfattn.layers.relative_position_bias import RelativePositionBias
from tfrs_selfattn.layers.relative_time_bias import RelativeTimeBias
from tfrs_selfattn.layers.self_attention import MultiHeadSelfAttention
from tfrs_selfattn.layers.sequence_encoder import SequenceEncoder
from tfrs_selfattn.layers.transformer_block import TransformerBlock


def sasrec(
    width: int = 64,
    *,
    num_blocks: int = 2,
    num_heads: int = 1,
    max_length: int = 200,
    dropout: float = 0.2,
    time_aware: bool = False,
    seed: int | None = None,
) -> SequenceEncoder:
    """SASRec: causal, learned positions from the newest item, query-only norms, ReLU.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `1`.
        max_length: int. Longest history. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        time_aware: bool. Add a bias by the time between items to the attention; the
            encoder then needs `timestamps` and `request_times`. Defaults to `False`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.
    """
    key_dim = head_width(width, num_heads)
    check_positive_int("num_blocks", num_blocks)
    blocks = [
        TransformerBlock(
            MultiHeadSelfAttention(
                num_heads,
                key_dim,
                dropout=dropout,
                biases=_time_biases(num_heads, time_aware),
                seed=_seed(seed, index, 1),
            ),
            FeedForward(width, dropout=dropout, seed=_seed(seed, index, 2)),
            norm="query",
            dropout=dropout,
            seed=_seed(seed, index, 3),
        )
        for index in range(num_blocks)
    ]
    return SequenceEncoder(
        blocks,
        position=PositionEmbedding(max_length),
        dropout=dropout,
        scale_inputs=True,
        seed=seed,
    )


def gsasrec(width: int = 64, **options: Any) -> SequenceEncoder:
    """gSASRec: SASRec's encoder; the paper changes the loss (gBCE) and the negatives.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        **options: as of `sasrec`.

    Returns:
        `SequenceEncoder`.

    Raises:
        ValueError: as `sasrec` does.

    References:
        - [Petrov and Macdonald, 2023](https://arxiv.org/abs/2308.07192), section 5.
    """
    return sasrec(width, **options)


def bert4rec(
    width: int = 64,
    *,
    num_blocks: int = 2,
    num_heads: int = 2,
    max_length: int = 200,
    dropout: float = 0.2,
    seed: int | None = None,
) -> SequenceEncoder:
    """BERT4Rec: bidirectional, post-norm, GELU, four times as wide inside, with a head.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `2`.
        max_length: int. Longest history, the mask token included. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Sun et al., 2019](https://arxiv.org/abs/1904.06690), section 3. Positions
          count from the newest item here, so that padding changes nothing.
    """
    key_dim = head_width(width, num_heads)
    check_positive_int("num_blocks", num_blocks)
    blocks = [
        TransformerBlock(
            MultiHeadSelfAttention(
                num_heads,
                key_dim,
                causal=False,
                dropout=dropout,
                seed=_seed(seed, index, 1),
            ),
            FeedForward(
                4 * width,
                activation="gelu",
                dropout=dropout,
                seed=_seed(seed, index, 2),
            ),
            norm="post",
            dropout=dropout,
            seed=_seed(seed, index, 3),
        )
        for index in range(num_blocks)
    ]
    return SequenceEncoder(
        blocks,
        position=PositionEmbedding(max_length),
        dropout=dropout,
        final_norm=False,
        head=keras.layers.Dense(width, "gelu"),
        seed=seed,
    )


def esasrec(
    width: int = 64,
    *,
    num_blocks: int = 2,
    num_heads: int = 2,
    max_length: int = 200,
    dropout: float = 0.2,
    time_aware: bool = False,
    seed: int | None = None,
) -> SequenceEncoder:
    """eSASRec: causal, LiGR gates around attention and SwiGLU.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `2`.
        max_length: int. Longest history. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        time_aware: bool. Add a bias by the time between items to the attention; the
            encoder then needs `timestamps` and `request_times`. Defaults to `False`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Tikhonovich et al., 2025](https://arxiv.org/abs/2508.06450) (eSASRec).
        - [Borisyuk et al., 2025](https://arxiv.org/abs/2502.03417) (LiGR).
    """
    key_dim = head_width(width, num_heads)
    check_positive_int("num_blocks", num_blocks)
    blocks = [
        TransformerBlock(
            MultiHeadSelfAttention(
                num_heads,
                key_dim,
                dropout=dropout,
                biases=_time_biases(num_heads, time_aware),
                seed=_seed(seed, index, 1),
            ),
            FeedForward(
                4 * width,
                activation="silu",
                gated=True,
                dropout=dropout,
                seed=_seed(seed, index, 2),
            ),
            norm="gated",
            dropout=dropout,
            seed=_seed(seed, index, 3),
        )
        for index in range(num_blocks)
    ]
    return SequenceEncoder(
        blocks, position=PositionEmbedding(max_length), dropout=dropout, seed=seed
    )


def hstu(
    width: int = 64,
    *,
    num_blocks: int = 2,
    num_heads: int = 2,
    max_length: int = 200,
    dropout: float = 0.2,
    time_aware: bool = True,
    seed: int | None = None,
) -> SequenceEncoder:
    """HSTU: gated pointwise attention with biases by distance and by time.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `2`.
        max_length: int. Longest history. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        time_aware: bool. Add the time bias; the encoder then needs `timestamps` and
            `request_times`. Defaults to `True`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Zhai et al., 2024](https://arxiv.org/abs/2402.17152), section 3. The distance
          bias has T5's buckets where the authors' code has one for each distance.
    """
    key_dim = head_width(width, num_heads)
    check_positive_int("num_blocks", num_blocks)
    blocks = [
        HSTUBlock(
            num_heads,
            key_dim,
            dropout=dropout,
            biases=[
                RelativePositionBias(num_heads),
                *_time_biases(num_heads, time_aware),
            ],
            seed=_seed(seed, index, 1),
        )
        for index in range(num_blocks)
    ]
    return SequenceEncoder(
        blocks,
        position=PositionEmbedding(max_length),
        dropout=dropout,
        scale_inputs=True,
        final_norm=False,
        seed=seed,
    )


def head_width(width: int, num_heads: int) -> int:
    """The width of each head, when the heads divide the width, else `ValueError`."""
    check_positive_int("width", width)
    check_positive_int("num_heads", num_heads)
    if width % num_heads:
        raise ValueError(
            "`num_heads` must divide the width of the item vectors. Received: "
            f"num_heads={num_heads}, width={width}. Change either."
        )
    return width // num_heads


def _time_biases(num_heads: int, time_aware: bool) -> list[Any]:
    """The biases by time of one block: each block learns its own."""
    return [RelativeTimeBias(num_heads)] if time_aware else []


def _seed(seed: int | None, block: int, layer: int) -> int | None:
    """Every dropout of an encoder has a seed of its own; the encoder has the first."""
    return None if seed is None else seed + 10 * block + layer
