"""A new version with other items, from the version in service and a list of items.

The query tower is taken over as it is, from the SavedModel; no training data, no model
class and no TensorFlow Recommenders are needed. Items come and go, and change titles,
popularity and vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import InputError, check_fraction, check_positive_int
from tfrs_selfattn.export import (
    embeddings,
    manifest,
    query_side,
    recommender,
    versions,
)
from tfrs_selfattn.export.item_side import ItemSide
from tfrs_selfattn.export.live import Truth
from tfrs_selfattn.export.loading import load
from tfrs_selfattn.export.new_items import NewItems
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.export.requests import Sample
from tfrs_selfattn.export.searching import Index
from tfrs_selfattn.export.writing import Export, Items, Settings, write
from tfrs_selfattn.features.feature_set import FeatureSet

_SHOWN = 10


@dataclass(frozen=True)
class Refresh:
    """A version that a refresh wrote.

    Args:
        export: `Export`.
        source: int. The version that it was made from.
        added: list of ids that the source did not answer with.
        removed: list of ids that it does not answer with any more.
        changed: list of ids whose title, popularity or vector is another.
        pruned: list of int. The versions that were removed.
    """

    export: Export
    source: int
    added: list[str]
    removed: list[str]
    changed: list[str]
    pruned: list[int]


def refresh_recommender(
    base: str | os.PathLike[str],
    items: NewItems,
    *,
    version: int | None = None,
    source: int | None = None,
    max_removed: float = 0.5,
    prune: int | None = None,
    verify: bool = True,
) -> Refresh:
    """Writes a version of an export that answers with other items.

    An item that the source answers with, or once did, keeps its vector unless it is
    given another. A new item is embedded from its features where the model knows items
    by them, and counts in histories. Otherwise it needs a vector, in the space of
    `embed_item`; in histories it is passed over, since the query tower never learned
    it, but it is left out of answers to histories that hold it. An item that is not
    listed is not answered any more and still counts in histories. No other version is
    touched; to go back, remove the new one.

    Args:
        base: folder of the versions.
        items: `NewItems`: all that may be answered.
        version: int or None. None takes the highest version plus 1. Defaults to `None`.
        source: int or None. The version to start from. None takes the highest. Defaults
            to `None`.
        max_removed: float in [0, 1). Refuse to remove a larger share of the items: the
            list may be cut short. Defaults to `0.5`.
        prune: int or None. Keep so many versions, the highest ones, and remove the
            others. Defaults to `None`.
        verify: bool. Compare answers before publishing. Defaults to `True`.

    Returns:
        `Refresh`.

    Raises:
        InputError: when new items have neither vector nor features, too many would be
            removed, or the source is not a whole export of this package.
        ExportError: when the new version answers other than it must.

    Example:

    >>> import tempfile
    >>> vocabulary = Vocabulary(("tea", "milk", "salt"), np.array([7, 5, 2]))
    >>> model = presets.sasrec(num_items=3, embedding_dim=8, max_length=10)
    >>> base = tempfile.mkdtemp()
    >>> _ = export_recommender(model, base, vocabulary=vocabulary, verify=False)
    >>> done = refresh_recommender(base, NewItems(["salt", "tea"]), verify=False)
    >>> done.export.version, done.removed
    (2, ['milk'])
    """
    base = Path(base)
    version = versions.check_new_version(base, version)
    if prune is not None:
        prune = check_positive_int("prune", prune, "1 keeps the new version alone.")
    folder = _source_folder(base, source)
    old = _Source(folder)
    new, side = _merged(old, items)
    removed = sorted(set(old.items.ids) - set(new.ids))
    if len(removed) > check_fraction("max_removed", max_removed) * len(old.items.ids):
        raise InputError(
            "`items` must list all that may be answered. Received: a list that leaves "
            f"out {len(removed)} of {len(old.items.ids)} items, such as "
            f"{_shown(removed)}. Complete it, or allow as much with `max_removed`."
        )
    export = write(
        base,
        version,
        new,
        old.settings,
        encode_query=old.encode_query,
        side=side,
        truth=_Refreshed(old, new, side) if verify else None,
        samples=None,
        about={
            "model": old.manifest["model"],
            "refreshed_from": old.version,
            "metrics": old.manifest["metrics"],
            "source": old.manifest["source"],
            "notes": old.manifest.get("notes"),
        },
    )
    return Refresh(
        export,
        old.version,
        sorted(set(new.ids) - set(old.items.ids)),
        removed,
        _changed(old.items, new),
        [] if prune is None else versions.prune(base, prune, export.version),
    )


def _source_folder(base: Path, version: int | None) -> Path:
    if version is None:
        return recommender.newest(base)
    folder = versions.version_folder(base, version)
    if folder is None:
        raise InputError(
            f"`source` must be a version in {base}. Received: source={version}, and "
            f"there are {versions.versions(base)}. Leave it out to take the highest."
        )
    return folder


class _Source:
    """What there is to know of a version that a refresh starts from."""

    def __init__(self, folder: Path) -> None:
        self.manifest = recommender.read_manifest(folder)
        self.version = int(self.manifest["version"])
        loaded = load(folder)
        if not hasattr(loaded, "catalogue") or not hasattr(loaded, "encode_query"):
            raise InputError(
                "A refresh must start from an export that holds what it needs. "
                f"Received: {folder}, written by version "
                f"{self.manifest['packages'].get('tfrs-selfattn')}. Export the run "
                "again with this version."
            )
        self.loaded = loaded  # the function below does not keep its variables alive
        self.encode_query: Any = loaded.encode_query
        self.settings = Settings(
            k=int(self.manifest["k"]),
            keep_seen=bool(self.manifest["keep_seen"]),
            index=Index(
                self.manifest["index"]["kind"], self.manifest["index"]["settings"]
            ),
            parts="all",
            time_aware=bool(self.manifest["time_aware"]),
            features=item_features(self.manifest),
            asked=QuerySide.from_manifest(self.manifest),
        )
        self.side: ItemSide | None = None
        if self.settings.features is not None:
            self.side = ItemSide(
                loaded.items.table.numpy(), loaded.items.embed_new, loaded
            )
        catalogue = loaded.catalogue
        ids = [name.decode() for name in catalogue.identifiers.numpy()[1:]]
        self.items = Items(
            ids,
            catalogue.candidates.numpy(),
            catalogue.popularity.counts.numpy(),
            recommender.read_titles(folder),
            # Those that are answered come first among the known ones.
            loaded.names.tower_indices.numpy()[1 : len(ids) + 1],
            embeddings.Retired.read(folder / manifest.FOLDER),
        )


def features_of(
    base: str | os.PathLike[str], source: int | None = None
) -> FeatureSet | None:
    """The features by which an export knows new items; None if by ids alone.

    Args:
        base: folder of the versions.
        source: int or None. The version; None takes the highest. Defaults to `None`.
    """
    folder = _source_folder(Path(base), source)
    return item_features(recommender.read_manifest(folder))


def item_features(contents: Mapping[str, Any]) -> FeatureSet | None:
    """The features that an export's manifest says items are known by."""
    config = contents.get("features", {}).get("items")
    return None if config is None else FeatureSet.from_config(config)


def _merged(old: _Source, new: NewItems) -> tuple[Items, ItemSide | None]:
    """The items of the new version: what is given, else what was known."""
    known, retired = old.items, old.items.retired
    width = known.candidates.shape[1]
    places = {item: row for row, item in enumerate((*known.ids, *retired.ids))}
    vectors = known.candidates
    if retired.ids:
        vectors = np.concatenate([vectors, retired.vectors])
    counts = np.concatenate([known.counts, retired.counts])
    towers = np.concatenate([known.tower_indices, retired.tower_indices])
    size = len(new.ids)
    rows = np.array([places.get(item, -1) for item in new.ids])
    given = new.embeddings if new.embeddings is not None else [None] * size
    bare = np.array([vector is None for vector in given]) & (rows < 0)
    told = new.described() if old.side is not None else np.zeros(size, bool)
    homeless = [new.ids[row] for row in np.flatnonzero(bare & ~told).tolist()]
    if homeless:
        raise _homeless(old, homeless)
    candidates = np.zeros([size, width], np.float32)
    towers_of = np.where(rows >= 0, towers[np.maximum(rows, 0)], 0).astype(np.int32)
    side, described = old.side, np.flatnonzero((rows < 0) & told)
    if side is not None and len(described):
        vectors_of, in_histories = _embedded(old, new, described)
        candidates[described] = vectors_of
        towers_of[described] = len(side.table.numpy()) + np.arange(len(described))
        side = side.grown(in_histories)
    candidates[rows >= 0] = vectors[rows[rows >= 0]]
    for row, vector in enumerate(given):
        if vector is not None:
            candidates[row] = _checked_vector(new.ids[row], vector, known.candidates)
    events = np.where(rows >= 0, counts[np.maximum(rows, 0)], 0)
    for row, count in enumerate(new.events or ()):
        events[row] = events[row] if count is None else count
    titles = {item: known.titles[item] for item in new.ids if item in known.titles}
    for item, title in zip(new.ids, new.titles or (), strict=False):
        if title is not None:
            titles[item] = title
    listed = set(new.ids)
    gone = [row for item, row in places.items() if item not in listed]
    return Items(
        list(new.ids),
        candidates,
        events.astype(np.int64),
        titles,
        towers_of,
        embeddings.Retired(
            [(*known.ids, *retired.ids)[row] for row in gone],
            vectors[gone],
            counts[gone],
            towers[gone],
        ),
    ), side


def _homeless(old: _Source, items: Sequence[str]) -> InputError:
    if old.settings.features is None:
        return InputError(
            "Every new item must have a vector: the model embeds items by their id "
            f"alone, and never saw {len(items)} of these. Received: none for "
            f"{_shown(items)}. Give them in a column `embedding`, leave the items "
            "out, or train again with --item-features."
        )
    columns = ", ".join(old.settings.features.names)
    return InputError(
        "Every new item must be told of, since the model embeds it by its features. "
        f"Received: nothing for {len(items)} of them, {_shown(items)}. Fill in one of "
        f"the columns {columns}, give vectors in a column `embedding`, or leave the "
        "items out."
    )


def _embedded(
    old: _Source, new: NewItems, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The vectors of new items, as candidates and in histories."""
    features, raw = old.settings.features or (), new.features or {}
    names = tf.constant([new.ids[row] for row in rows], tf.string)
    values = [
        tf.constant(raw[each.name][rows].tolist(), each.dtype) for each in features
    ]
    with tf.device("/CPU:0"):
        candidates, in_histories = old.side.embed_new(names, *values)  # type: ignore[union-attr]
    return candidates.numpy(), in_histories.numpy()


def _checked_vector(
    item: str, vector: npt.NDArray[np.float32], known: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    if len(vector) != known.shape[1]:
        raise InputError(
            f"Vectors must have the {known.shape[1]} numbers of the export's own. "
            f"Received: {len(vector)} for {item!r}. Take them from the candidate tower "
            "that the model was trained with."
        )
    lengths = np.linalg.norm(known[:1000], axis=1)
    length = float(np.linalg.norm(vector))
    if np.allclose(lengths, 1.0, atol=1e-3) and not np.isclose(length, 1.0, atol=1e-2):
        raise InputError(
            "Vectors must be of length 1, as all of the export's own are. Received: "
            f"length {length:g} for {item!r}. Normalize it."
        )
    return vector


def _changed(old: Items, new: Items) -> list[str]:
    row_of = {item: row for row, item in enumerate(old.ids)}
    changed = []
    for row, item in enumerate(new.ids):
        before = row_of.get(item)
        if before is not None and (
            old.titles.get(item) != new.titles.get(item)
            or old.counts[before] != new.counts[row]
            or not np.array_equal(old.candidates[before], new.candidates[row])
        ):
            changed.append(item)
    return changed


def _shown(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(repr, ids[:_SHOWN])) + more


class _Refreshed(Truth):
    """What a refreshed version must answer, by the tower of the version before."""

    def __init__(self, old: _Source, new: Items, side: ItemSide | None) -> None:
        super().__init__(
            new.ids,
            new.counts,
            new.candidates,
            keep_seen=old.settings.keep_seen,
            time_aware=old.settings.time_aware,
            side=old.settings.asked,
        )
        self._encode = old.encode_query
        self._table = [] if side is None else [tf.convert_to_tensor(side.table)]
        known = zip(
            (*new.ids, *new.retired.ids),
            (*new.tower_indices, *new.retired.tower_indices),
            strict=True,
        )
        self._index_of = {item: int(index) for item, index in known if index > 0}

    def encode(self, samples: Sequence[Sample]) -> tuple[npt.NDArray[Any], ...]:
        queries = np.zeros([len(samples), self.candidates.shape[1]], np.float32)
        scores = np.tile(self.popular, [len(samples), 1])
        for number, (history, timestamps, request_time, told) in enumerate(samples):
            known = [p for p, item in enumerate(history) if item in self._index_of]
            if not known and self.side.query is None:
                continue
            indices = [self._index_of[history[place]] for place in known]
            tensors = [tf.constant([indices], tf.int32), *self._table]
            if self.time_aware:
                times = [[timestamps[place] for place in known]]
                tensors += [
                    tf.constant(times, tf.int64),
                    tf.constant([request_time], tf.int64),
                ]
            features = query_side.tensors(self.chosen(told, known, len(known)))
            queries[number] = self._encode(*tensors, *features).numpy()[0]
            if known or queries[number].any():
                scores[number] = self.candidates @ queries[number]
        return queries, scores
