"""The items of a refreshed version: what is given of them, else what was known.

Shape alphabet: N items of the new version, n some of them, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.export import embeddings
from tfrs_selfattn.export.item_side import ItemSide
from tfrs_selfattn.export.new_items import NewItems
from tfrs_selfattn.export.writing import Items
from tfrs_selfattn.features.feature_set import FeatureSet

_SHOWN = 10
# Of an item's vector: what is less comes from adding up in another order.
_SAME = 1e-4
_AT_ONCE = 4096  # items embedded at a time

Vectors = npt.NDArray[np.float32]


class RefusedItems(InputError):
    """A list of items that cannot be taken, because of some of them.

    Args:
        message: str. It names the first of them.
        items: list of str. All of them.
    """

    def __init__(self, message: str, items: Sequence[str]) -> None:
        super().__init__(message)
        self.items = list(items)

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:
        return type(self), (str(self), self.items)


@dataclass(frozen=True)
class Merged:
    """The contents of a refreshed version.

    Args:
        items: `Items`.
        side: `ItemSide`, or None of a model of ids alone.
        embedded: list of ids, in the order of the file, whose vectors were made from
            their features: new ones, and ones of which other things are known now.
    """

    items: Items
    side: ItemSide | None
    embedded: list[str]


def merged(
    known: Items,
    side: ItemSide | None,
    features: FeatureSet | None,
    new: NewItems,
) -> Merged:
    """Puts what a file says of items beside what an export knows of them.

    Args:
        known: `Items` of the export.
        side: its `ItemSide`, or None.
        features: `FeatureSet` by which it knows items, or None.
        new: `NewItems`.

    Raises:
        RefusedItems: when new items have neither vector nor features.
        InputError: when a vector does not fit.
    """
    retired = known.retired
    names = (*known.ids, *retired.ids)
    places = {item: row for row, item in enumerate(names)}
    vectors = known.candidates
    if retired.ids:
        vectors = np.concatenate([vectors, retired.vectors])
    counts = np.concatenate([known.counts, retired.counts])
    towers = np.concatenate([known.tower_indices, retired.tower_indices])
    size = len(new.ids)
    rows = np.array([places.get(item, -1) for item in new.ids])
    there = rows >= 0
    given = new.embeddings if new.embeddings is not None else [None] * size
    told = new.described() if side is not None else np.zeros(size, bool)
    bare = np.array([vector is None for vector in given]) & ~there & ~told
    if bare.any():
        raise _homeless(
            features, [new.ids[row] for row in np.flatnonzero(bare).tolist()]
        )

    candidates = np.zeros([size, known.candidates.shape[1]], np.float32)
    candidates[there] = vectors[rows[there]]
    towers_of = np.where(there, towers[np.maximum(rows, 0)], 0).astype(np.int32)
    embedded: list[str] = []
    if side is not None and features is not None:
        wanted = told & (~there | new.tells_all(features))
        made = _made(side, features, new, np.flatnonzero(wanted), towers_of)
        candidates[made.rows] = made.candidates
        side, towers_of[made.rows] = side.with_vectors(
            towers_of[made.rows], made.in_histories
        )
        embedded = [new.ids[row] for row in made.rows.tolist()]
    for row, vector in enumerate(given):
        if vector is not None:
            candidates[row] = _checked_vector(new.ids[row], vector, known.candidates)

    events = np.where(there, counts[np.maximum(rows, 0)], 0)
    for row, count in enumerate(new.events or ()):
        events[row] = events[row] if count is None else count
    titles = {item: known.titles[item] for item in new.ids if item in known.titles}
    for item, title in zip(new.ids, new.titles or (), strict=False):
        if title is not None:
            titles[item] = title
    listed = set(new.ids)
    gone = [row for item, row in places.items() if item not in listed]
    items = Items(
        list(new.ids),
        candidates,
        events.astype(np.int64),
        titles,
        towers_of,
        embeddings.Retired(
            [names[row] for row in gone], vectors[gone], counts[gone], towers[gone]
        ),
    )
    return Merged(items, side, embedded)


@dataclass(frozen=True)
class _Made:
    """Vectors from features, of items whose vectors are not these yet."""

    rows: npt.NDArray[np.int64]  # [n]
    candidates: Vectors  # [n, D]
    in_histories: Vectors  # [n, D]


def _made(
    side: ItemSide,
    features: FeatureSet,
    new: NewItems,
    rows: npt.NDArray[np.int64],
    towers: npt.NDArray[np.int32],
) -> _Made:
    """Embeds items from their features; leaves out those of which nothing changed.

    Whether something did is seen in histories: among candidates an item may have a
    vector that was given to it.

    Args:
        side: `ItemSide` of the export.
        features: its `FeatureSet`.
        new: what the file says.
        rows: int `[n]`, of which items.
        towers: int32 `[N]`, the tower index of each item, 0 for none.
    """
    rows = rows[side.can_embed(towers[rows])]
    table = side.table.numpy()
    kept, candidates, in_histories = [], [], []
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        raw = features.missing(len(part))
        raw |= {name: of[part] for name, of in (new.features or {}).items()}
        values = [tf.constant(raw[each.name].tolist(), each.dtype) for each in features]
        names = [new.ids[row] for row in part.tolist()]
        mine, theirs = side.embed(names, towers[part], values)
        before = table[towers[part]]
        moved = np.linalg.norm(theirs - before, axis=1)
        changed = moved > _SAME * np.linalg.norm(before, axis=1)
        changed |= towers[part] == 0
        kept.append(part[changed])
        candidates.append(mine[changed])
        in_histories.append(theirs[changed])
    nothing = np.zeros([0, table.shape[1]], np.float32)
    return _Made(
        np.concatenate([*kept, np.zeros(0, np.int64)]),
        np.concatenate([*candidates, nothing]),
        np.concatenate([*in_histories, nothing]),
    )


def _homeless(features: FeatureSet | None, items: Sequence[str]) -> RefusedItems:
    if features is None:
        return RefusedItems(
            "Every new item must have a vector: the model embeds items by their id "
            f"alone, and never saw {len(items)} of these. Received: none for "
            f"{shown(items)}. Give them in a column `embedding`, leave the items "
            "out, or train again with --item-features.",
            items,
        )
    columns = ", ".join(features.names)
    return RefusedItems(
        "Every new item must be told of, since the model embeds it by its features. "
        f"Received: nothing for {len(items)} of them, {shown(items)}. Fill in one of "
        f"the columns {columns}, give vectors in a column `embedding`, or leave the "
        "items out.",
        items,
    )


def _checked_vector(item: str, vector: Vectors, known: Vectors) -> Vectors:
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


def shown(ids: Sequence[str]) -> str:
    """Some ids for a message."""
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(repr, ids[:_SHOWN])) + more
