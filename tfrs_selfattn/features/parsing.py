"""Features as they are written on the command line.

`items.csv:genres=multi,title=text` names a table and its columns; where the columns are
those of the event log, `price:number,category:category` does. A kind may have an option
in brackets: `price=number[log]`, `price=bucket[20]`, `tags=multi[;]`, `title=text[3]`
(pieces of three letters beside words), `image=vector[images.npy]`,
`brand=category[100]` (hash buckets for rare brands).
"""

from __future__ import annotations

import re
from pathlib import Path

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.features.category import Category
from tfrs_selfattn.features.feature import Feature
from tfrs_selfattn.features.feature_set import FeatureSet
from tfrs_selfattn.features.multi_category import MultiCategory
from tfrs_selfattn.features.number import Number
from tfrs_selfattn.features.text import Text
from tfrs_selfattn.features.vector import Vector

KINDS = ("category", "multi", "number", "bucket", "text", "vector")
_COLUMN = re.compile(r"([^=:,\[\]]+)[=:](\w+)(?:\[([^\]]+)\])?(,|$)")
_WITH_FILE = "items.csv:genres=multi,title=text"
_WITHOUT = "price:number,category:category"


def parse_features(
    text: str, option: str, *, with_file: bool
) -> tuple[Path | None, FeatureSet]:
    """The table and the features that an option names.

    Args:
        text: str. What was given.
        option: str. The option's name, for messages.
        with_file: bool. Whether a file stands before the columns.

    Returns:
        The file, or None, and features that are not fitted.

    Raises:
        InputError: when it is not written as the module says.

    Example:

    >>> path, features = parse_features(
    ...     "items.csv:genres=multi,year=number", "--item-features", with_file=True
    ... )
    >>> str(path), features.names
    ('items.csv', ('genres', 'year'))
    """
    path, columns = None, text
    if with_file:
        head = re.match(r"(.+?):(?=[^=:,\[\]]+=\w)", text)
        if head is None:
            raise _misspelt(text, option, with_file)
        path, columns = Path(head[1]), text[head.end() :]
    features, place = [], 0
    while place < len(columns):
        found = _COLUMN.match(columns, place)
        if found is None or (found[4] and found.end() == len(columns)):
            raise _misspelt(text, option, with_file)
        features.append(_feature(option, *found.group(1, 2, 3)))
        place = found.end()
    if not features:
        raise _misspelt(text, option, with_file)
    try:
        return path, FeatureSet(tuple(features))
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _feature(option: str, name: str, kind: str, setting: str | None) -> Feature:
    name = name.strip()
    try:
        if kind == "category":
            return Category(name, hash_buckets=_whole(setting, 0))
        if kind == "multi":
            return MultiCategory(name, separator=setting or "|")
        if kind == "number" and setting in (None, "log"):
            return Number(name, log=setting == "log")
        if kind == "bucket":
            return Number(name, buckets=_whole(setting, 10))
        if kind == "text":
            return Text(name, letters=_whole(setting, 0))
        if kind == "vector":
            return Vector(name, path=setting)
    except ValueError as error:
        raise InputError(f"{option}, {name}={kind}: {error}") from None
    shown = kind if setting is None else f"{kind}[{setting}]"
    raise InputError(
        f"{option} must give each column one of the kinds {', '.join(KINDS)}. "
        f"Received: {name}={shown}. Choose one of them."
    )


def _whole(setting: str | None, default: int) -> int:
    if setting is None:
        return default
    if not setting.isdecimal():
        raise ValueError(
            f"the option in brackets must be a whole number. Received: [{setting}]. "
            "Correct it or leave it out."
        )
    return int(setting)


def _misspelt(text: str, option: str, with_file: bool) -> InputError:
    form = _WITH_FILE if with_file else _WITHOUT
    return InputError(
        f"{option} must be written as {form}. Received: {text!r}. The kinds are "
        f"{', '.join(KINDS)}."
    )
