"""From category names to tokens, without a lookup table that a graph must initialize.

A name is known by its 64-bit fingerprint, found by binary search among those of the
vocabulary. The fingerprint is FarmHash's, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError

_SPACE = (1 << 63) - 1


def common_names(names: Sequence[bytes], min_count: int) -> tuple[list[str], bool]:
    """The names that occur often enough, most frequent first, and if some do not."""
    found, counts = np.unique(np.array(names, object), return_counts=True)
    frequent = counts >= min_count
    order = np.lexsort((found[frequent], -counts[frequent]))
    kept = [name.decode("utf-8", "replace") for name in found[frequent][order]]
    return kept, not bool(frequent.all())


def vocabulary_state(
    names: Sequence[str], place: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Fingerprints in ascending order, and the place of each in the vocabulary."""
    prints = np.asarray(fingerprints(np.array([n.encode() for n in names], object)))
    order = np.argsort(prints, kind="stable")
    if (np.diff(prints[order]) == 0).any():
        raise InputError(
            f"{place} must hold names that can be told apart by 64 bits. Received: two "
            "with the same fingerprint. Rename one of them."
        )
    # A last one beyond all, so that the search always ends at an entry.
    return {
        "prints": np.append(prints[order], np.int64(_SPACE)),
        "places": np.append(order, -1).astype(np.int64),
    }


def fingerprints(names: Any) -> Any:
    """The fingerprint of each string: int64 of the same shape."""
    import tensorflow as tf

    if len(names.shape) == 1 and isinstance(names, np.ndarray) and not len(names):
        return np.zeros(0, np.int64)
    return tf.strings.to_hash_bucket_fast(names, _SPACE)


def look_up(names: Any, state: Any) -> Any:
    """The place of each string `[n]` in the vocabulary: int32, -1 for none."""
    import tensorflow as tf

    prints = fingerprints(names)
    at = tf.searchsorted(state["prints"], prints)
    found = tf.gather(state["prints"], at) == prints
    return tf.cast(tf.where(found, tf.gather(state["places"], at), -1), tf.int32)


def bucket_of(names: Any, num_buckets: int) -> Any:
    """A bucket from 0 to `num_buckets` - 1 for each string: int32."""
    import tensorflow as tf

    # Of the fingerprint's upper bits: the lower ones find the place in the vocabulary.
    return tf.cast((fingerprints(names) // 65_537) % num_buckets, tf.int32)
