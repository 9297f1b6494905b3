"""The item vocabulary: which integer stands for which item id.

Item index 0 means padding or an unknown item; items have the indices 1 to N, most
frequent first. Item titles and other features live elsewhere (`items.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError

PADDING = 0  # The item index of padding and of items that are not in the vocabulary.


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The N items a model knows, in index order.

    Args:
        ids: tuple of N item ids. `ids[j]` has item index `j + 1`.
        counts: int64 `[N]`. Events of each item, zeros when not known.

    Example:

    >>> vocabulary = Vocabulary(("tea", "milk"), np.array([7, 2]))
    >>> vocabulary.encode(["milk", "tea", "never seen"])
    array([2, 1, 0], dtype=int32)
    >>> vocabulary.decode([1, 2, 0])
    ['tea', 'milk', '']
    """

    ids: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.ids):
            raise ValueError(
                "`counts` must hold one count for each item. Received: "
                f"{len(self.counts)} counts for {len(self.ids)} ids. Count the events "
                "of every item, in the order of `ids`."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item: index for index, item in enumerate(self.ids, start=1)}

    def encode(self, items: Iterable[str | None]) -> npt.NDArray[np.int32]:
        """Returns the index of each id of a list, a Polars series, …; 0 if unknown."""
        index = self._index
        found = (
            PADDING if item is None else index.get(item, PADDING) for item in items
        )
        return np.fromiter(found, dtype=np.int32)

    def decode(self, indices: npt.ArrayLike) -> list[str]:
        """Returns the id of each item index, "" for padding."""
        ids = ("", *self.ids)
        return [ids[index] for index in np.asarray(indices).reshape(-1).tolist()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one id a line, UTF-8. A reader never sees half of the file."""
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{item}\n" for item in self.ids)
        os.replace(beside, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], counts: Any = None) -> Vocabulary:
        """Reads what `save` wrote; `counts` default to zeros."""
        ids = _read_ids(Path(path))
        if counts is None:
            counts = np.zeros(len(ids), np.int64)
        return cls(ids, np.asarray(counts, np.int64))


def _read_ids(path: Path) -> tuple[str, ...]:
    try:
        # Only "\n" ends a line: ids may hold other characters `splitlines` splits at.
        lines = path.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise InputError(
            f"The vocabulary file cannot be read. Received: {path} "
            f"({error.strerror}). Pass the vocabulary.txt of a run folder."
        ) from None
    except UnicodeDecodeError:
        raise InputError(
            f"The vocabulary file must be UTF-8 text, one item id a line. "
            f"Received: {path}. Pass the vocabulary.txt of a run folder."
        ) from None
    if lines[-1] == "":
        del lines[-1]
    seen: dict[str, int] = {}
    for number, item in enumerate(lines, start=1):
        if item == "" or item in seen:
            fault = "is empty" if item == "" else f"repeats line {seen[item]}"
            raise InputError(
                f"The vocabulary file must hold one distinct item id a line. "
                f"Received: {path}, where line {number} {fault}. "
                "Restore the file the run wrote."
            )
        seen[item] = number
    return tuple(lines)
