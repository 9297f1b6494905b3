"""K-means for the leaves of a partitioned index: many, small and of nearly equal size.

Two levels make it fast: about √L groups, then leaves inside each group; `building`
has the last rounds, over all leaves together. Prices make it balanced: a leaf that
holds more than its share gets dearer, so its boundary moves and its outer vectors go to
neighbors, where a search that comes near them looks anyway. TensorFlow multiplies,
NumPy keeps the books; the same seed gives the same bytes.

Shape alphabet: S sampled vectors, D width, L leaves.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Floats: TypeAlias = "npt.NDArray[np.float32]"
Ints: TypeAlias = "npt.NDArray[np.int32]"

# Distances that are held at once: 6 MB, whatever the number of leaves.
_SCORES = 1_500_000
# Of the mean squared distance, for a leaf twice its share. Small steps, because every
# round sets the prices anew from what the last one gave.
_PRICE_STEP = 0.2
_SMALL, _LARGE = 0.3, 1.6  # shares below and above which centers are moved


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None]),
        tf.TensorSpec([None, None]),
        tf.TensorSpec([None]),
    ],
    autograph=False,
)  # type: ignore[untyped-decorator]
def _nearest(vectors: tf.Tensor, centers: tf.Tensor, costs: tf.Tensor) -> tf.Tensor:
    closeness = tf.matmul(vectors, centers, transpose_b=True) - costs  # [S, L]
    return tf.argmax(closeness, axis=1, output_type=tf.int32)


def half_squares(vectors: Floats) -> Floats:
    """Half the squared length of each row."""
    result: Floats = np.float32(0.5) * np.einsum("ld,ld->l", vectors, vectors)
    return result


def block_rows(num_centers: int) -> int:
    """How many vectors to compare with so many centers at once."""
    return max(256, _SCORES // max(num_centers, 1))


def nearest_leaves(
    vectors: Floats, centers: Floats, prices: Floats | None = None
) -> Ints:
    """The nearest center of each vector, after adding each center's price.

    Args:
        vectors: float32 `[S, D]`.
        centers: float32 `[L, D]`.
        prices: float32 `[L]` or None, in units of half a squared distance.

    Returns:
        int32 `[S]`.
    """
    costs = half_squares(centers)
    if prices is not None:
        costs = costs + prices
    step = block_rows(len(centers))
    held, held_costs = tf.constant(centers), tf.constant(costs)
    parts = [
        _nearest(tf.constant(vectors[start : start + step]), held, held_costs).numpy()
        for start in range(0, len(vectors), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def leaf_means(
    vectors: Floats, leaves: Ints, old: Floats
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The mean of each leaf's vectors (the old center if it has none), and its size."""
    sizes = np.bincount(leaves, minlength=len(old))
    order = np.argsort(leaves, kind="stable")
    filled = sizes > 0
    starts = (np.cumsum(sizes) - sizes)[filled]
    centers = old.copy()
    if len(vectors):
        sums = np.add.reduceat(vectors[order], starts, axis=0)
        centers[filled] = sums / sizes[filled, np.newaxis]
    return centers, sizes


def train_centers(
    sample: Floats, num_leaves: int, *, iterations: int, seed: int
) -> Floats:
    """Centers of `num_leaves` leaves that hold nearly equal shares of the sample.

    Args:
        sample: float32 `[S, D]`, S at least 1; may be fewer than the leaves.
        num_leaves: int, L.
        iterations: int. Rounds of each k-means.
        seed: int. The same seed gives the same centers.

    Returns:
        float32 `[L, D]`.
    """
    draw = np.random.default_rng(seed)
    num_groups = max(1, round(num_leaves**0.5))
    groups = _lloyd(sample, num_groups, iterations, draw)
    group_of = nearest_leaves(sample, groups)
    sizes = np.bincount(group_of, minlength=num_groups)
    members = np.argsort(group_of, kind="stable")
    ends = np.cumsum(sizes)
    parts = []
    for group, quota in enumerate(_quotas(sizes, num_leaves)):
        inside = sample[members[ends[group] - sizes[group] : ends[group]]]
        if quota and not len(inside):
            inside = groups[group : group + 1]
        if quota:
            parts.append(_lloyd(inside, quota, iterations, draw))
    return np.concatenate(parts)


def _quotas(sizes: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """Shares `total` among groups by size (largest remainder)."""
    ideal = sizes / sizes.sum() * total
    quotas = np.floor(ideal).astype(np.int64)
    order = np.argsort(quotas - ideal, kind="stable")
    quotas[order[: total - quotas.sum()]] += 1
    result: npt.NDArray[np.int64] = quotas
    return result


def _lloyd(
    vectors: Floats,
    num_centers: int,
    iterations: int,
    draw: np.random.Generator,
) -> Floats:
    """Rounds of k-means with prices, from centers that are drawn from the vectors."""
    scarce = len(vectors) < num_centers
    centers = vectors[np.sort(draw.choice(len(vectors), num_centers, replace=scarce))]
    prices = np.zeros(num_centers, np.float32)
    share = len(vectors) / num_centers
    mean_square = float(half_squares(vectors).mean())
    for round_number in range(iterations):
        leaves = nearest_leaves(vectors, centers, prices)
        centers, sizes = leaf_means(vectors, leaves, centers)
        if num_centers == 1:
            break
        # What is left of the vectors' lengths is their distance to the centers.
        within = mean_square - float(half_squares(centers) @ sizes) / len(vectors)
        step = np.float32(_PRICE_STEP * max(within, 0))
        fullness = np.minimum(sizes / share - 1, 1)
        prices = prices + step * fullness.astype(np.float32)
        if round_number < iterations - 2:
            _move_small(centers, prices, sizes, share, draw)
    return centers


def _move_small(
    centers: Floats,
    prices: Floats,
    sizes: npt.NDArray[np.int64],
    share: float,
    draw: np.random.Generator,
) -> None:
    """Moves the centers of tiny leaves beside those of huge ones, in place."""
    small = np.flatnonzero(sizes < _SMALL * share)
    large = np.flatnonzero(sizes > _LARGE * share)
    count = min(len(small), len(large))
    if not count:
        return
    small = small[np.argsort(sizes[small], kind="stable")][:count]
    large = large[np.argsort(-sizes[large], kind="stable")][:count]
    step = draw.standard_normal((count, centers.shape[1]), dtype=np.float32)
    step *= (
        np.float32(0.1)
        * np.sqrt(half_squares(centers[large]) / np.maximum(half_squares(step), 1e-30))[
            :, np.newaxis
        ]
    )
    centers[small] = centers[large] - step
    centers[large] += step
    prices[small] = prices[large] = 0
