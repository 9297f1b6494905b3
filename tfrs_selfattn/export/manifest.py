"""`assets.extra/recommender.json`: what an export holds and where it comes from.

The keys are stable; new ones may be added. `FORMAT` changes when the meaning of one
does.

- `format`: int, 1.
- `version`: int, the name of the folder.
- `created`: str, ISO 8601 in UTC.
- `model`: `class`, `name` and `max_length` (items of a history that are used; null for
  a query tower without one) of the model.
- `parts`: `"all"`; `"query"`, the query tower alone; `"index"`, the items alone.
- `time_aware`: bool, whether requests carry times.
- `items`: int, N, those that may be answered. `known`: int, the ids that count in
  histories. `embedding_dim`: int, D. `k`: int, columns of an answer.
- `keep_seen`: bool, whether answers may hold items of the history.
- `events`: int, the events behind the popularity of the items; 0 if not known.
- `index`: `kind` (`"exact"` or `"partitioned"`), `settings` of a partitioned one,
  `recall` in the verification (null without one), and `checksum`, `"sha256:"` and the
  hash of the candidates as a little-endian float32 matrix `[N, D]` in C order.
- `signatures`: by name, `inputs` and `outputs`, by name, `dtype` and `shape` (null for
  a size that may vary).
- `features`: `items`, the features that items are known by beside their ids, `query`,
  those of users and requests, and `events`, those of the events of a history, each as
  `tfrs_selfattn.features.FeatureSet.from_config` reads it; empty for a model of ids.
- `titles`: int, the items that have one in `assets.extra/titles.csv`; 0 without it.
- `verified`: int, the histories whose answers were compared with the model's before the
  version got its name; 0 if that was switched off.
- `refreshed_from`: int or null, the version that a refresh started from.
- `shard`: of a shard alone, its `number` (from 0) and `of` how many. `first_row`: int,
  likewise, the place of its first item among all items, from 0.
- `metrics`, `source`: whatever the exporter was given, or null. Of `source` the model
  card knows `run`, `data` (a fingerprint), `events` and `settings` (by name) and
  `protocol` (a sentence).
- `notes`: str or null, Markdown of the exporter's that the model card ends with.
- `packages`: versions, by name, of what wrote the export.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._version import __version__

FORMAT = 1
FOLDER = "assets.extra"
FILE = "recommender.json"
TITLES_FILE = "titles.csv"

_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy")


def check_json(**values: Any) -> None:
    """Raises `ValueError` when JSON cannot hold one of the values."""
    for name, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{name}` must be what JSON can hold. Received: {error}. Use finite "
                "numbers, strings, lists and dictionaries."
            ) from None


def checksum(candidates: npt.NDArray[np.float32]) -> str:
    """`"sha256:"` and the hash of a matrix of candidates."""
    matrix = np.ascontiguousarray(candidates, "<f4")
    return f"sha256:{hashlib.sha256(matrix.data).hexdigest()}"


def describe_signatures(functions: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs and outputs of concrete functions, or of loaded signatures."""
    return {
        name: {
            "inputs": _describe(_inputs(function)),
            "outputs": _describe(function.structured_outputs),
        }
        for name, function in functions.items()
    }


def _inputs(function: Any) -> dict[str, Any]:
    """A loaded signature takes its inputs by keyword, a traced function by place."""
    places, keywords = function.structured_input_signature
    given = {spec.name: spec for spec in places if spec is not None}
    return {**given, **keywords}


def _describe(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()}
        for name, tensor in sorted(tensors.items())
    }


def package_versions() -> dict[str, str]:
    """The versions of Python, of this package and of those it builds on."""
    found = {"python": platform.python_version(), "tfrs-selfattn": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # such as a nightly build
            continue
    return found


def now() -> str:
    """The time of day for `created`."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def write(folder: Path, contents: Mapping[str, Any]) -> None:
    """Writes the file into the `assets.extra` of a version."""
    text = json.dumps(contents, indent=2, ensure_ascii=False)
    (folder / FOLDER / FILE).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """What `write` wrote; raises `OSError` or `ValueError` if that is not there."""
    contents: dict[str, Any] = json.loads(
        (folder / FOLDER / FILE).read_text(encoding="utf-8")
    )
    return contents
