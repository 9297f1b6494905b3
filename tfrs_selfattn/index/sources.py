"""Where candidates come from: a matrix in memory or on disk, or a dataset.

A source is read in blocks and as often as an index needs, so that none needs a second
copy of a large catalogue. The checks of candidates and identifiers are here.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.index import identifiers as naming

Floats: TypeAlias = "npt.NDArray[np.float32]"

# Small enough that what is computed of a block stays in the processor's cache.
BLOCK_ROWS = 4_096
_ALIGNMENT = 64  # of TensorFlow's tensors, in bytes


class Source(Protocol):
    """A catalogue of `size` candidates, `width` wide.

    Their identifiers are a tensor `[N]`, or None for the numbers of the rows.
    """

    size: int
    width: int
    identifiers: tf.Tensor | None

    def blocks(self) -> Iterator[Floats]:
        """The candidates in order, float32 `[rows, D]` at a time, all finite.

        Blocks of `BLOCK_ROWS` rows, whatever they come from: sums over them, and with
        them an index, are then the same to the last bit.
        """


class Matrix:
    """Candidates that are one array `[N, D]`, which may be mapped from a file."""

    def __init__(self, candidates: Any, identifiers: Any = None) -> None:
        if tf.is_tensor(candidates) or isinstance(candidates, tf.Variable):
            candidates = candidates.numpy()
        elif not isinstance(candidates, np.ndarray):
            candidates = tf.convert_to_tensor(candidates).numpy()
        if candidates.ndim != 2 or 0 in candidates.shape:
            raise ValueError(
                "`candidates` must be a matrix [candidates, width] with at least one "
                f"candidate. Received: shape {tuple(candidates.shape)}. "
                "Pass one embedding a row."
            )
        _check_floating(candidates.dtype)
        self.size, self.width = candidates.shape
        self._candidates = candidates
        self.identifiers: tf.Tensor | None = None
        if identifiers is not None:
            self.identifiers = _checked_identifiers(identifiers, self.size)
        for _ in self.blocks():  # checks them, before anything is changed
            pass

    def blocks(self) -> Iterator[Floats]:
        for start in range(0, self.size, BLOCK_ROWS):
            rows = self._candidates[start : start + BLOCK_ROWS]
            yield _checked_block(rows, start)


class Dataset:
    """Candidates of a `tf.data.Dataset`, which is read several times."""

    def __init__(self, dataset: tf.data.Dataset) -> None:
        spec = dataset.element_spec
        if isinstance(spec, tuple) and len(spec) != 2:
            raise ValueError(
                "`candidates` must yield embeddings or pairs (identifiers, embeddings)."
                f" Received: {spec}. Map the dataset to such pairs."
            )
        self._named = isinstance(spec, tuple)
        self._dataset = dataset
        self.size, self.width = 0, 0
        names = []
        for batch in dataset:
            rows = batch[1] if self._named else batch
            if rows.shape.rank != 2:
                raise ValueError(
                    "`candidates` must yield matrices [candidates, width]. Received: "
                    f"a batch of shape {tuple(rows.shape)}. Batch the dataset."
                )
            _check_floating(rows.dtype)
            if self._named:
                names.append(_checked_identifiers(batch[0], rows.shape[0]))
            _checked_block(rows.numpy(), self.size)
            self.size, self.width = self.size + rows.shape[0], rows.shape[1]
        if not self.size:
            raise ValueError(
                "`candidates` must yield at least one batch of candidates. Received: "
                "an empty dataset. Check the dataset, or whether it was used up."
            )
        self.identifiers: tf.Tensor | None = tf.concat(names, 0) if names else None

    def blocks(self) -> Iterator[Floats]:
        block = np.empty([min(BLOCK_ROWS, self.size), self.width], np.float32)
        start, filled = 0, 0
        for batch in self._dataset:
            rows = (batch[1] if self._named else batch).numpy()
            if rows.shape[1] != self.width or start + len(rows) > self.size:
                break
            rows = _checked_block(rows, start)
            start += len(rows)
            while len(rows):
                part = rows[: len(block) - filled]
                block[filled : filled + len(part)] = part
                filled, rows = filled + len(part), rows[len(part) :]
                if filled == len(block):
                    yield block
                    block, filled = np.empty_like(block), 0
        if filled:
            yield block[:filled]
        if start != self.size:
            raise ValueError(
                "`candidates` must yield the same batches each time it is read. "
                f"Received: {self.size} candidates at first, then others. Cache the "
                "dataset, or pass a matrix to `index`."
            )


def as_source(candidates: Any, identifiers: Any) -> Source:
    """The source that arguments of `index` describe."""
    return Matrix(candidates, identifiers)


def sample(source: Source, size: int, seed: int) -> Floats:
    """Candidates drawn without replacement, in the order of their rows."""
    draw = np.random.default_rng(seed)
    if size >= source.size:
        return rows_of(source, np.arange(source.size))
    return rows_of(source, np.sort(draw.choice(source.size, size, replace=False)))


def rows_of(source: Source, chosen: npt.NDArray[np.int64]) -> Floats:
    """The candidates float32 `[n, D]` in rows `[n]`, which may have any order."""
    order = np.argsort(chosen, kind="stable")
    ascending = chosen[order]
    result = np.empty([len(chosen), source.width], np.float32)
    start = 0
    for block in source.blocks():
        low, high = np.searchsorted(ascending, [start, start + len(block)])
        result[order[low:high]] = block[ascending[low:high] - start]
        start += len(block)
    return result


def blank(shape: tuple[int, ...], dtype: tf.DType) -> npt.NDArray[Any]:
    """Zeros that `adopted` can make a tensor of.

    In pages of their own, which go back to the system as soon as nobody holds them. An
    allocator keeps what it is given back, and a catalogue is large.
    """
    form = np.dtype(dtype.as_numpy_dtype)
    size = int(np.prod(shape)) * form.itemsize
    if hasattr(mmap, "MAP_ANONYMOUS"):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        memory = np.frombuffer(mmap.mmap(-1, max(size, 1), flags=flags), np.uint8)
    else:  # Windows
        memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    result: npt.NDArray[Any] = memory[start : start + size].view(form).reshape(shape)
    return result


def adopted(array: npt.NDArray[Any], dtype: tf.DType) -> tf.Tensor:
    """A tensor in the memory of an array from `blank`, which nobody may write again.

    A tensor, and a variable after it, would otherwise be a copy each.
    """
    if dtype == tf.bfloat16:  # unknown to NumPy, hence to DLPack
        return tf.bitcast(adopted(array.view(np.uint16), tf.uint16), dtype)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def whole(source: Source) -> Floats:
    """All candidates in one array."""
    result = blank((source.size, source.width), tf.float32)
    start = 0
    for block in source.blocks():
        result[start : start + len(block)] = block
        start += len(block)
    return result


def _check_floating(dtype: Any) -> None:
    if not tf.as_dtype(dtype).is_floating:
        raise ValueError(
            "`candidates` must be floating point. Received: "
            f"{tf.as_dtype(dtype).name}. Pass embeddings, not identifiers."
        )


def _checked_block(rows: npt.NDArray[Any], start: int) -> Floats:
    block: Floats = np.ascontiguousarray(rows, np.float32)
    if not np.isfinite(block.sum()):  # cheaper than a look at each, and never wrong
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if bad.size:
            raise ValueError(
                f"`candidates` must be finite. Received: NaN or infinity in {bad.size} "
                f"rows from row {start} on, the first of which is row "
                f"{start + bad[0]}. Check the model that made them, or leave these "
                "candidates out."
            )
    return block


def _checked_identifiers(identifiers: Any, num_candidates: int) -> tf.Tensor:
    identifiers = tf.convert_to_tensor(identifiers)
    if identifiers.dtype not in naming.DTYPES:
        allowed = ", ".join(dtype.name for dtype in naming.DTYPES)
        raise ValueError(
            f"`identifiers` must be one of {allowed}. Received: "
            f"{identifiers.dtype.name}. Convert them."
        )
    if identifiers.shape != (num_candidates,):
        raise ValueError(
            f"`identifiers` must name each of the {num_candidates} candidates once. "
            f"Received: shape {tuple(identifiers.shape)}. Pass one identifier for "
            "each row of `candidates`."
        )
    return identifiers


def unit(vectors: Floats) -> Floats:
    """Vectors scaled to length 1; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, np.newaxis]
    result: Floats = np.divide(vectors, np.where(lengths > 0, lengths, 1), dtype="f4")
    return result
