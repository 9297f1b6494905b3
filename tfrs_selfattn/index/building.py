"""From a source of candidates to leaves: what `PartitionedTopK.index` does first.

Three or four passes over the source, none of which holds it: a sample trains the
centers, every candidate gets a leaf, and the index writes the vectors into their slots
while `LeafStatistics` sees them go by.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.index import kmeans, placement, sources
from tfrs_selfattn.index.quantization import dimension_scales

Floats: TypeAlias = "npt.NDArray[np.float32]"
Ints: TypeAlias = "npt.NDArray[np.int32]"

_FORMS = {None: tf.float32, "bfloat16": tf.bfloat16, "int8": tf.int8}
# Slots for 108 where there are 100 candidates: room for leaves of unequal size and for
# new candidates. Less makes more of them strays, more is memory and time for nothing.
SLACK = 1.08
_SAMPLES_PER_LEAF = 25
# Up to here a search of everything takes as long as one of leaves.
_SEARCH_ALL = 20_000
_MOST_SAMPLES = 1_000_000
# Over all leaves: vectors beside the border of a group may belong into another one.
_BALANCED_ROUNDS = 3
# How far a leaf's center is moved out from the mean length to the longest vector's:
# a leaf is worth its best candidates, and those are long. Measured on data with spread
# lengths: .952 to .963 of the best 100 in 20 of 4,096 leaves.
_REACH = 0.5


class Layout(NamedTuple):
    """Where all goes: `slots` `[N, A]`, from `blank`, in leaves of `capacity`."""

    centers: Floats  # [L, D], as trained
    slots: Ints
    capacity: int


def default_num_leaves(num_candidates: int) -> int:
    """Leaves that suit a catalogue of this size: 8 √N, of at least 32 candidates."""
    return int(max(1, min(round(8 * num_candidates**0.5), num_candidates // 32)))


def default_num_probes(
    num_candidates: int, num_leaves: int, capacity: int, k: int, *, ways: int
) -> int:
    """Leaves to look into: all of a small catalogue, else a 150th, 32, and for 4 k."""
    if num_candidates <= _SEARCH_ALL:
        return num_leaves
    enough = -(-4 * k * ways // capacity)
    return min(max(32, num_leaves // 150, enough), num_leaves)


def capacity_of(num_candidates: int, num_leaves: int, ways: int) -> int:
    """Slots of a leaf: a function of sizes alone, so that checkpoints fit."""
    return int(np.ceil(SLACK * ways * num_candidates / num_leaves))


def lay_out(
    source: sources.Source,
    num_leaves: int,
    *,
    ways: int,
    cosine: bool,
    iterations: int,
    seed: int,
) -> Layout:
    """Trains centers and gives every candidate its slot, or its two.

    Args:
        source: the candidates.
        num_leaves: int, L, at most N.
        ways: 1 or 2. In how many leaves each candidate lies.
        cosine: bool. Whether candidates count with length 1.
        iterations: int. Rounds of k-means.
        seed: int.
    """
    capacity = capacity_of(source.size, num_leaves, ways)
    wanted = min(_SAMPLES_PER_LEAF * num_leaves, _MOST_SAMPLES)
    sample = prepared(sources.sample(source, wanted, seed), cosine)
    centers = kmeans.train_centers(sample, num_leaves, iterations=iterations, seed=seed)
    for _ in range(_BALANCED_ROUNDS):
        distances, choices = placement.choices_of([sample], len(sample), centers)
        leaves = placement.balanced(distances, choices, num_leaves)
        centers, _ = kmeans.leaf_means(sample, leaves, centers)
    del sample
    blocks = (prepared(block, cosine) for block in source.blocks())
    distances, choices = placement.choices_of(blocks, source.size, centers)
    taken = np.zeros(num_leaves, np.int32)

    def fit(leaves: Ints) -> Ints:
        return placement.fit(
            leaves,
            distances,
            choices,
            taken,
            capacity,
            centers,
            lambda rows: prepared(sources.rows_of(source, rows), cosine),
        )

    leaves = fit(placement.balanced(distances, choices, num_leaves))
    if ways == 1:
        slots = placement.slots_of(leaves, num_leaves, capacity)
        return Layout(centers, slots.reshape(-1, 1), capacity)
    second, start = np.empty_like(leaves), 0
    for block in source.blocks():
        part = slice(start, start + len(block))
        second[part] = placement.second_choices(
            prepared(block, cosine), leaves[part], choices[part], centers
        )
        start += len(block)
    second = fit(second)
    both = placement.slots_of(np.concatenate([leaves, second]), num_leaves, capacity)
    slots = sources.blank((source.size, 2), tf.int32)
    slots[:] = both.reshape(2, -1).T
    return Layout(centers, slots, capacity)


def prepared(block: Floats, cosine: bool) -> Floats:
    """A block as it is stored: scaled to length 1 where cosines are wanted."""
    return sources.unit(block) if cosine else block


def room_for(
    source: sources.Source,
    leaves: tuple[int, int],
    *,
    quantization: str | None,
    originals: str | None,
    cosine: bool,
) -> dict[str, npt.NDArray[Any]]:
    """Zeros for the vectors of candidates in all their forms, and the scales of int8.

    Args:
        source: the candidates.
        leaves: L, and the slots of each.
        quantization: None, `"bfloat16"` or `"int8"`. The form in leaves.
        originals: dtype of what to reorder by, None for none.
        cosine: bool. Whether candidates count with length 1.
    """
    width = source.width
    room = {"vectors": sources.blank((*leaves, width), _FORMS[quantization])}
    if originals is not None:
        dtype = tf.as_dtype(originals)
        room["originals"] = sources.blank((source.size, width), dtype)
    if quantization == "int8":
        largest = np.zeros(width, np.float32)
        for block in source.blocks():
            largest = np.maximum(largest, np.abs(prepared(block, cosine)).max(axis=0))
        room["scales"] = sources.blank((width,), tf.float32)
        room["scales"][:] = dimension_scales(largest)
    return room


class LeafStatistics:
    """Sums over the vectors of each leaf, for the centers that a search compares."""

    def __init__(self, num_leaves: int, width: int) -> None:
        self._sums = np.zeros([num_leaves, width], np.float32)
        self._sizes = np.zeros(num_leaves, np.int64)
        self._longest = np.zeros(num_leaves, np.float32)

    def add(self, vectors: Floats, leaves: Ints) -> None:
        """Takes in vectors `[n, D]` and the leaf `[n]` of each."""
        if not len(leaves):
            return
        order = np.argsort(leaves, kind="stable")
        found, starts = np.unique(leaves[order], return_index=True)
        self._sums[found] += np.add.reduceat(vectors[order], starts, axis=0)
        self._sizes += np.bincount(leaves, minlength=len(self._sizes))
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[order]
        longest = np.maximum.reduceat(lengths, starts)
        self._longest[found] = np.maximum(self._longest[found], longest)

    def centers(self) -> Floats:
        """The means `[L, D]`, moved out; zeros for leaves without a vector."""
        means = self._sums / np.maximum(self._sizes, 1)[:, np.newaxis]
        lengths = np.sqrt(np.einsum("ld,ld->l", means, means))
        out = (1 - _REACH) * lengths + _REACH * self._longest
        factor = out / np.where(lengths > 0, lengths, 1)
        result: Floats = (means * factor[:, np.newaxis]).astype(np.float32)
        return result
