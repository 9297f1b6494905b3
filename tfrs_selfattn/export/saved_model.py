"""Writes a trained model as a version that TensorFlow Serving can load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn._keras import require_legacy_keras
from tfrs_selfattn.export import checks, manifest, versions
from tfrs_selfattn.export.item_side import item_side_of
from tfrs_selfattn.export.live import Live
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.export.requests import sample
from tfrs_selfattn.export.searching import as_index
from tfrs_selfattn.export.signatures import shared
from tfrs_selfattn.export.writing import PARTS, Export, Items, Settings, write
from tfrs_selfattn.features.encoder import FeatureEncoder

require_legacy_keras("tfrs_selfattn.export.export_recommender")


def export_recommender(
    model: Any,
    base: str | os.PathLike[str],
    *,
    vocabulary: checks.VocabularyLike,
    k: int = 100,
    version: int | None = None,
    keep_seen: bool = False,
    index: Any = "exact",
    xla: bool = False,
    parts: str = "all",
    titles: Mapping[str, str] | None = None,
    metrics: Any = None,
    source: Any = None,
    notes: str | None = None,
    sample_histories: Sequence[Sequence[str]] | None = None,
    verify: bool = True,
) -> Export:
    """Exports a retrieval model as `<base>/<version>/`, raw item ids in and out.

    The SavedModel holds the query tower, the vocabulary, an index and the popularity
    of the items, in stock TensorFlow operations. Its signatures are those of
    `tfrs_selfattn.export.signatures`. The model needs no call before, and neither its
    optimizer nor its loss or metrics are saved.

    A version appears under its name whole or not at all, also if this process is
    killed, and no other version is touched. Before, it is reloaded in a process that
    imports only TensorFlow, and what it answers is compared with the model.

    Args:
        model: `SequenceRetrieval`, or a model with its `query_tower`,
            `candidate_tower` and `score`.
        base: folder of the versions; made if need be.
        vocabulary: `tfrs_selfattn.data.Vocabulary`. Its counts make the popularity that
            answers an empty history, or one of unknown items only.
        k: int. Columns of an answer; may exceed the number of items. Defaults to
            `100`.
        version: int or None. None takes the highest version plus 1. Defaults to `None`.
        keep_seen: bool. Answer with items of the history too. Defaults to `False`.
        index: str or `PartitionedTopK`. `"exact"` scores every item; `"partitioned"`
            looks at the most promising ones, for large catalogues. A layer lends its
            settings, such as those that `tune` found. Defaults to `"exact"`.
        xla: bool. Let XLA compile the search of a partitioned index: faster, and only
            for a server with `--xla_cpu_compilation_enabled`. Defaults to `False`.
        parts: str. `"all"`; `"query"` for the query tower alone, with the signature
            `embed_query`; `"index"` for the items alone, with `search` and
            `embed_item`, and all vectors in `assets.extra/embeddings.parquet`.
            Defaults to `"all"`.
        titles: mapping from item id to title, or None. Written for people to read; the
            model does not use them. Defaults to `None`.
        metrics: what JSON can hold. Written to `recommender.json`. Defaults to `None`.
        source: likewise, where the model comes from. Defaults to `None`.
        notes: str or None. Markdown that the model card, `assets.extra/model_card.md`,
            ends with: who answers for the model, its licence, what else must be known.
            Defaults to `None`.
        sample_histories: list of lists of item ids to verify with, or None for ones
            made from the vocabulary. Defaults to `None`.
        verify: bool. Compare answers before publishing. Defaults to `True`.

    Returns:
        `Export`.

    Raises:
        InputError: when `base` cannot be written to, the version exists, or vocabulary
            and model do not fit.
        ExportError: when the export answers other than the model; nothing is left of
            it.

    Example:

    >>> import tempfile
    >>> vocabulary = Vocabulary(("tea", "milk", "salt"), np.array([7, 5, 2]))
    >>> model = presets.sasrec(num_items=3, embedding_dim=8, max_length=10)
    >>> base = tempfile.mkdtemp()
    >>> export_recommender(model, base, vocabulary=vocabulary, verify=False).version
    1
    >>> [item.id for item in load_recommender(base).recommend([[]])[0]]
    ['tea', 'milk', 'salt']
    """
    k = check_positive_int("k", k)
    base = Path(base)
    version = versions.check_new_version(base, version)
    manifest.check_json(metrics=metrics, source=source, notes=notes)
    ids = checks.checked_ids(vocabulary.ids)
    candidates = checks.candidates_of(model, len(ids))
    time_aware = bool(getattr(model.query_tower, "time_aware", False))
    side = item_side_of(model)
    settings = Settings(
        k=k,
        keep_seen=bool(keep_seen),
        index=as_index(index, k=k, xla=xla),
        parts=check_choice("parts", parts, PARTS),
        time_aware=time_aware,
        features=None if side is None else model.query_tower.item_embedding.features,
        asked=QuerySide.of(model.query_tower),
    )
    truth = None
    if verify:
        truth = Live(
            model,
            ids,
            vocabulary.counts,
            candidates,
            keep_seen=settings.keep_seen,
            time_aware=time_aware,
            side=settings.asked,
        )
    return write(
        base,
        version,
        Items(
            ids,
            candidates,
            np.asarray(vocabulary.counts, np.int64),
            titles or {},
            np.arange(1, len(ids) + 1, dtype=np.int32),
        ),
        settings,
        encode_query=shared(
            _encoder(model.query_tower, side is not None, time_aware, settings.asked),
            time_aware=time_aware,
            width=None if side is None else int(side.table.shape[1]),
            side=settings.asked,
        ),
        side=side,
        truth=truth,
        samples=None if sample_histories is None else [*map(sample, sample_histories)],
        about={
            "model": facts_of(model),
            "refreshed_from": None,
            "metrics": metrics,
            "source": source,
            "notes": notes,
        },
    )


def facts_of(model: Any) -> dict[str, Any]:
    """What a manifest says of a model in memory."""
    return {
        "class": type(model).__name__,
        "name": getattr(model, "name", None),
        "max_length": getattr(model.query_tower, "max_length", None),
    }


def _encoder(tower: Any, outside: bool, time_aware: bool, side: QuerySide) -> Any:
    """The tower as a plain function of all that it takes, see `EncodeQuery`.

    Args:
        tower: query tower.
        outside: bool. Whether the item table is an argument.
        time_aware: bool. Whether times are.
        side: `QuerySide`, whose raw values are.
    """
    names = ["item_table"] if outside else []
    names += ["timestamps", "request_time"] if time_aware else []
    encoders = {
        f"{name}_features": FeatureEncoder(features)
        for name, features in (("query", side.query), ("event", side.events))
        if features is not None
    }

    def encode(indices: Any, *more: Any) -> Any:
        plain = dict(zip(names, more, strict=False))
        raw = dict(zip(side.specs(), more[len(names) :], strict=True))
        features = {name: encode(raw) for name, encode in encoders.items()}
        return tower(indices, training=False, **plain, **features)

    return encode
