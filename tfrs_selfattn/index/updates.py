"""Changes to a partitioned index that is in use: candidates come, change and go.

Works on the variables of a `PartitionedTopK`. Leaves stay where they are; those that a
change touches get their centers anew.

Shape alphabet: n changed candidates, R rows, L leaves, Q leaf capacity, A leaves a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.index import (
    building,
    kmeans,
    placement,
    quantization,
    recall,
    sources,
)
from tfrs_selfattn.index import identifiers as naming

Floats: TypeAlias = "npt.NDArray[np.float32]"
Ints: TypeAlias = "npt.NDArray[np.int32]"

_GROWTH = 1.05  # more rows than are needed at once, so that not every change grows
_MOST_LOST = 0.02  # of the recall that the index had when it was built
_MOST_CHANGED = 0.5  # of the candidates


class Drift(NamedTuple):
    """How far an index is from one that is built anew.

    Attributes:
        size: int. Candidates in the index.
        changed: float. Additions, replacements and removals since it was built, as a
            share of `size`.
        free: float. Share of the slots that are free.
        recall: float. Share of the true best that the index finds for a sample of its
            own candidates as queries.
        recall_built: float. The same just after it was built or tuned.
        rebuild: bool. Whether to build it anew: recall has fallen by more than .02, or
            more than half has changed.
    """

    size: int
    changed: float
    free: float
    recall: float
    recall_built: float
    rebuild: bool


def drift(index: Any) -> Drift:
    """Measures an index; see `PartitionedTopK.drift`."""
    recall.check_filled(index, "measured")
    used = len(recall.used_rows(index))
    built, changes = index._record.numpy()
    found = recall.own_recall(index)
    changed = float(changes) / max(used, 1)
    return Drift(
        size=used,
        changed=changed,
        free=1 - used * index._ways / index._members.numpy().size,
        recall=found,
        recall_built=float(built),
        rebuild=found < built - _MOST_LOST or changed > _MOST_CHANGED,
    )


def record_recall(index: Any) -> None:
    """Notes the index's recall, which `drift` compares a later one with."""
    index._assign(record=[recall.own_recall(index), index._record.numpy()[1]])


def add(index: Any, candidates: Any, identifiers: Any) -> None:
    """Adds or replaces candidates; see `PartitionedTopK.add`."""
    recall.check_filled(index, "changed")
    source = sources.as_source(candidates, identifiers)
    if source.width != index._width:
        raise ValueError(
            f"`candidates` must be {index._width} wide, as those of the index are. "
            f"Received: width {source.width}. Embed them with the same model."
        )
    names = source.identifiers
    names = _own_type(index, tf.range(source.size) if names is None else names)
    naming.sorted_keys(names)  # checks them
    rows = _find(index, names)
    _forget(index, rows[rows >= 0])
    taken_rows = index._slots.numpy()[:, 0] >= 0
    taken_rows[rows[rows >= 0]] = True
    free = np.flatnonzero(~taken_rows)
    needed = int(np.count_nonzero(rows < 0))
    vectors = building.prepared(
        sources.whole(source), index.distance_measure == "cosine"
    )
    _make_room(index, vectors, needed - len(free))
    if needed > len(free):
        more = np.arange(len(taken_rows), index._slots.shape[0], dtype=free.dtype)
        free = np.concatenate([free, more])
    rows[rows < 0] = free[:needed]
    slots = _settle(index, vectors, rows)
    stored = {
        name: np.array(variable)
        for name in ("vectors", "scales", "originals")
        if (variable := getattr(index, f"_{name}")) is not None
    }
    write(stored, rows, slots, vectors)
    index._assign(**stored)
    _rename(index, rows, names.numpy())
    _finish(index, np.unique(slots // index._members.shape[1]), len(rows))


def remove(index: Any, identifiers: Any) -> None:
    """Removes candidates; see `PartitionedTopK.remove`."""
    recall.check_filled(index, "changed")
    identifiers = tf.convert_to_tensor(identifiers)
    _check_kind(index, identifiers)
    rows = np.unique(_find(index, identifiers))
    rows = rows[rows >= 0]
    touched = _forget(index, rows)
    _rename(index, rows, None)
    _finish(index, touched, len(rows))


def write(stored: dict[str, Any], rows: Any, slots: Ints, vectors: Floats) -> None:
    """Puts vectors `[n, D]` of rows `[n]` into arrays, at their slots `[n, A]`.

    Args:
        stored: `vectors`, and `scales` and `originals` if the index has them: arrays in
            the form of its variables.
        rows, slots, vectors: what to write where.
    """
    if "originals" in stored:
        stored["originals"][rows] = vectors
    values: Any = vectors
    if "scales" in stored:
        values = quantization.quantize(vectors, stored["scales"])
    for way in range(slots.shape[1]):
        leaf, place = np.divmod(slots[:, way], stored["vectors"].shape[1])
        stored["vectors"][leaf, place] = values


def _check_kind(index: Any, identifiers: tf.Tensor) -> None:
    dtype = index._names_dtype
    if (identifiers.dtype == tf.string) != (dtype == tf.string):
        raise ValueError(
            f"`identifiers` must be {dtype.name}, as those of the index are. Received: "
            f"{identifiers.dtype.name}. Convert them."
        )


def _own_type(index: Any, identifiers: tf.Tensor) -> tf.Tensor:
    _check_kind(index, identifiers)
    dtype = index._names_dtype
    if dtype == tf.string:
        return identifiers
    own = tf.cast(identifiers, dtype)
    wrong = tf.boolean_mask(identifiers, tf.cast(own, identifiers.dtype) != identifiers)
    if len(wrong):
        raise ValueError(
            f"`identifiers` must fit {dtype.name}, which those of the index are. "
            f"Received: {wrong[0]}. Build the index with int64 identifiers."
        )
    return own


def _find(index: Any, identifiers: tf.Tensor) -> Ints:
    """The row of each identifier, -1 for those that the index does not hold."""
    rows: Ints = np.array(index._rows_of(identifiers[tf.newaxis])[0])
    used = index._slots.numpy()[:, 0] >= 0
    possible = (rows >= 0) & (rows < len(used))
    rows[~possible | ~used[np.where(possible, rows, 0)]] = -1
    return rows


def _forget(index: Any, rows: Ints) -> Ints:
    """Frees the slots of rows; returns the leaves they lay in."""
    slots, members = index._slots.numpy(), index._members.numpy()
    freed = slots[rows].reshape(-1)
    freed = freed[freed >= 0]
    members.reshape(-1)[freed] = -1
    slots[rows] = -1
    index._assign(slots=slots, members=members)
    return np.unique(freed // members.shape[1])


def _make_room(index: Any, vectors: Floats, missing_rows: int) -> None:
    """Grows the variables by rows and leaves where they are too small."""
    members = index._members.numpy()
    capacity = members.shape[1]
    free = np.count_nonzero(members < 0)
    missing_slots = len(vectors) * index._ways - free
    more_leaves = 0
    if missing_slots > 0:
        more_leaves = int(np.ceil(missing_slots * building.SLACK / capacity))
    more_rows = 0
    if missing_rows > 0:
        total = int(index._slots.shape[0] * _GROWTH)
        more_rows = max(missing_rows, total - index._slots.shape[0])
    if not more_leaves and not more_rows:
        return
    nothing = naming.padding_identifier(index._names_dtype)
    grown = {
        "centers": (more_leaves, 0),
        "vectors": (more_leaves, 0),
        "members": (more_leaves, -1),
        "slots": (more_rows, -1),
        "originals": (more_rows, 0),
        "identifiers": (more_rows, nothing),
        "keys": (more_rows, 0),
        "rows": (more_rows, 0),
    }
    values = _state(index)
    for name, value in values.items():
        if name in grown:
            count, filler = grown[name]
            more = tf.fill([count, *value.shape[1:]], tf.constant(filler, value.dtype))
            values[name] = tf.concat([value, more], axis=0)
    if more_leaves:
        centers = kmeans.train_centers(
            vectors, more_leaves, iterations=index.training_iterations, seed=index.seed
        )
        values["centers"] = tf.concat([index._centers, centers], axis=0)
    index._store(**values)


def _settle(index: Any, vectors: Floats, rows: Ints) -> Ints:
    """Finds slots `[n, A]` for new vectors and enters them into the books."""
    slots, members = index._slots.numpy(), index._members.numpy()
    capacity = members.shape[1]
    centers = index._centers.numpy()
    distances, choices = placement.choices_of([vectors], len(vectors), centers)
    taken = np.count_nonzero(members >= 0, axis=1).astype(np.int32)

    def fit(leaves: Ints) -> Ints:
        return placement.fit(
            leaves, distances, choices, taken, capacity, centers, vectors.__getitem__
        )

    leaves = fit(choices[:, 0])
    all_leaves = [leaves]
    if index._ways == 2:
        second = placement.second_choices(vectors, leaves, choices, centers)
        all_leaves.append(fit(second))
    # The free places of a leaf in turn, as `slots_of` would give them to an empty one.
    wanted = np.concatenate(all_leaves)
    order = np.argsort(wanted, kind="stable")
    rank = np.empty(len(wanted), np.int64)
    rank[order] = np.arange(len(wanted)) - np.searchsorted(wanted[order], wanted[order])
    free_first = np.argsort(members[wanted] >= 0, axis=1, kind="stable")
    place = free_first[np.arange(len(wanted)), rank]
    new = (wanted * capacity + place).astype(np.int32).reshape(index._ways, -1).T
    members.reshape(-1)[new] = rows[:, np.newaxis]
    slots[rows] = new
    index._assign(slots=slots, members=members)
    return np.ascontiguousarray(new)


def _state(index: Any) -> dict[str, tf.Tensor]:
    """The values of an index's variables."""
    return {
        name: tf.convert_to_tensor(variable)
        for name in index._STATE
        if (variable := getattr(index, f"_{name}")) is not None
    }


def _rename(index: Any, rows: Ints, names: npt.NDArray[Any] | None) -> None:
    """Enters new names of rows, or that they have none, and sorts all of them."""
    by_number = index._identifiers is None
    if by_number and (names is None or np.array_equal(names, rows)):
        return  # All are still called by the numbers of their rows.
    used = recall.used_rows(index)
    nothing = naming.padding_identifier(index._names_dtype)
    if by_number:
        held = np.full(index._slots.shape[0], nothing, np.int32)
        held[used] = used
    else:
        held = index._identifiers.numpy()
    held[rows] = nothing if names is None else names
    keys = np.full(len(held), np.iinfo(np.int64).max)
    row_of = np.zeros(len(held), np.int32)
    live_keys, order = naming.sorted_keys(tf.constant(held[used], index._names_dtype))
    keys[: len(used)], row_of[: len(used)] = live_keys, used[order]
    entries = {"identifiers": held, "keys": keys, "rows": row_of}
    if by_number:
        index._store(**_state(index) | entries)
    else:
        index._assign(**entries)


def _finish(index: Any, touched: Ints, changes: int) -> None:
    """Counts the changes and centers the touched leaves."""
    record = index._record.numpy()
    record[1] += changes
    index._assign(record=record)
    if not len(touched):
        return
    members = index._members.numpy()[touched]
    leaf, place = np.nonzero(members >= 0)
    statistics = building.LeafStatistics(len(touched), index._width)
    for start in range(0, len(leaf), sources.BLOCK_ROWS):
        part = slice(start, start + sources.BLOCK_ROWS)
        vectors = index.vectors_of(tf.constant(members[leaf[part], place[part]]))
        statistics.add(vectors.numpy(), leaf[part].astype(np.int32))
    centers = np.array(index._centers)
    centers[touched] = statistics.centers()
    index._assign(centers=centers)
