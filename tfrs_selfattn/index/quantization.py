"""Leaf vectors in eight bits, rounded so that high scores stay true.

What an index returns are the highest products, so an error along a vector costs more
than one across it: queries that rank an item high point its way. ScaNN weighs the two
(Guo et al., ICML 2020, https://arxiv.org/abs/1908.10396, theorem 3.3); here each
coordinate may be rounded to the other neighbor where that lowers the weighted error.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = "npt.NDArray[np.float32]"
Bytes: TypeAlias = "npt.NDArray[np.int8]"

_LEVELS = 127
# The share of a query's length that lies along an item it ranks high, as in ScaNN.
THRESHOLD = 0.2


def dimension_scales(largest: Floats) -> Floats:
    """The step of each dimension `[D]`, from the largest absolute value in it."""
    scales: Floats = (largest / _LEVELS).astype(np.float32)
    scales[scales == 0] = 1
    return scales


def parallel_weight(width: int, threshold: float = THRESHOLD) -> float:
    """How much more an error along a vector weighs than one across it."""
    return (width - 1) * threshold**2 / (1 - threshold**2)


def quantize(vectors: Floats, scales: Floats, threshold: float = THRESHOLD) -> Bytes:
    """Rounds vectors to int8 multiples of `scales`, score-aware.

    Starts from the nearest multiples and goes over the dimensions once. Where the
    weight is not above 1 (few dimensions), the nearest multiples are kept.

    Args:
        vectors: float32 `[N, D]`.
        scales: float32 `[D]`.
        threshold: float in [0, 1). 0 rounds to nearest.

    Returns:
        int8 `[N, D]`.
    """
    steps = vectors / scales
    rounded: Floats = np.clip(np.rint(steps), -_LEVELS, _LEVELS)
    weight = parallel_weight(vectors.shape[1], threshold)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if weight <= 1 or not len(vectors):
        return rounded.astype(np.int8)
    directions = vectors / np.where(lengths > 0, lengths, 1)[:, np.newaxis]
    errors = (steps - rounded) * scales  # [N, D]
    along = np.einsum("nd,nd->n", errors, directions)  # [N]
    for dim, scale in enumerate(scales):
        error = errors[:, dim]
        move = np.where(error >= 0, scale, -scale)  # to the neighbor across
        shift = move * directions[:, dim]
        # The loss is |e|² + (weight - 1) (e · direction)²; e loses `move` in one place.
        change = move * (move - 2 * error)
        change += np.float32(weight - 1) * shift * (shift - 2 * along)
        target = rounded[:, dim] + np.sign(move)
        better = (change < 0) & (np.abs(target) <= _LEVELS)
        rounded[:, dim] = np.where(better, target, rounded[:, dim])
        along -= np.where(better, shift, 0)
    return rounded.astype(np.int8)
