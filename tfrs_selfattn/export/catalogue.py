"""The items of an export: which ids it knows, and what it may answer with.

Three numberings meet here. A *number* is the place of an id in the vocabulary, of
every id the export has ever known. A *row* is the place of an item that may be
answered, 0..N-1; an item that a refresh took out has none, and still counts in
histories. A *tower index* is what the query tower reads, from 1; an item that a refresh
added has none (0), and is answered all the same. In an export fresh from training, row
r, number r and tower index r + 1 are one item.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.export.popularity import Popularity


class Names(tf.Module):  # type: ignore[misc]
    """From ids to rows and to tower indices.

    Args:
        vocabulary_file: path of a file with the known ids, one a line; saved as asset.
        rows: int `[K]`, the row of each, -1 for one that is not answered.
        tower_indices: int `[K]`, the tower index of each, 0 for none.
    """

    def __init__(
        self,
        vocabulary_file: str | os.PathLike[str],
        rows: npt.ArrayLike,
        tower_indices: npt.ArrayLike,
    ) -> None:
        super().__init__(name="names")
        self.numbers = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                os.fspath(vocabulary_file),
                key_dtype=tf.string,
                key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
                value_dtype=tf.int64,
                value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            default_value=-1,
        )
        # Shifted by one, since number -1 is what is not known.
        self.rows = _constant([-1, *np.asarray(rows)], "rows")
        self.tower_indices = _constant([0, *np.asarray(tower_indices)], "tower_indices")

    def find(self, ids: tf.Tensor) -> tf.Tensor:
        """The place of each id in `rows` and `tower_indices`: int32, 0 if unknown."""
        return tf.cast(self.numbers.lookup(ids), tf.int32) + 1

    def rows_of(self, ids: tf.Tensor) -> tf.Tensor:
        """The row of each id in int32; -1 for padding and what is not answered."""
        return tf.gather(self.rows, self.find(ids))


class Catalogue(tf.Module):  # type: ignore[misc]
    """The items that may be answered, N of them, as variables.

    Args:
        candidates: variable float32 `[N, D]`.
        ids: string `[N]`.
        counts: int `[N]`, events of each item.
        all_events: float. Those of the items of other shards included; None adds the
            counts up. Defaults to `None`.
    """

    def __init__(
        self,
        candidates: tf.Variable,
        ids: npt.NDArray[np.object_],
        counts: npt.ArrayLike,
        all_events: float | None = None,
    ) -> None:
        super().__init__(name="catalogue")
        self.candidates = candidates
        # The identifier of row r lies at r + 1, since "" stands for row -1, nothing.
        names = np.concatenate([np.array([b""], object), ids])
        self.identifiers = tf.Variable(names, trainable=False, name="identifiers")
        self.popularity = Popularity(counts, all_events)

    def names_of(self, rows: tf.Tensor) -> tf.Tensor:
        """The id of each row, `""` for -1."""
        return tf.gather(self.identifiers, rows + 1)

    def vectors_of(self, rows: tf.Tensor) -> tf.Tensor:
        """The vector of each row, zeros for -1."""
        # Not gathered from the variable: whatever is, TensorFlow copies as a whole at
        # every later read, 20 ms for a million items in each search.
        candidates = tf.convert_to_tensor(self.candidates)
        vectors = tf.gather(candidates, tf.maximum(rows, 0))
        return tf.where(rows[..., tf.newaxis] >= 0, vectors, 0.0)


def _constant(values: npt.ArrayLike, name: str) -> tf.Variable:
    return tf.Variable(np.asarray(values, np.int32), trainable=False, name=name)
