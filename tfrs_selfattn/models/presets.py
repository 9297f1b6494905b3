"""Models of the literature, composed from the package's own parts."""

from __future__ import annotations

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import encoders
from tfrs_selfattn.losses.full_softmax import FullSoftmax
from tfrs_selfattn.models.candidate_tower import CandidateTower
from tfrs_selfattn.models.query_tower import QueryTower
from tfrs_selfattn.models.sequence_retrieval import SequenceRetrieval

_STDDEV = 0.02


def sasrec(
    num_items: int,
    *,
    embedding_dim: int = 64,
    num_blocks: int = 2,
    num_heads: int = 1,
    max_length: int = 200,
    dropout: float = 0.2,
    seed: int | None = None,
) -> SequenceRetrieval:
    """SASRec as a two-tower model: causal self-attention, tied items, full softmax.

    The structure is the paper's: learned positions counted from the newest item, items
    scaled by the square root of their width, blocks that normalize the query only, a
    ReLU feed-forward network as wide as the items, a final norm, and one table for
    history and candidates. The loss is not: full softmax takes the place of the binary
    cross-entropy with one negative, which costs a quarter of the accuracy.

    Args:
        num_items: int. N, the size of the vocabulary.
        embedding_dim: int. D. Defaults to `64`.
        num_blocks: int. Defaults to `2`.
        num_heads: int. H; must divide `embedding_dim`. Defaults to `1`.
        max_length: int. Items of a history that are used. Defaults to `200`.
        dropout: float in [0, 1). Defaults to `0.2`.
        seed: int or None. Of dropout. Defaults to `None`.

    Returns:
        `SequenceRetrieval`, not yet compiled.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781).
        - [Klenitskiy and Vasilev, 2023](https://arxiv.org/abs/2309.07602), the loss.
    """
    num_items = check_positive_int("num_items", num_items)
    embedding_dim = check_positive_int("embedding_dim", embedding_dim)
    encoder = encoders.sasrec(
        embedding_dim,
        num_blocks=num_blocks,
        num_heads=num_heads,
        max_length=max_length,
        dropout=dropout,
        seed=seed,
    )
    items = keras.layers.Embedding(
        num_items + 1,
        embedding_dim,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=_STDDEV),
        name="items",
    )
    return SequenceRetrieval(
        QueryTower(items, encoder, max_length=max_length, name="query_tower"),
        CandidateTower(items, name="candidate_tower"),
        loss=FullSoftmax(),
    )
