"""Writes a trained model as a version that TensorFlow Serving can load."""

from __future__ import annotations

import contextlib
import csv
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import require_legacy_keras
from tfrs_selfattn.export import checks, manifest, requests, verification, versions
from tfrs_selfattn.export.live import Live
from tfrs_selfattn.export.signatures import Signatures

require_legacy_keras("tfrs_selfattn.export.export_recommender")

_VOCABULARY_FILE = "vocabulary.txt"
_WARMUP_FILE = "tf_serving_warmup_requests"

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


def export_recommender(
    model: Any,
    base: str | os.PathLike[str],
    *,
    vocabulary: checks.VocabularyLike,
    k: int = 100,
    version: int | None = None,
    keep_seen: bool = False,
    titles: Mapping[str, str] | None = None,
    metrics: Any = None,
    source: Any = None,
    sample_histories: Sequence[Sequence[str]] | None = None,
    verify: bool = True,
) -> Export:
    """Exports a retrieval model as `<base>/<version>/`, raw item ids in and out.

    The SavedModel holds the query tower, the vocabulary, an exact index and the
    popularity of the items, in stock TensorFlow operations. Its signatures are those of
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
        titles: mapping from item id to title, or None. Written for people to read; the
            model does not use them. Defaults to `None`.
        metrics: what JSON can hold. Written to `recommender.json`. Defaults to `None`.
        source: likewise, where the model comes from. Defaults to `None`.
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
    started = time.perf_counter()
    k = check_positive_int("k", k)
    base = Path(base)
    version = versions.check_new_version(base, version)
    manifest.check_json(metrics=metrics, source=source)
    ids = checks.encoded_ids(vocabulary.ids)
    candidates = checks.candidates_of(model, len(ids))

    with versions.staging(base) as scratch:
        staged = scratch / "version"
        vocabulary_file = scratch / _VOCABULARY_FILE
        vocabulary_file.write_bytes(b"".join(name + b"\n" for name in ids))
        module = Signatures(
            lambda history: model.query_tower(history, training=False),
            tf.constant(candidates),
            ids,
            vocabulary.counts,
            vocabulary_file,
            k=k,
            keep_seen=keep_seen,
        )
        functions = module.concrete_functions()
        with _quiet():
            tf.saved_model.save(module, str(staged), signatures=functions)
        (staged / "batching_params.pbtxt").write_text(_BATCHING, encoding="utf-8")
        extra = staged / manifest.FOLDER
        extra.mkdir()
        warmup = requests.warmup_requests(vocabulary.ids)
        requests.write_warmup(extra / _WARMUP_FILE, warmup)
        titled = _write_titles(extra, vocabulary.ids, titles)
        verified = 0
        if verify:
            verified = verification.verify(
                staged,
                scratch,
                Live(model, vocabulary.ids, vocabulary.counts, candidates, keep_seen),
                sample_histories,
                also=warmup,
            )
        contents: dict[str, Any] = {
            "format": manifest.FORMAT,
            "version": version,
            "created": manifest.now(),
            "model": {
                "class": type(model).__name__,
                "name": getattr(model, "name", None),
                "max_length": getattr(model.query_tower, "max_length", None),
            },
            "items": len(ids),
            "embedding_dim": int(candidates.shape[1]),
            "k": k,
            "keep_seen": bool(keep_seen),
            "events": int(np.sum(vocabulary.counts)),
            "index": {"kind": "exact", "checksum": manifest.checksum(candidates)},
            "signatures": manifest.describe_signatures(functions),
            "titles": titled,
            "verified": verified,
            "metrics": metrics,
            "source": source,
            "packages": manifest.package_versions(),
        }

        def finish(number: int) -> None:
            contents["version"] = number
            manifest.write(staged, contents)

        path, number = versions.publish(staged, base, version, finish)
    seconds = time.perf_counter() - started
    return Export(path, number, seconds, verified, contents)


def _write_titles(
    extra: Path, ids: Sequence[str], titles: Mapping[str, str] | None
) -> int:
    """Writes the titles of the items that have one; returns how many."""
    rows = [(item, titles[item]) for item in ids if item in titles] if titles else []
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
