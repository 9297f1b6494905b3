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
from tfrs_selfattn.export.merging import RefusedItems, merged, shown
from tfrs_selfattn.export.new_items import NewItems
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.export.requests import Sample
from tfrs_selfattn.export.searching import Index
from tfrs_selfattn.export.writing import Export, Items, Settings, write
from tfrs_selfattn.features.feature_set import FeatureSet

# What there are items in; the query tower alone has none.
_PARTS = ("all", "index")


@dataclass(frozen=True)
class Refresh:
    """A version that a refresh wrote.

    Args:
        export: `Export`.
        source: int. The version that it was made from.
        added: list of ids that the source did not answer with.
        removed: list of ids that it does not answer with any more.
        changed: list of ids whose title, popularity or vector is another.
        embedded: list of ids whose vectors were made from their features, new ones and
            changed ones.
        pruned: list of int. The versions that were removed.
    """

    export: Export
    source: int
    added: list[str]
    removed: list[str]
    changed: list[str]
    embedded: list[str]
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

    Where the model knows items by features, a new item is embedded from its own, and
    counts in histories. So is an item that the source knows already and of which other
    things are told now, provided that there are values of all features: what its id has
    learned in training stays a part of its vector, and its features are taken anew. One
    of which the same is told, or nothing, keeps its vector.

    Otherwise a new item needs a vector, in the space of `embed_item`; in histories it
    is passed over, since the query tower never learned it, but it is left out of
    answers to histories that hold it. A vector that is given takes the place of any
    other among the answers. An item that is not listed is not answered any more and
    still counts in histories. No other version is touched; to go back, remove the new
    one.

    Of an export of the items alone (`parts="index"`), which meets no histories, only
    what is answered changes: the query tower is served by another export, and passes
    over what it does not know.

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
        InputError: when new items have neither vector nor features, or too many would
            be removed (both with all of them in `items`), or the source is not a whole
            export of this package.
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
    done = merged(old.items, old.side, old.settings.features, items)
    new, side = done.items, done.side
    removed = sorted(set(old.items.ids) - set(new.ids))
    if len(removed) > check_fraction("max_removed", max_removed) * len(old.items.ids):
        raise RefusedItems(
            "`items` must list all that may be answered. Received: a list that leaves "
            f"out {len(removed)} of {len(old.items.ids)} items, such as "
            f"{shown(removed)}. Complete it, or allow as much with `max_removed`.",
            removed,
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
        done.embedded,
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
        self.manifest = recommender.read_manifest(folder, _PARTS)
        self.version = int(self.manifest["version"])
        parts = str(self.manifest.get("parts", "all"))
        loaded = load(folder)
        tower = getattr(loaded, "encode_query", None)
        if not hasattr(loaded, "catalogue") or (tower is None and parts == "all"):
            raise InputError(
                "A refresh must start from an export that holds what it needs. "
                f"Received: {folder}, written by version "
                f"{self.manifest['packages'].get('tfrs-selfattn')}. Export the run "
                "again with this version."
            )
        self.loaded = loaded  # the function below does not keep its variables alive
        self.encode_query: Any = tower
        self.settings = Settings(
            k=int(self.manifest["k"]),
            keep_seen=bool(self.manifest["keep_seen"]),
            index=Index(
                self.manifest["index"]["kind"], self.manifest["index"]["settings"]
            ),
            parts=parts,
            time_aware=bool(self.manifest["time_aware"]),
            features=item_features(self.manifest),
            asked=QuerySide.from_manifest(self.manifest),
        )
        self.side: ItemSide | None = None
        if self.settings.features is not None:
            self.side = ItemSide.loaded(loaded.items, folder / manifest.FOLDER, loaded)
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
    return item_features(recommender.read_manifest(folder, _PARTS))


def item_features(contents: Mapping[str, Any]) -> FeatureSet | None:
    """The features that an export's manifest says items are known by."""
    config = contents.get("features", {}).get("items")
    return None if config is None else FeatureSet.from_config(config)


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
        scores = np.tile(self.popular, [len(samples), 1])  # without a tower, of nobody
        for number, (history, timestamps, request_time, told) in enumerate(samples):
            known = [p for p, item in enumerate(history) if item in self._index_of]
            if self._encode is None or (not known and self.side.query is None):
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
