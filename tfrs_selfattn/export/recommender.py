"""Answers from an export, in a process that needs TensorFlow and nothing else.

Not for serving: that is TensorFlow Serving's job. For the command line, notebooks and
tests, which ask the same SavedModel that a server would load.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.client.answers import TensorSpec
from tfrs_selfattn.client.calls import EventFeatures, Features, times_of
from tfrs_selfattn.client.told import Told, told_of
from tfrs_selfattn.export import manifest, versions
from tfrs_selfattn.export.loading import load
from tfrs_selfattn.export.requests import padded


class Recommendation(NamedTuple):
    """An item of an answer.

    Args:
        id: str.
        score: float. Comparable within one answer.
        title: str or None, if the export has none for the item.
    """

    id: str
    score: float
    title: str | None


class Contribution(NamedTuple):
    """What one item of a history did for the score of another item.

    Args:
        id: str.
        contribution: float. How much the score falls without it.
        title: str or None, if the export has none for the item.
    """

    id: str
    contribution: float
    title: str | None


class Recommender:
    """A version that `export_recommender` wrote; made by `load_recommender`.

    Has the attributes `path`, `version`, `k` (items of an answer at most), `ids` (the
    items it knows), `titles` (by id, of those that have one) and `manifest` (what
    `assets.extra/recommender.json` holds).

    Args:
        path: `<base>/<version>`.
        titles: mapping from item id to title, or None. Taken before those of the
            export. Defaults to `None`.
    """

    def __init__(self, path: Path, titles: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.manifest: dict[str, Any] = read_manifest(path)
        self.version = int(self.manifest["version"])
        self.k = int(self.manifest["k"])
        self.ids = _read_ids(path)
        self.titles = {**read_titles(path), **(titles or {})}
        self._signatures = load(path).signatures

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """What is asked about, by name: the history, its times, and features."""
        described = self.manifest["signatures"]["embed_query"]["inputs"]
        return {
            name: TensorSpec(spec["dtype"], tuple(spec["shape"]))
            for name, spec in described.items()
        }

    @property
    def knows_users(self) -> bool:
        """Whether features of users or requests answer a history of no known item."""
        return "query" in self._told

    @property
    def _told(self) -> set[str]:
        """Of what features are taken beside histories: queries, events, or neither."""
        described: dict[str, Any] = self.manifest.get("features", {})
        return {"query", "events"} & described.keys()

    def unknown(self, history: Sequence[str]) -> list[str]:
        """The ids of a history that it does not know, and so passes over.

        When that is all of them, the answer is the most popular items, or, of a model
        that `knows_users`, what the features say.
        """
        return [item for item in history if item and item not in self.ids]

    def title(self, item: str) -> str | None:
        """The title of an item, None if it has none."""
        return self.titles.get(item)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        exclude: Sequence[Sequence[str]] | None = None,
        *,
        among: Sequence[Sequence[str]] | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: Features = None,
        event_features: EventFeatures = None,
    ) -> list[list[Recommendation]]:
        """The best items for each history, best first, k at most.

        Args:
            histories: list of lists of item ids, oldest first. Unknown ids are passed
                over.
            exclude: list of lists of item ids, one for each history, or None.
            among: list of lists of item ids, one for each history: only these are
                ranked. None ranks all. Not together with `exclude`.
            timestamps: list of lists of int, the Unix time of each item. For
                time-aware models, which need them.
            request_times: list of int, one for each history, or None for now.
            features: by name, a list with a value for each history, of its user or
                request: text, a number, a list of numbers, or None where it is not
                known. Those that are left out are not known.
            event_features: by name, a list for each history with a value for each of
                its items, likewise.
        """
        _check_lists("histories", histories)
        if not len(histories):
            return []
        told = told_of(histories, features, event_features)
        inputs = self._inputs(histories, timestamps, request_times, told)
        signature = "serving_default"
        if exclude is not None and among is not None:
            raise ValueError(
                "`exclude` and `among` must not be given together. Received: both. "
                "Leave the excluded items out of `among`."
            )
        if exclude is not None:
            signature = "recommend_excluding"
            inputs["exclude"] = _matrix("exclude", exclude, len(histories))
        if among is not None:
            signature = "recommend_among"
            inputs["candidates"] = _matrix("among", among, len(histories))
        answer = self._signatures[signature](**inputs)
        rows = zip(answer["ids"].numpy(), answer["scores"].numpy(), strict=True)
        return [
            [
                Recommendation(item, float(score), self.title(item))
                for item, score in zip(map(bytes.decode, ids), scores, strict=True)
                if item
            ]
            for ids, scores in rows
        ]

    def explain(
        self,
        histories: Sequence[Sequence[str]],
        items: Sequence[str],
        *,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: Features = None,
        event_features: EventFeatures = None,
    ) -> list[list[Contribution]]:
        """How much each item of each history did for the score of an item.

        The contribution is what the score loses without the item, all else equal: see
        `tfrs_selfattn.explain.leave_one_out`.

        Args:
            histories: as in `recommend`, like `timestamps` and `request_times`.
            items: list of str, one for each history: the item to explain.
            timestamps: list of lists of int.
            request_times: list of int.
            features: as in `recommend`, like `event_features`.
            event_features: dictionary.

        Returns:
            A list of `Contribution` for each history, in its order, 0 for an id that
            the export does not know.

        Raises:
            InputError: when an item is not known, or the export is of a version without
                explanations.
        """
        _check_lists("histories", histories)
        if "explain" not in self._signatures:
            raise InputError(
                "An export must have the signature `explain` to be asked for reasons. "
                f"Received: {self.path}, written by an earlier version. Export the run "
                "again, or refresh the export."
            )
        if isinstance(items, str) or len(items) != len(histories):
            raise InputError(
                "`items` must name one item for each history. Received: "
                f"{items!r} for {len(histories)} histories. Repeat a history to "
                "explain several items."
            )
        for item in items:
            if item not in self.ids:
                raise InputError(
                    "`items` must be known to the export. Received: "
                    f"{item!r}, which {self.path} does not know. Explain an item that "
                    "it recommends."
                )
        if not len(histories):
            return []
        told = told_of(histories, features, event_features)
        inputs = self._inputs(histories, timestamps, request_times, told)
        inputs["item"] = tf.constant(list(items), tf.string)
        found = self._signatures["explain"](**inputs)["contribution"].numpy()
        return [
            [
                Contribution(item, float(value), self.title(item))
                for item, value in zip(history, values, strict=False)
            ]
            for history, values in zip(histories, found, strict=True)
        ]

    def _inputs(
        self,
        histories: Sequence[Sequence[str]],
        timestamps: Sequence[Sequence[int]] | None,
        request_times: Sequence[int] | None,
        told: Told | None,
    ) -> dict[str, tf.Tensor]:
        """The inputs that say what is asked about."""
        inputs = {"history": tf.constant(padded(histories), tf.string)}
        times = times_of(histories, timestamps, request_times)
        if self.manifest.get("time_aware"):
            if times is None:
                raise InputError(
                    "`timestamps` must be given to a time-aware model. Received: none "
                    f"for {self.path}. Pass the Unix time of each item."
                )
            moments = [*times.timestamps, [0] * max(map(len, histories))]
            inputs["timestamps"] = tf.constant(padded(moments)[:-1], tf.int64)
            inputs["request_time"] = tf.constant(times.request_times, tf.int64)
        if told is None and not self._told:
            return inputs
        told = told or Told([len(row) for row in histories], {}, {})
        width = int(inputs["history"].shape[1])
        for name, each in told.tensors(self.inputs, width=width).items():
            inputs[name] = tf.constant(each.values, each.dtype, each.shape)
        return inputs


def load_recommender(
    base_or_version: str | os.PathLike[str],
    *,
    titles: Mapping[str, str] | None = None,
) -> Recommender:
    """Loads an export.

    Args:
        base_or_version: the folder that was exported to, of which the highest version
            is taken, as a server does; or one version in it.
        titles: mapping from item id to title, or None. Taken before those of the
            export. Defaults to `None`.

    Returns:
        `Recommender`.

    Raises:
        InputError: when there is no export.
    """
    return Recommender(newest(Path(base_or_version)), titles)


def newest(path: Path) -> Path:
    """The highest version in a folder, or the folder if it is a version itself."""
    if not path.is_dir():
        raise InputError(
            "An export must be a folder. Received: "
            f"{path}, which {'is a file' if path.exists() else 'does not exist'}. "
            "Export a model there first, or pass the folder it was exported to."
        )
    if not (path / "saved_model.pb").exists():
        found = versions.versions(path)
        if not found:
            raise InputError(
                "An export must hold a version, a folder named by a number. Received: "
                f"{path}, which holds none. Export a model there first, or pass the "
                "folder it was exported to."
            )
        path = versions.version_folder(path, found[-1]) or path
    return path


def read_manifest(path: Path, parts: Sequence[str] = ("all",)) -> dict[str, Any]:
    """The manifest of a version that holds the query tower and the index.

    Args:
        path: `<base>/<version>`.
        parts: list of str. Which parts it may hold, see `manifest`; never those of a
            shard. Defaults to all of them.
    """
    contents: dict[str, Any] = {}
    if (path / "saved_model.pb").exists():
        with contextlib.suppress(OSError, ValueError):
            contents = manifest.read(path)
    if contents.get("parts", "all") not in parts or "shard" in contents:
        needed = "An export must hold the query tower and the index."
        if len(parts) > 1:
            needed = "An export must hold all items."
        raise InputError(
            f"{needed} Received: {path}, which holds "
            f"parts={contents['parts']!r}"
            f"{' of a shard' if 'shard' in contents else ''}. Export the run without "
            "--query-only, --index-only and --shards."
        )
    if not {"version", "k"} <= contents.keys():
        raise InputError(
            "An export must hold saved_model.pb and "
            f"{manifest.FOLDER}/{manifest.FILE}. Received: {path}, which lacks one or "
            "has a damaged one. Pass a folder written by `export_recommender`, or "
            "remove this version."
        )
    return contents


def _read_ids(path: Path) -> frozenset[str]:
    text = (path / "assets" / "vocabulary.txt").read_bytes().decode()
    return frozenset(text.split("\n")) - {""}


def read_titles(path: Path) -> dict[str, str]:
    """The titles of a version, by id."""
    path = path / manifest.FOLDER / manifest.TITLES_FILE
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {row["item_id"]: row["title"] for row in csv.DictReader(file)}


def _check_lists(name: str, rows: Any) -> None:
    if isinstance(rows, str) or any(isinstance(row, str) for row in rows):
        raise ValueError(
            f"`{name}` must be a list of lists of item ids. Received: {rows!r}. For "
            'one user, use [["id1", "id2"]].'
        )


def _matrix(name: str, rows: Any, count: int) -> tf.Tensor:
    """Lists of ids, one for each history, as a signature takes them."""
    _check_lists(name, rows)
    if len(rows) != count:
        raise ValueError(
            f"`{name}` must have a list for each history. Received: {len(rows)} lists "
            f"for {count} histories. Give one to every history; [] names no item."
        )
    return tf.constant(padded(rows), tf.string)
