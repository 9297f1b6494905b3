"""Models of the literature, composed from the package's own parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn._keras import keras
from tfrs_selfattn.features.feature_set import FeatureSet
from tfrs_selfattn.layers import encoders
from tfrs_selfattn.losses.masked_items import MaskedItems
from tfrs_selfattn.losses.named import NamedLoss
from tfrs_selfattn.models.candidate_tower import CandidateTower
from tfrs_selfattn.models.content_embedding import ContentEmbedding, ItemContent
from tfrs_selfattn.models.feature_projection import FeatureProjection
from tfrs_selfattn.models.query_tower import QueryTower
from tfrs_selfattn.models.sequence_retrieval import SequenceRetrieval

_STDDEV = 0.02
_NORMALIZED_TEMPERATURE = 0.05


def sasrec(
    num_items: int,
    *,
    embedding_dim: int = 64,
    num_blocks: int = 2,
    num_heads: int = 1,
    max_length: int = 200,
    dropout: float = 0.2,
    time_aware: bool = False,
    normalize: bool = False,
    temperature: float | None = None,
    loss: Any = None,
    content: ItemContent | None = None,
    id_dropout: float = 0.0,
    oov_buckets: int = 0,
    own_ids: int | None = None,
    share_items: bool = True,
    query_features: FeatureSet | None = None,
    event_features: FeatureSet | None = None,
    item_counts: Sequence[int] | None = None,
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
        time_aware: bool. Bias attention by the time between an item and the request;
            the model then needs timestamps. Defaults to `False`.
        normalize: bool. L2-normalize queries and candidates, in training as in use.
            Defaults to `False`.
        temperature: float above 0, by which the loss divides scores. None takes 0.05
            with `normalize`, else 1. Defaults to `None`.
        loss: `NamedLoss`, or a next-item loss with a temperature of its own, instead
            of the preset's. Defaults to `None`.
        content: `ItemContent`, what is known of the items, or None for ids alone.
            Defaults to `None`.
        id_dropout: float in [0, 1). Share of the items that a training step knows by
            their content alone. Defaults to `0.0`.
        oov_buckets: int. Vectors for ids that are new; see `ContentEmbedding`. Defaults
            to `0`.
        own_ids: int or None. Items with a vector of their own id, the most frequent;
            the others share `oov_buckets`. Defaults to `None`, for all.
        share_items: bool. One table for history and candidates. Defaults to `True`.
        query_features: `FeatureSet` of users and requests, fitted. Defaults to `None`.
        event_features: `FeatureSet` of events, fitted. Defaults to `None`.
        item_counts: sequence of N ints, the training events of each item; needed by a
            `NamedLoss` that draws by them. Defaults to `None`.
        seed: int or None. Of dropout, and of what the loss draws. Defaults to `None`.

    Returns:
        `SequenceRetrieval`, not yet compiled.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781).
        - [Klenitskiy and Vasilev, 2023](https://arxiv.org/abs/2309.07602), the loss.
    """
    return _two_towers(
        encoders.sasrec,
        num_items,
        embedding_dim=embedding_dim,
        num_blocks=num_blocks,
        num_heads=num_heads,
        max_length=max_length,
        dropout=dropout,
        time_aware=time_aware,
        normalize=normalize,
        temperature=temperature,
        loss=loss,
        content=content,
        id_dropout=id_dropout,
        oov_buckets=oov_buckets,
        own_ids=own_ids,
        share_items=share_items,
        query_features=query_features,
        event_features=event_features,
        item_counts=item_counts,
        seed=seed,
    )


def gsasrec(num_items: int, **options: Any) -> SequenceRetrieval:
    """gSASRec as a two-tower model: SASRec's structure, trained on sampled negatives.

    The loss is the paper's: generalised binary cross-entropy over 256 uniform
    negatives, calibrated by 0.75. Full softmax measures better where it is affordable.

    Args:
        num_items: int. N, the size of the vocabulary.
        **options: as of `sasrec`.

    Returns:
        `SequenceRetrieval`, not yet compiled.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Petrov and Macdonald, 2023](https://arxiv.org/abs/2308.07192).
    """
    return _two_towers(
        encoders.gsasrec, num_items, default_loss=NamedLoss("gbce"), **options
    )


def esasrec(
    num_items: int,
    *,
    embedding_dim: int = 128,
    num_heads: int = 4,
    dropout: float = 0.1,
    **options: Any,
) -> SequenceRetrieval:
    """eSASRec as a two-tower model: LiGR gates around attention and SwiGLU.

    The paper trains with sampled softmax, the default here is the full one:
    `loss=NamedLoss("sampled-softmax")` is closer to it. What else differs is in
    `layers.encoders.esasrec`.

    Width, heads and dropout are those that measured best on MovieLens-1M.

    Args:
        num_items: int. N, the size of the vocabulary.
        embedding_dim: int. D. Defaults to `128`.
        num_heads: int. H; must divide `embedding_dim`. Defaults to `4`.
        dropout: float in [0, 1). Defaults to `0.1`.
        **options: as of `sasrec`.

    Returns:
        `SequenceRetrieval`, not yet compiled.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Tikhonovich et al., 2025](https://arxiv.org/abs/2508.06450).
    """
    return _two_towers(
        encoders.esasrec,
        num_items,
        embedding_dim=embedding_dim,
        num_heads=num_heads,
        dropout=dropout,
        **options,
    )


def bert4rec(
    num_items: int, *, num_heads: int = 2, loss: Any = None, **options: Any
) -> SequenceRetrieval:
    """BERT4Rec as a two-tower model: attention both ways, a token for the next item.

    Training hides items and guesses them. The token stands behind the newest item when
    recommending, and takes a position of its own, so `max_length` counts items only.
    The paper adds a learned number for each item to the scores; an inner product of two
    towers has none.

    Args:
        num_items: int. N, the size of the vocabulary.
        num_heads: int. H; must divide `embedding_dim`. Defaults to `2`.
        loss: loss of the hidden items or a name of one, or `MaskedItems` around one.
            None takes full softmax. Defaults to `None`.
        **options: as of `sasrec`, but for `time_aware`.

    Returns:
        `SequenceRetrieval`, not yet compiled.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Sun et al., 2019](https://arxiv.org/abs/1904.06690).
    """

    def hiding(loss: Any, seed: int | None) -> Any:
        return loss if isinstance(loss, MaskedItems) else MaskedItems(loss, seed=seed)

    return _two_towers(
        encoders.bert4rec,
        num_items,
        num_heads=num_heads,
        query_token=True,
        loss=loss,
        wrap=hiding,
        **options,
    )


def hstu(
    num_items: int, *, num_heads: int = 2, time_aware: bool = True, **options: Any
) -> SequenceRetrieval:
    """HSTU as a two-tower model: pointwise attention, biased by distance and time.

    Args:
        num_items: int. N, the size of the vocabulary.
        num_heads: int. H; must divide `embedding_dim`. Defaults to `2`.
        time_aware: bool. Use timestamps and request times. Defaults to `True`.
        **options: as of `sasrec`.

    Returns:
        `SequenceRetrieval`, not yet compiled.

    Raises:
        ValueError: when an argument is out of range or the heads do not divide D.

    References:
        - [Zhai et al., 2024](https://arxiv.org/abs/2402.17152).
    """
    return _two_towers(
        encoders.hstu, num_items, num_heads=num_heads, time_aware=time_aware, **options
    )


def build(preset: str, num_items: int, **options: Any) -> SequenceRetrieval:
    """The model of a preset, by name.

    Args:
        preset: str, the name of a function above.
        num_items: int. N, the size of the vocabulary.
        **options: of that function.

    Returns:
        `SequenceRetrieval`, not yet compiled.

    Raises:
        ValueError: when there is no such preset, or an argument is out of range.
    """
    return _BY_NAME[check_choice("preset", preset, tuple(_BY_NAME))](
        num_items, **options
    )


_BY_NAME: dict[str, Callable[..., SequenceRetrieval]] = {
    function.__name__: function
    for function in (sasrec, gsasrec, esasrec, bert4rec, hstu)
}


_FULL_SOFTMAX = NamedLoss("full-softmax")


def _two_towers(
    make_encoder: Callable[..., Any],
    num_items: int,
    *,
    embedding_dim: int = 64,
    max_length: int = 200,
    normalize: bool = False,
    temperature: float | None = None,
    loss: Any = None,
    seed: int | None = None,
    query_token: bool = False,
    default_loss: NamedLoss = _FULL_SOFTMAX,
    wrap: Callable[[Any, int | None], Any] | None = None,
    content: ItemContent | None = None,
    id_dropout: float = 0.0,
    oov_buckets: int = 0,
    own_ids: int | None = None,
    share_items: bool = True,
    query_features: FeatureSet | None = None,
    event_features: FeatureSet | None = None,
    item_counts: Sequence[int] | None = None,
    **encoder_options: Any,
) -> SequenceRetrieval:
    """What all presets have in common: one table of items, two towers, a loss."""
    num_items = check_positive_int("num_items", num_items)
    embedding_dim = check_positive_int("embedding_dim", embedding_dim)
    max_length = check_positive_int("max_length", max_length)
    if loss is None:
        loss = default_loss
    if isinstance(loss, NamedLoss):
        if temperature is None:
            temperature = _NORMALIZED_TEMPERATURE if normalize else 1.0
        loss = loss.build(temperature, _loss_seed(seed), item_counts)
    elif temperature is not None:
        raise ValueError(
            "`temperature` must be None when a loss is given, which has its own. "
            f"Received: temperature={temperature}. Give it to the loss."
        )
    if wrap is not None:
        loss = wrap(loss, _loss_seed(seed))
    if content is None and (id_dropout or oov_buckets or own_ids is not None):
        raise ValueError(
            "`id_dropout`, `oov_buckets` and `own_ids` need `content`: without an id, "
            "items that are known by nothing else are nothing. Received: id_dropout="
            f"{id_dropout}, oov_buckets={oov_buckets}, own_ids={own_ids}, content=None."
            " Give the items features."
        )

    def table(name: str, seed: int | None) -> Any:
        if content is None:
            normal = keras.initializers.RandomNormal(stddev=_STDDEV)
            return keras.layers.Embedding(
                num_items + 1, embedding_dim, embeddings_initializer=normal, name=name
            )
        return ContentEmbedding.for_content(
            content,
            embedding_dim,
            id_dropout=id_dropout,
            oov_buckets=oov_buckets,
            own_ids=own_ids,
            seed=seed,
            name=name,
        )

    items = table("items", _loss_seed(seed, 8))
    candidate_items = items
    if not share_items:
        candidate_items = table("candidate_items", _loss_seed(seed, 7))
    encoder = make_encoder(
        embedding_dim,
        max_length=max_length + query_token,
        seed=seed,
        **encoder_options,
    )
    tower = QueryTower(
        items,
        encoder,
        max_length=max_length,
        normalize=normalize,
        query_token=query_token,
        query_projection=_projection(query_features, embedding_dim, "query_features"),
        event_projection=_projection(event_features, embedding_dim, "event_features"),
        name="query_tower",
    )
    candidates = CandidateTower(
        candidate_items, normalize=normalize, name="candidate_tower"
    )
    return SequenceRetrieval(tower, candidates, loss=loss)


def _projection(features: FeatureSet | None, width: int, name: str) -> Any:
    return None if features is None else FeatureProjection(features, width, name=name)


def _loss_seed(seed: int | None, apart: int = 9) -> int | None:
    """A seed that no dropout of the encoder has."""
    return None if seed is None else seed + apart
