"""Which leaf each candidate of a catalogue lies in, with room for all and few strays.

The candidates' few nearest leaves are found block by block; then prices (see `kmeans`)
even out the leaves over the whole catalogue, and what still does not fit moves where it
costs least. At most some dozen bytes a candidate are held at once.

Shape alphabet: N candidates, L leaves, Q capacity of a leaf, T choices a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.index import kmeans, sources
from tfrs_selfattn.ops.top_k import blocks_top_k

Floats: TypeAlias = "npt.NDArray[np.float32]"
Ints: TypeAlias = "npt.NDArray[np.int32]"
Rows: TypeAlias = "npt.NDArray[np.int64]"

_CHOICES = 8
_BLOCK = 64  # leaves; twice as fast as one level over 8,000 of them
_SCORES = 2_000_000  # that are held at once, 8 MB
_ROUNDS = 30
_BLOCK_ROWS = 65_536
_SEARCHES = 8  # for room, by those whose nearest leaves are full
_STEP = 0.1  # of the mean half squared distance, for a leaf that holds twice its share


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None]),
        tf.TensorSpec([None, None]),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.int32),
    ],
    autograph=False,
)  # type: ignore[untyped-decorator]
def _closest(
    vectors: tf.Tensor, table: tf.Tensor, count: tf.Tensor, block: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    rows = tf.shape(vectors)[0]
    with_one = tf.concat([vectors, tf.ones([rows, 1])], axis=1)
    closeness = tf.matmul(with_one, table, transpose_b=True)
    values, leaves = tf.cond(
        block > 1,
        lambda: blocks_top_k(tf.reshape(closeness, [rows, -1, block]), count),
        lambda: tuple(tf.math.top_k(closeness, count)),
    )
    lengths = 0.5 * tf.reduce_sum(tf.square(vectors), axis=1, keepdims=True)
    return lengths - values, leaves


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None]),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None]),
    ],
    autograph=False,
)  # type: ignore[untyped-decorator]
def _cheapest(distances: tf.Tensor, choices: tf.Tensor, prices: tf.Tensor) -> tf.Tensor:
    costs = distances + tf.gather(prices, choices)
    best = tf.argmin(costs, axis=1, output_type=tf.int32)
    return tf.gather(choices, best, batch_dims=1)


def choices_of(
    blocks: Iterable[Floats], size: int, centers: Floats
) -> tuple[Floats, Ints]:
    """Half squared distances `[N, T]` to the T nearest leaves, and these `[N, T]`.

    Args:
        blocks: vectors float32 `[rows, D]` at a time, in order.
        size: int. N, all rows together.
        centers: float32 `[L, D]`.
    """
    count = min(_CHOICES, len(centers))
    group = _BLOCK if len(centers) >= _BLOCK * count else 1  # leaves
    table = tf.constant(_with_costs(centers, group))
    sizes = tf.constant(count), tf.constant(group)
    step = max(256, _SCORES // len(table))
    distances = sources.blank((size, count), tf.float32)
    choices = sources.blank((size, count), tf.int32)
    done = 0
    for block in blocks:
        for start in range(0, len(block), step):
            part = tf.constant(block[start : start + step])
            near, leaves = _closest(part, table, *sizes)
            rows = slice(done, done + part.shape[0])
            distances[rows], choices[rows] = near.numpy(), leaves.numpy()
            done = rows.stop
    return distances, choices


def _with_costs(centers: Floats, block: int) -> Floats:
    """Centers `[L', D + 1]` for vectors that end in 1, in whole blocks.

    The product is then the closeness itself: no pass over L numbers a vector to take
    off costs, and none to pad.
    """
    table = np.zeros([-(-len(centers) // block) * block, centers.shape[1] + 1], "f4")
    table[: len(centers), :-1] = centers
    table[: len(centers), -1] = -kmeans.half_squares(centers)
    table[len(centers) :, -1] = np.finfo(np.float32).min
    return table


def balanced(distances: Floats, choices: Ints, num_leaves: int) -> Ints:
    """One leaf `[N]` of each row's choices `[N, T]`, so that leaves hold equal shares.

    Not quite equal: prices only go as far as the vectors' distances justify.
    """
    prices = np.zeros(num_leaves, np.float32)
    share = len(choices) / num_leaves
    scale = _STEP * float(distances[:, 0].mean())
    for step in range(_ROUNDS):
        leaves = _best_buys(distances, choices, prices)
        fullness = np.clip(np.bincount(leaves, minlength=num_leaves) / share - 1, -1, 1)
        prices += np.float32(scale * (1 - step / _ROUNDS)) * fullness.astype(np.float32)
    return _best_buys(distances, choices, prices)


def _best_buys(distances: Floats, choices: Ints, prices: Floats) -> Ints:
    """Which leaf `[N]` is cheapest for each row, in blocks that need little memory."""
    leaves, held = np.empty(len(choices), np.int32), tf.constant(prices)
    for start in range(0, len(choices), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        leaves[rows] = _cheapest(
            tf.constant(distances[rows]), tf.constant(choices[rows]), held
        ).numpy()
    return leaves


def fit(
    leaves: Ints,
    distances: Floats,
    choices: Ints,
    taken: Ints,
    most: int,
    centers: Floats,
    vectors_of: Callable[[Rows], Floats],
) -> Ints:
    """Moves rows out of leaves that would hold more than `most`.

    Those go first that lose least by it, and each to its nearest leaf with room. Who
    finds none among his choices looks among all leaves that have room left: in dense
    regions all neighbors are full, and a row far from its leaf is never found.

    Args:
        leaves: int32 `[N]`.
        distances, choices: as `choices_of` gives them.
        taken: int32 `[L]`, slots that are not free any more; kept up to date.
        most: int, Q.
        centers: float32 `[L, D]`.
        vectors_of: gives the vectors float32 `[n, D]` of rows `[n]`.

    Returns:
        int32 `[N]`.
    """
    leaves, homeless = _fit_choices(leaves, distances, choices, taken, most)
    for _ in range(_SEARCHES):
        if not len(homeless):
            break
        roomy = np.flatnonzero(taken < most).astype(np.int32)
        vectors = vectors_of(homeless)
        distances, near = choices_of([vectors], len(vectors), centers[roomy])
        choices = roomy[near]
        found, rest = _fit_choices(choices[:, 0], distances, choices, taken, most)
        leaves[homeless] = found
        homeless = homeless[rest]
    emptiest = np.argsort(taken, kind="stable")
    room = np.repeat(emptiest, most - taken[emptiest])[: len(homeless)]
    _settle(leaves, homeless, room, taken)
    return leaves


def _fit_choices(
    leaves: Ints, distances: Floats, choices: Ints, taken: Ints, most: int
) -> tuple[Ints, Rows]:
    """`fit` among each row's choices, and the rows that found no room there."""
    leaves = leaves.copy()
    num_leaves = len(taken)
    sizes = np.bincount(leaves, minlength=num_leaves)
    regret = _regret(leaves, distances, choices)
    order = np.lexsort((-regret, leaves))  # by leaf, the most attached first
    place = np.empty(len(leaves), np.int64)
    sorted_leaves = leaves[order]
    place[order] = np.arange(len(leaves)) - (np.cumsum(sizes) - sizes)[sorted_leaves]
    homeless = np.flatnonzero(place + taken[leaves] >= most)
    homeless = homeless[np.argsort(-regret[homeless], kind="stable")]
    taken[:] = np.minimum(taken + sizes, most)
    for choice in range(choices.shape[1]):
        wanted = choices[homeless, choice]
        by_leaf = np.argsort(wanted, kind="stable")
        sorted_wanted = wanted[by_leaf]
        rank = np.arange(len(wanted)) - np.searchsorted(sorted_wanted, sorted_wanted)
        fits = by_leaf[rank < most - taken[sorted_wanted]]
        _settle(leaves, homeless[fits], wanted[fits], taken)
        homeless = np.delete(homeless, fits)
    return leaves, homeless


def _settle(
    leaves: Ints, rows: npt.NDArray[Any], places: npt.NDArray[Any], taken: Ints
) -> None:
    leaves[rows] = places
    taken += np.bincount(places, minlength=len(taken)).astype(taken.dtype)


def second_choices(
    vectors: Floats, leaves: Ints, choices: Ints, centers: Floats, weight: float = 1.0
) -> Ints:
    """A second leaf for each row: near, and off in another direction (SOAR).

    Minimizes |r'|² + weight · (r' · r / |r|)² over the row's choices, with r and r' its
    distances from the first and the second center (Sun et al., NeurIPS 2023,
    https://arxiv.org/abs/2404.00774, theorem 3.1): a query for which the first center
    is a bad guide finds the row by the second.

    Args:
        vectors: float32 `[N, D]`.
        leaves: int32 `[N]`, the first leaf.
        choices: int32 `[N, T]`.
        centers: float32 `[L, D]`.
        weight: float.

    Returns:
        int32 `[N]`; the first leaf again where there is no other choice.
    """
    first = vectors - centers[leaves]
    lengths = np.sqrt(np.einsum("nd,nd->n", first, first))
    first /= np.where(lengths > 0, lengths, 1)[:, np.newaxis]
    second = leaves.copy()
    least = np.full(len(vectors), np.inf, np.float32)
    for choice in range(choices.shape[1]):
        leaf = choices[:, choice]
        other = vectors - centers[leaf]
        along = np.einsum("nd,nd->n", other, first)
        loss = np.einsum("nd,nd->n", other, other) + np.float32(weight) * along**2
        better = (loss < least) & (leaf != leaves)
        second[better], least[better] = leaf[better], loss[better]
    return second


def _regret(leaves: Ints, distances: Floats, choices: Ints) -> Floats:
    """What a row loses when it leaves its leaf for the next best, about."""
    regret = np.empty(len(leaves), np.float32)
    for start in range(0, len(leaves), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        own = choices[rows] == leaves[rows, np.newaxis]
        other = np.where(own, np.float32(np.inf), distances[rows]).min(axis=1)
        place = np.argmax(own, axis=1)[:, np.newaxis]
        here = np.take_along_axis(distances[rows], place, axis=1)[:, 0]
        regret[rows] = other - here
    return regret


def slots_of(leaves: Ints, num_leaves: int, capacity: int) -> Ints:
    """The slot (leaf · Q + place) of each row, places in the order of the rows."""
    order = np.argsort(leaves, kind="stable")
    sizes = np.bincount(leaves, minlength=num_leaves)
    place = np.arange(len(leaves)) - (np.cumsum(sizes) - sizes)[leaves[order]]
    slots = sources.blank((len(leaves),), tf.int32)
    slots[order] = leaves[order] * capacity + place
    return slots
