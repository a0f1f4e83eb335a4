"""The bytes of one block: rows of one dtype and shape, their keys, and a checksum.

Rows that are put together are used together, so they are kept together: one
record in the database, one checksum, one time of last use. Nothing is pickled:

    magic and version  4 bytes      crc32 of all that follows  4 bytes
    number of rows     4 bytes      length of dtype, ndim      1 + 1 bytes
    dtype.str, ASCII                shape, 8 bytes an axis
    keys, 32 bytes each             rows, raw bytes in C order
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

KEY_SIZE = 32  # bytes
_MAGIC = b"SKT\x01"  # the last byte is the version of this format
_HEAD = struct.Struct("<4sI")
_BODY = struct.Struct("<IBB")
_KINDS = "biufc"  # numbers and bool; everything else has no bytes of its own


def check_item(key: bytes, row: np.ndarray) -> None:
    """Raise ValueError for a key or a row that no block can hold."""
    if not isinstance(key, bytes) or len(key) != KEY_SIZE:
        raise ValueError(f"a key is {KEY_SIZE} bytes, got {key!r}")
    if row.dtype.kind not in _KINDS:
        raise ValueError(f"a row holds numbers, got dtype {row.dtype}")


def pack(keys: Sequence[bytes], rows: Sequence[np.ndarray]) -> bytes:
    """Return the block of rows of one dtype and shape."""
    dtype, shape = rows[0].dtype.str.encode("ascii"), rows[0].shape
    parts = [
        _BODY.pack(len(rows), len(dtype), len(shape)),
        dtype,
        struct.pack(f"<{len(shape)}Q", *shape),
        *keys,
        # not ascontiguousarray, which makes an axis of none
        *(np.asarray(row, order="C") for row in rows),
    ]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([_HEAD.pack(_MAGIC, checksum), *parts])


@dataclass(frozen=True)
class Block:
    """A view of a block's bytes, valid as long as they are."""

    dtype: np.dtype
    shape: tuple[int, ...]
    keys: memoryview
    rows: memoryview

    def holds(self, key: bytes, position: int) -> bool:
        """Whether the row at `position` belongs to `key`."""
        return self.keys[position * KEY_SIZE : (position + 1) * KEY_SIZE] == key

    def take(self, positions: Sequence[int]) -> np.ndarray:
        """Return a copy of the rows at `positions`, shape (n, *shape)."""
        n_rows = len(self.keys) // KEY_SIZE
        rows = np.frombuffer(self.rows, dtype=self.dtype, count=n_rows * prod(self.shape))
        return rows.reshape(n_rows, *self.shape)[positions]

    def list_keys(self) -> list[bytes]:
        """Return a copy of the keys, in the order of the rows."""
        keys = bytes(self.keys)
        return [keys[i : i + KEY_SIZE] for i in range(0, len(keys), KEY_SIZE)]


def unpack(data: memoryview, *, verify: bool) -> Block | None:
    """Return the block in `data`; None if its format is unknown or `verify` finds damage."""
    if len(data) < _HEAD.size + _BODY.size:
        return None
    magic, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC or (verify and zlib.crc32(data[_HEAD.size :]) != checksum):
        return None
    n_rows, dtype_length, ndim = _BODY.unpack_from(data, _HEAD.size)
    start = _HEAD.size + _BODY.size
    dtype = np.dtype(str(data[start : start + dtype_length], "ascii"))
    start += dtype_length
    shape = struct.unpack_from(f"<{ndim}Q", data, start)
    start += 8 * ndim
    end = start + n_rows * KEY_SIZE
    return Block(dtype, shape, data[start:end], data[end:])
