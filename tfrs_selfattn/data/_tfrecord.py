"""Frames records of equal length as TFRecords, without TensorFlow.

A frame is the length, its checksum, the record, its checksum, all little-endian. The
checksum is a CRC-32C, masked as TensorFlow masks it. It is computed for all records at
once, byte by byte, which keeps up with a disk.

References:
    - https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format
      details".
    - Castagnoli et al., 1993, https://doi.org/10.1109/26.231911 (the polynomial).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, its bits reversed.
_MASK = 0xA282EAD8


def frame_type(
    columns: Mapping[str, str], row_length: int, widths: Mapping[str, int]
) -> np.dtype[np.void]:
    """The type of one framed record: named columns of `row_length` values each.

    Of a column with a width each value is so many numbers.
    """
    fields: list[Any] = []
    for name, dtype in columns.items():
        shape = (row_length, widths[name]) if name in widths else (row_length,)
        fields.append((name, np.dtype(dtype).newbyteorder("<"), shape))
    return np.dtype([("_length", "<u8"), ("_check", "<u4"), *fields, ("_end", "<u4")])


def seal(frames: npt.NDArray[np.void]) -> None:
    """Writes lengths and checksums into frames whose columns are filled."""
    view = frames.view(np.uint8).reshape(len(frames), -1)  # [R, bytes]
    frames["_length"] = view.shape[1] - 16
    frames["_check"] = _masked_crc(view[:, :8])
    frames["_end"] = _masked_crc(view[:, 12:-4])


def _masked_crc(records: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The masked CRC-32C of each row, uint32 `[R]`."""
    crc = np.full(len(records), 0xFFFFFFFF, np.uint32)
    for byte in np.ascontiguousarray(records.T):  # [R], the same byte of every record
        crc = _TABLE[(crc ^ byte) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    crc = ~crc
    rotated = (crc >> np.uint32(15)) | (crc << np.uint32(17))
    masked: npt.NDArray[np.uint32] = rotated + np.uint32(_MASK)  # modulo 2 ** 32
    return masked


def _table() -> npt.NDArray[np.uint32]:
    """What each byte does to a checksum, uint32 `[256]`."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        shifted = table >> np.uint32(1)
        table = np.where(
            table & np.uint32(1), shifted ^ np.uint32(_POLYNOMIAL), shifted
        )
    return table


_TABLE = _table()
