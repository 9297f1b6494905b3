"""What the candidates of an index are called, and how a name finds its row.

A sorted list of keys and a binary search, both over plain variables: no lookup table
to initialize, nothing of the catalogue's size in the graph, and one form for
checkpoints, SavedModels and servers. For integers the key is the identifier; for
strings it is a 63-bit fingerprint, and the identifier itself is compared after the
search, so that an unknown string never passes for a known one. Where identifiers are
the numbers of the rows, as they are by default, there is nothing to keep.

Shape alphabet: N candidates, B users, E identifiers a user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn.ops.top_k import PADDING_ROW

DTYPES = (tf.string, tf.int32, tf.int64)

_FINGERPRINTS = 2**63 - 1
# Two strings that share a fingerprint (one catalogue of 10 million items in 180,000)
# lie beside each other, and both are compared.
_PROBES = 2


def padding_identifier(dtype: tf.DType) -> str | int:
    """The identifier that stands for "no candidate": `""` or -1."""
    return "" if dtype == tf.string else -1


def keys_of(identifiers: tf.Tensor) -> tf.Tensor:
    """The int64 keys that identifiers are sorted and searched by, in any shape."""
    if identifiers.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(identifiers, _FINGERPRINTS)
    return tf.cast(identifiers, tf.int64)


def sorted_keys(identifiers: tf.Tensor) -> tuple[np.ndarray[Any, Any], ...]:
    """Checks the identifiers of a catalogue and sorts them for `find_rows`.

    Args:
        identifiers: string, int32 or int64 `[N]`.

    Returns:
        keys int64 `[N]`, ascending, and the row int32 `[N]` that each belongs to.

    Raises:
        ValueError: when an identifier occurs twice or is the padding identifier.
    """
    names = identifiers.numpy()
    reserved = padding_identifier(identifiers.dtype)
    taken = np.flatnonzero(names == (b"" if reserved == "" else reserved))
    if taken.size:
        raise ValueError(
            f"`identifiers` must not contain {reserved!r}, which marks the columns of "
            f"an answer that hold no candidate. Received: {reserved!r} in row "
            f"{taken[0]}. Give that candidate another identifier or leave it out."
        )
    keys = keys_of(identifiers).numpy()
    order = np.argsort(keys, kind="stable").astype(np.int32)
    keys = keys[order]
    # Equal names have equal keys, so only runs of equal keys can hide a duplicate.
    for start in np.flatnonzero(keys[1:] == keys[:-1]):
        first, second = order[start], order[start + 1]
        if names[first] == names[second]:
            raise ValueError(
                f"`identifiers` must be unique. Received: {_shown(names[first])} in "
                f"rows {first} and {second}. Remove the duplicate."
            )
        if np.count_nonzero(keys[start : start + _PROBES + 1] == keys[start]) > _PROBES:
            raise ValueError(
                "`identifiers` must not share fingerprints. Received: "
                f"{_shown(names[first])} and {_PROBES} more with the same one. "
                "Rename one of them."
            )
    return keys, order


def kept(identifiers: tf.Tensor | None) -> dict[str, Any]:
    """Checks the identifiers of a catalogue; gives what an index keeps of them.

    Args:
        identifiers: string, int32 or int64 `[N]`; None for the numbers of the rows.

    Returns:
        `identifiers`, and `keys` and `rows` as `sorted_keys` gives them; nothing where
        the identifier of each row is its number, in int32.

    Raises:
        ValueError: as `sorted_keys` does.
    """
    if identifiers is None:
        return {}
    if identifiers.dtype == tf.int32:
        numbers = np.arange(len(identifiers), dtype=np.int32)
        if np.array_equal(identifiers.numpy(), numbers):
            return {}
    keys, rows = sorted_keys(identifiers)
    return {"identifiers": identifiers, "keys": keys, "rows": rows}


def _shown(name: Any) -> str:
    return (
        repr(name.decode("utf-8", "replace")) if isinstance(name, bytes) else f"{name}"
    )


def find_rows(
    wanted: tf.Tensor, identifiers: tf.Tensor, keys: tf.Tensor, rows: tf.Tensor
) -> tf.Tensor:
    """The row of each wanted identifier, -1 for an unknown one.

    Args:
        wanted: string or int `[B, E]`; either size may be unknown.
        identifiers: `[N]`.
        keys: int64 `[N]`, as `sorted_keys` gives them.
        rows: int32 `[N]`, likewise.

    Returns:
        int32 `[B, E]`.
    """
    flat = tf.reshape(wanted, [-1])  # [B * E]
    wanted_keys = keys_of(flat)
    place = tf.searchsorted(keys, wanted_keys)
    last = tf.shape(keys)[0] - 1
    found = tf.fill(tf.shape(flat), PADDING_ROW)
    for probe in range(_PROBES if wanted.dtype == tf.string else 1):
        row = tf.gather(rows, tf.minimum(place + probe, last))
        name = tf.gather(identifiers, row)
        # Integers are compared as keys: an int64 may not fit the catalogue's int32.
        same = name == flat if name.dtype == tf.string else keys_of(name) == wanted_keys
        found = tf.where(same, row, found)
    return tf.reshape(found, tf.shape(wanted))


def rows_by_number(wanted: tf.Tensor) -> tf.Tensor:
    """`find_rows` where rows are called by their numbers.

    Int32 `[B, E]`; also numbers of rows that an index does not have, which its search
    ignores.
    """
    wanted = tf.cast(wanted, tf.int64)
    possible = tf.logical_and(wanted >= 0, wanted <= tf.int32.max)
    return tf.cast(tf.where(possible, wanted, PADDING_ROW), tf.int32)


def name_rows(rows: tf.Tensor, identifiers: tf.Tensor | None) -> tf.Tensor:
    """The identifiers of rows, and the padding identifier for row -1.

    None stands for identifiers that are the rows' numbers.
    """
    if identifiers is None:
        return rows  # the padding identifier of integers is -1 as well
    names = tf.gather(identifiers, tf.maximum(rows, 0))
    padding = tf.constant(padding_identifier(identifiers.dtype), identifiers.dtype)
    return tf.where(rows == PADDING_ROW, padding, names)
