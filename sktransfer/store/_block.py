"""The bytes of one block: rows of one kind, their keys, and a checksum.

Rows that are put together are used together, so they are one record in the database, with
one checksum and one time of last use. Nothing is pickled:

    magic and version  4 bytes      crc32 of all that follows  4 bytes
    number of rows     4 bytes      length of dtype, ndim      1 + 1 bytes
    dtype.str, ASCII                shape, 8 bytes an axis
    first half of all keys          16 bytes
    second halves, 16 bytes each    rows, raw bytes in C order

Rows of float32 that are numbers of bfloat16, as those of a network that computes in
bfloat16, take two bytes a value: their dtype is "bf16", and they come back as float32.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

KEY_SIZE = 32  # bytes
COMMON_SIZE = 16  # of them, what the keys of one kind of row have in common
_OWN_SIZE = KEY_SIZE - COMMON_SIZE
_MAGIC = b"SKT\x03"  # the last byte is the version of this format
_HEAD = struct.Struct("<4sI")
_BODY = struct.Struct("<IBB")
_BFLOAT16 = "bf16"  # no dtype of numpy: the upper halves of float32
_BLOCK_BYTES = 2**18  # rows are packed up to here; a larger row is a block of its own
_KINDS = "biufc"  # numbers and bool; other dtypes refer to objects


def check_item(key: bytes, row: np.ndarray) -> None:
    """Raise ValueError for a key or a row that no block can hold."""
    if not isinstance(key, bytes) or len(key) != KEY_SIZE:
        raise ValueError(f"a key is {KEY_SIZE} bytes, got {key!r}")
    if row.dtype.kind not in _KINDS:
        raise ValueError(f"a row holds numbers, got dtype {row.dtype}")


def parts(items: Mapping[bytes, np.ndarray], max_bytes: int) -> Iterator[dict[bytes, np.ndarray]]:
    """Yield the items in parts of about `max_bytes`, each of at least one row."""
    part: dict[bytes, np.ndarray] = {}
    size = 0
    for key, row in items.items():
        check_item(key, row)
        if part and size + row.nbytes > max_bytes:
            yield part
            part, size = {}, 0
        part[key] = row
        size += row.nbytes + KEY_SIZE
    if part:
        yield part


def group(
    items: Mapping[bytes, np.ndarray],
) -> Iterator[tuple[list[bytes], list[np.ndarray]]]:
    """Yield keys and rows that fit in one block: one dtype, one shape, one half of the key."""
    open_blocks: dict[tuple, tuple[list[bytes], list[np.ndarray]]] = {}
    for key, row in items.items():
        kind = (row.dtype.str, row.shape, key[:COMMON_SIZE])
        keys, rows = open_blocks.setdefault(kind, ([], []))
        if rows and (len(rows) + 1) * (row.nbytes + _OWN_SIZE) > _BLOCK_BYTES:
            yield keys, rows
            keys, rows = open_blocks[kind] = ([], [])
        keys.append(key)
        rows.append(row)
    yield from open_blocks.values()


def pack(keys: Sequence[bytes], rows: Sequence[np.ndarray]) -> bytes:
    """Return the block of rows that `group` has put together."""
    dtype, shape = rows[0].dtype.str, rows[0].shape
    if rows[0].dtype == np.float32 and all(map(_is_bfloat16, rows)):
        dtype, rows = _BFLOAT16, [_upper_halves(row) for row in rows]
    parts: list[Any] = [  # each a buffer
        _BODY.pack(len(rows), len(dtype), len(shape)),
        dtype.encode("ascii"),
        struct.pack(f"<{len(shape)}Q", *shape),
        keys[0][:COMMON_SIZE],
        *(key[COMMON_SIZE:] for key in keys),
        # not ascontiguousarray, which makes an axis of none
        *(np.asarray(row, order="C") for row in rows),
    ]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([_HEAD.pack(_MAGIC, checksum), *parts])


def _bits(row: np.ndarray) -> np.ndarray:
    return row.astype("<f4", order="C", copy=False).view("<u4")


def _is_bfloat16(row: np.ndarray) -> bool:
    return not (_bits(row) & 0xFFFF).any()


def _upper_halves(row: np.ndarray) -> np.ndarray:
    return (_bits(row) >> 16).astype("<u2")


@dataclass(frozen=True)
class Block:
    """A view of a block's bytes, valid as long as they are."""

    dtype: np.dtype  # of what is stored
    is_bfloat16: bool  # then `dtype` is uint16
    shape: tuple[int, ...]
    common: bytes  # the first half of every key
    own: memoryview  # the second halves
    rows: memoryview

    def holds(self, keys: Sequence[bytes], positions: Sequence[int]) -> bool:
        """Whether the rows at `positions` belong to `keys`; not where there are no such rows."""
        if len(self.own) % _OWN_SIZE or max(positions) >= len(self.own) // _OWN_SIZE:
            return False  # places have no checksum of their own
        own = np.frombuffer(self.own, dtype=f"V{_OWN_SIZE}")[positions].tobytes()
        return own == b"".join([key[COMMON_SIZE:] for key in keys]) and all(
            key.startswith(self.common) for key in keys
        )

    def take(self, positions: Sequence[int]) -> np.ndarray:
        """Return a copy of the rows at `positions`, shape (n, *shape)."""
        n_rows = len(self.own) // _OWN_SIZE
        rows = np.frombuffer(self.rows, dtype=self.dtype, count=n_rows * prod(self.shape))
        taken = rows.reshape(n_rows, *self.shape)[positions]
        if self.is_bfloat16:
            return (taken.astype("<u4") << 16).view("<f4").astype(np.float32, copy=False)
        return taken

    def list_keys(self) -> list[bytes]:
        """Return a copy of the keys, in the order of the rows."""
        own = bytes(self.own)
        return [self.common + own[i : i + _OWN_SIZE] for i in range(0, len(own), _OWN_SIZE)]


def unpack(data: memoryview, *, verify: bool) -> Block | None:
    """Return the block in `data`; None if its format is unknown or `verify` finds damage."""
    if len(data) < _HEAD.size + _BODY.size:
        return None
    magic, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC or (verify and zlib.crc32(data[_HEAD.size :]) != checksum):
        return None
    n_rows, dtype_length, ndim = _BODY.unpack_from(data, _HEAD.size)
    start = _HEAD.size + _BODY.size
    name = str(data[start : start + dtype_length], "ascii")
    start += dtype_length
    shape = struct.unpack_from(f"<{ndim}Q", data, start)
    start += 8 * ndim
    common = bytes(data[start : start + COMMON_SIZE])
    start += COMMON_SIZE
    end = start + n_rows * _OWN_SIZE
    is_bfloat16 = name == _BFLOAT16
    dtype = np.dtype("<u2" if is_bfloat16 else name)
    return Block(dtype, is_bfloat16, shape, common, data[start:end], data[end:])
