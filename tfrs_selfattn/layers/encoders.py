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
    count_from: str = "newest",
    block_size: int | None = None,
    seed: int | None = None,
) -> SequenceEncoder:
    r"""SASRec: causal, learned positions from the newest item, query-only norms, ReLU.

    $N(B_n(\ldots B_1(d(\sqrt{D}\,x + P))))$ with learned positions $P$, dropout $d$, a
    norm $N$, and blocks $B$ of `TransformerBlock`, "query", whose ReLU network is as
    wide as the items.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `1`.
        max_length: int. Longest history. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        time_aware: bool. Add a bias by the time between items to the attention; the
            encoder then needs `timestamps` and `request_times`. Defaults to `False`.
        count_from: str. "newest" gives the last item position 0, "oldest" the first,
            so that an encoded history can be continued event by event
            (`layers.incremental`). Defaults to `"newest"`.
        block_size: int. Attend block against block, for histories of thousands of
            items (`MultiHeadSelfAttention`). Defaults to `None`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`, from float `[B, T, D]` to float `[B, T, D]`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    Example:

    >>> encoders.sasrec(16, num_blocks=1)(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: the authors' code, which has no output projection in the attention, no
    dropout behind it, and needs padding on the left.

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
                block_size=block_size,
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
        position=PositionEmbedding(max_length, count_from=count_from),
        dropout=dropout,
        scale_inputs=True,
        seed=seed,
    )


def gsasrec(width: int = 64, **options: Any) -> SequenceEncoder:
    r"""gSASRec: SASRec's encoder; the paper changes the loss (gBCE) and the negatives.

    The equation is `sasrec`'s.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        **options: as of `sasrec`.

    Returns:
        `SequenceEncoder`, from float `[B, T, D]` to float `[B, T, D]`.

    Raises:
        ValueError: as `sasrec` does.

    Example:

    >>> encoders.gsasrec(16, num_blocks=1)(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: the paper in what `sasrec` differs from SASRec in.

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
    block_size: int | None = None,
    seed: int | None = None,
) -> SequenceEncoder:
    r"""BERT4Rec: bidirectional, post-norm, GELU, four times as wide inside, a head.

    $\mathrm{GELU}(W\,B_n(\ldots B_1(d(x + P))) + b)$ with learned positions $P$,
    dropout $d$, and blocks $B$ of `TransformerBlock`, "post", not causal.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `2`.
        max_length: int. Longest history, the mask token included. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        block_size: int. Attend block against block, for histories of thousands of
            items (`MultiHeadSelfAttention`). Defaults to `None`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`, from float `[B, T, D]` to float `[B, T, D]`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    Example:

    >>> encoders.bert4rec(16, num_blocks=1)(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: the paper, which adds a learned number for each item to the scores, as
    no inner product of two towers can, and counts positions from the oldest item of the
    row: from the newest here, so that padding changes nothing.

    References:
        - [Sun et al., 2019](https://arxiv.org/abs/1904.06690), section 3.
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
                block_size=block_size,
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
    count_from: str = "newest",
    block_size: int | None = None,
    seed: int | None = None,
) -> SequenceEncoder:
    r"""eSASRec: causal, LiGR gates around attention and SwiGLU.

    $N(B_n(\ldots B_1(d(x + P))))$ with learned positions $P$, dropout $d$, a norm $N$,
    and blocks $B$ of `TransformerBlock`, "gated", around
    $W_2(\mathrm{SiLU}(W_1 x) \odot W_3 x)$.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `2`.
        max_length: int. Longest history. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        time_aware: bool. Add a bias by the time between items to the attention; the
            encoder then needs `timestamps` and `request_times`. Defaults to `False`.
        count_from: str. "newest" gives the last item position 0, "oldest" the first,
            so that an encoded history can be continued event by event
            (`layers.incremental`). Defaults to `"newest"`.
        block_size: int. Attend block against block, for histories of thousands of
            items (`MultiHeadSelfAttention`). Defaults to `None`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`, from float `[B, T, D]` to float `[B, T, D]`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    Example:

    >>> encoders.esasrec(16, num_blocks=1)(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: the authors' code, which has no final norm and no biases in the
    feed-forward network. The paper trains with sampled softmax; the preset of this name
    in `models` takes the full softmax unless told otherwise.

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
                block_size=block_size,
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
        blocks,
        position=PositionEmbedding(max_length, count_from=count_from),
        dropout=dropout,
        seed=seed,
    )


def hstu(
    width: int = 64,
    *,
    num_blocks: int = 2,
    num_heads: int = 2,
    max_length: int = 200,
    dropout: float = 0.2,
    time_aware: bool = True,
    count_from: str = "newest",
    block_size: int | None = None,
    seed: int | None = None,
) -> SequenceEncoder:
    r"""HSTU: gated pointwise attention with biases by distance and by time.

    $B_n(\ldots B_1(d(\sqrt{D}\,x + P)))$ with learned positions $P$, dropout $d$, and
    blocks $B$ of `HSTUBlock`, biased by distance and, if `time_aware`, by time.

    Args:
        width: int. D, the width of the item vectors. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `width`. Defaults to `2`.
        max_length: int. Longest history. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        time_aware: bool. Add the time bias; the encoder then needs `timestamps` and
            `request_times`. Defaults to `True`.
        count_from: str. "newest" gives the last item position 0, "oldest" the first,
            so that an encoded history can be continued event by event
            (`layers.incremental`). Defaults to `"newest"`.
        block_size: int. Attend block against block, for histories of thousands of
            items (`HSTUBlock`). Defaults to `None`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceEncoder`, from float `[B, T, D]` to float `[B, T, D]`.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    Example:

    >>> encoder = encoders.hstu(16, num_blocks=1, time_aware=False)
    >>> encoder(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: the authors' code, which has one bias for each distance, where T5's
    buckets are here, biases that heads share, and what `HSTUBlock` and
    `RelativeTimeBias` name.

    References:
        - [Zhai et al., 2024](https://arxiv.org/abs/2402.17152), section 3.
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
            block_size=block_size,
            seed=_seed(seed, index, 1),
        )
        for index in range(num_blocks)
    ]
    return SequenceEncoder(
        blocks,
        position=PositionEmbedding(max_length, count_from=count_from),
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
