"""Files of films and users: MovieLens' own, without a header line, and RecBole's."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data.items import with_year

_LATIN = "latin-1"
# File name to separator and columns; "" is not read.
_LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "movies.dat": ("::", ("item_id", "title", "genres")),
    "users.dat": ("::", ("user_id", "gender", "age", "occupation", "zip_code")),
    "u.item": ("|", ("item_id", "title", "release_date", "", "")),
    "u.user": ("|", ("user_id", "age", "gender", "occupation", "zip_code")),
}
# What the 19 last fields of a line of u.item say, in their order.
_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)


def is_movielens(path: Path) -> bool:
    """Whether a file is one of MovieLens' own."""
    return path.name in _LAYOUTS


def read(path: Path) -> pl.DataFrame | None:
    """A file of MovieLens with names for its columns; None for any other file."""
    if path.name not in _LAYOUTS:
        return None
    separator, names = _LAYOUTS[path.name]
    flags = path.name == "u.item"
    rows = []
    lines = path.read_text(encoding=_LATIN).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split(separator)
        expected = len(names) + (len(_GENRES) if flags else 0)
        if len(fields) != expected:
            raise InputError(
                f"{path}, line {number} must have {expected} fields between "
                f"{separator!r}. Received: {len(fields)}. Restore the file "
                "as GroupLens gives it."
            )
        row = {name: fields[place] for place, name in enumerate(names) if name}
        if flags:
            marks = zip(_GENRES, fields[len(names) :], strict=True)
            row["genres"] = "|".join(genre for genre, mark in marks if mark == "1")
        rows.append(row)
    return pl.DataFrame(rows)


def with_usual_names(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """RecBole's films with `title` and `genres` as the others have them."""
    if path.suffix != ".item":
        return frame
    more = []
    if {"movie_title", "release_year"} <= set(frame.columns):
        more.append(with_year("movie_title", "release_year").alias("title"))
    for genres in {"class", "genre"} & set(frame.columns):
        more.append(pl.col(genres).str.replace_all(" ", "|").alias("genres"))
    return frame.with_columns(more)


def find_feature_table(folder: Path, of: str) -> Path | None:
    """The file of "items" or "users" in a folder of MovieLens, as it comes or as
    RecBole has it; None without one."""
    names = {
        "items": ("movies.dat", "u.item", "*.item"),
        "users": ("users.dat", "u.user", "*.user"),
    }
    for name in names[of]:
        for path in sorted(folder.glob(name)):
            return path
    return None
