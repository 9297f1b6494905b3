"""Writes the contents of a version into its folder, verifies it and publishes it.

What the contents are, a trained model or an earlier version with other items, is the
business of `saved_model` and `refresh`.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.export import (
    embeddings,
    manifest,
    model_card,
    requests,
    verification,
    versions,
)
from tfrs_selfattn.export.catalogue import Catalogue, Names
from tfrs_selfattn.export.item_side import ItemSide
from tfrs_selfattn.export.live import Truth
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.export.searching import Index
from tfrs_selfattn.export.signatures import Signatures
from tfrs_selfattn.features.feature_set import FeatureSet

_VOCABULARY_FILE = "vocabulary.txt"
_WARMUP_FILE = "tf_serving_warmup_requests"

PARTS = ("all", "query", "index")

# Read by a server started with --enable_batching and
# --enable_per_model_batching_parameters.
_BATCHING = """\
# A server's own padding repeats the first item of a history as if it were real, and
# one empty history fails its whole batch. So requests merge only if equally wide;
# send the signature tf_example, or pad to one width, where lengths differ.
pad_variable_length_inputs: false
max_batch_size { value: 256 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 100 }
"""
# XLA compiles once for each size, at the warm-up: those that batches are rounded up to,
# and, since the search rounds up to powers of 2, those of a server that rounds nothing.
_COMPILED_SIZES = (1, 4, 16, 64, 256)
_SEARCHED_SIZES = (2, 8, 32, 128)
_SEARCHES = ("serving_default", "recommend_excluding", "tf_example", "search")


@dataclass(frozen=True)
class Export:
    """A version that was written.

    Args:
        path: `<base>/<version>`.
        version: int.
        seconds: float. How long it took.
        verified: int. Histories that were asked of it and answered as by the model.
        manifest: what `assets.extra/recommender.json` holds, see
            `tfrs_selfattn.export.manifest`.
    """

    path: Path
    version: int
    seconds: float
    verified: int
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Items:
    """The items of a version; see `tfrs_selfattn.export.catalogue`.

    Args:
        ids: list of str, N. May be answered; row r is `ids[r]`.
        candidates: float32 `[N, D]`.
        counts: int64 `[N]`, events of each.
        titles: mapping from id to title.
        tower_indices: int32 `[N]`, 0 for an item that the query tower does not know.
        retired: `embeddings.Retired`, the items that are known and not answered.
        all_events: float. Of a shard, the events of all of them; else None.
    """

    ids: Sequence[str]
    candidates: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    titles: Mapping[str, str]
    tower_indices: npt.NDArray[np.int32]
    retired: embeddings.Retired = field(default_factory=embeddings.Retired.none)
    all_events: float | None = None


@dataclass(frozen=True)
class Settings:
    """How a version answers.

    Args:
        k: int. Columns of an answer.
        keep_seen: bool. Answer with items of the history too.
        index: `Index`.
        parts: str. `"all"`, `"query"` or `"index"`.
        time_aware: bool. Whether the query tower takes times.
        features: `FeatureSet` that items are known by, or None.
        asked: `QuerySide`, what else requests tell.
    """

    k: int
    keep_seen: bool
    index: Index
    parts: str
    time_aware: bool
    features: FeatureSet | None = None
    asked: QuerySide = field(default_factory=QuerySide)


def write(
    base: Path,
    version: int | None,
    items: Items,
    settings: Settings,
    *,
    encode_query: Any,
    truth: Truth | None,
    samples: Sequence[requests.Sample] | None,
    about: Mapping[str, Any],
    side: ItemSide | None = None,
) -> Export:
    """Writes `<base>/<version>/`, verified unless `truth` is None.

    Args:
        base: folder of the versions.
        version: int or None for the next one.
        items: `Items`.
        settings: `Settings`.
        encode_query: see `signatures.EncodeQuery`, or None for an index alone.
        truth: what it must answer, or None.
        samples: to verify with, or None for those of `truth`.
        about: further entries of the manifest.
        side: `ItemSide` of a model that knows items by features.
    """
    started = time.perf_counter()
    with versions.staging(base) as scratch:
        staged = scratch / "version"
        functions = _save(staged, scratch, items, settings, encode_query, side)
        # What a request says of an item by default: nothing.
        nothing = {}
        if settings.features is not None:
            nothing["embed_item"] = settings.features.missing(1)
        sizes = _COMPILED_SIZES if settings.index.compiled else requests.WARMUP_BATCHES
        batching = _BATCHING
        if settings.index.compiled:
            batching += "".join(f"allowed_batch_sizes: {size}\n" for size in sizes)
        (staged / "batching_params.pbtxt").write_text(batching, encoding="utf-8")
        extra = staged / manifest.FOLDER
        extra.mkdir()
        width = int(items.candidates.shape[1])

        def warm_up(
            signatures: Iterable[str], sizes: Sequence[int]
        ) -> list[requests.Request]:
            return requests.warmup_requests(
                signatures,
                items.ids,
                width,
                sizes=sizes,
                time_aware=settings.time_aware,
                side=settings.asked,
                defaults=nothing,
            )

        warmup = warm_up(functions, sizes)
        if settings.index.compiled:
            searches = [name for name in functions if name in _SEARCHES]
            warmup += warm_up(searches, _SEARCHED_SIZES)
        requests.write_warmup(extra / _WARMUP_FILE, warmup)
        titled = _write_titles(extra, items)
        items.retired.write(extra)
        if side is not None:
            side.write(extra)
        if settings.parts == "index":
            embeddings.write(extra / embeddings.FILE, items.ids, items.candidates)
        found = verification.Verified(0, 1.0)
        if truth is not None:
            found = verification.verify(
                staged,
                scratch,
                truth,
                list(functions),
                exact=settings.index.is_exact,
                tolerance=settings.index.tolerance,
                samples=samples,
                also=warmup,
                defaults=nothing,
            )
        contents: dict[str, Any] = {
            "format": manifest.FORMAT,
            "version": version,
            "created": manifest.now(),
            "parts": settings.parts,
            "time_aware": settings.time_aware,
            "items": len(items.ids),
            "known": len(items.ids) + len(items.retired.ids),
            "embedding_dim": width,
            "k": settings.k,
            "keep_seen": settings.keep_seen,
            "events": int(np.sum(items.counts)),
            "index": {
                "kind": settings.index.kind,
                "settings": dict(settings.index.settings),
                "checksum": manifest.checksum(items.candidates),
                "recall": round(found.recall, 4) if truth is not None else None,
            },
            "signatures": manifest.describe_signatures(functions),
            "features": {
                **(
                    {}
                    if settings.features is None
                    else {"items": settings.features.to_config()}
                ),
                **settings.asked.to_manifest(),
            },
            "titles": titled,
            "verified": found.samples,
            **about,
            "packages": manifest.package_versions(),
        }

        def finish(number: int) -> None:
            contents["version"] = number
            manifest.write(staged, contents)
            model_card.write(staged, contents)

        path, number = versions.publish(staged, base, version, finish)
    seconds = time.perf_counter() - started
    return Export(path, number, seconds, found.samples, contents)


def _save(
    staged: Path,
    scratch: Path,
    items: Items,
    settings: Settings,
    encode_query: Any,
    side: ItemSide | None,
) -> dict[str, Any]:
    """Saves the SavedModel and returns its functions by signature."""
    ids = [item.encode() for item in items.ids]
    known = [*ids, *(item.encode() for item in items.retired.ids)]
    vocabulary_file = scratch / _VOCABULARY_FILE
    vocabulary_file.write_bytes(b"".join(name + b"\n" for name in known))
    gone = len(items.retired.ids)
    names = Names(
        vocabulary_file,
        [*range(len(ids)), *[-1] * gone],
        [*items.tower_indices, *items.retired.tower_indices],
    )
    catalogue, search = None, None
    if settings.parts != "query":
        search, candidates = settings.index.over(items.candidates, settings.k)
        catalogue = Catalogue(
            candidates, np.array(ids, object), items.counts, items.all_events
        )
    module = Signatures(
        names,
        encode_query=encode_query if settings.parts != "index" else None,
        catalogue=catalogue,
        search=search,
        k=settings.k,
        keep_seen=settings.keep_seen,
        time_aware=settings.time_aware and settings.parts != "index",
        items=side,
        features=settings.features,
        side=settings.asked,
    )
    functions = module.concrete_functions()
    # A server takes no gradients, and those of the attention would pile up
    # in refreshes.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with _quiet():
        tf.saved_model.save(module, str(staged), signatures=functions, options=options)
    return functions


def _write_titles(extra: Path, items: Items) -> int:
    """Writes the titles of the items that have one; returns how many."""
    rows = [(item, items.titles[item]) for item in items.ids if item in items.titles]
    if not rows:
        return 0
    path = extra / manifest.TITLES_FILE
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("item_id", "title"))
        writer.writerows(rows)
    return len(rows)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the note about assets: it names a folder that is soon gone."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
