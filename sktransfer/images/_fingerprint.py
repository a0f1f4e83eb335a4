"""Content digest of one image: equal bytes, equal digest, whatever the path."""

import hashlib
import os
import time
from functools import lru_cache

import numpy as np

from ._files import file_status, read_file
from ._values import PixelRange

DIGEST_SIZE = 16  # bytes; 2**64 images before a collision is likely

# A file's times have the steps of its file system's clock: 2 s on FAT, milliseconds
# elsewhere. One that was changed less than this ago may change again and look the same.
_SETTLED_AFTER = 3 * 10**9  # ns


def digest_bytes(data: bytes, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of an encoded image, the same as that of a file that holds it."""
    return _with_range(_digest_bytes(data), pixel_range)


def digest_file(path: str, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of a file's content, read once while the file stays the same."""
    now = time.time_ns()
    status = file_status(path)
    if _is_settled(status, now):
        digest = _digest_file(path, (status.st_dev, *_state(status)))
    else:
        digest = _digest_bytes(read_file(path))
    return _with_range(digest, pixel_range)


def file_version(path: str, pixel_range: PixelRange | None = None) -> bytes | None:
    """Return what is another when the file's content is; None while that can't be told.

    It costs a look at the file's status, and holds from one process to the next.
    """
    now = time.time_ns()  # before the look: a change after it gives a later time
    status = file_status(path)
    if not _is_settled(status, now):
        return None
    # Not the device: its number may change when the computer is started.
    what = f"{_state(status)}|{pixel_range}|{os.path.abspath(path)}"
    data = what.encode(errors="surrogateescape")
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"file version").digest()


def digest_pixels(pixels: np.ndarray, how: str) -> bytes:
    """Return the digest of an array of pixels; `how` says how its values are read."""
    header = f"{how}|{pixels.dtype.str}|{pixels.shape}".encode()
    hasher = hashlib.blake2b(header, digest_size=DIGEST_SIZE, person=b"pixels")
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.digest()


def _is_settled(status: os.stat_result, now: int) -> bool:
    return max(status.st_mtime_ns, status.st_ctime_ns) < now - _SETTLED_AFTER


def _state(status: os.stat_result) -> tuple[int, ...]:
    # Another file may take the place of this one: a relative path after a change of
    # folder, a copy that keeps size and time. The change time can't be set back.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# 2**17 entries of about 400 bytes: 50 MB at most
@lru_cache(maxsize=2**17)
def _digest_file(path: str, version: tuple[int, ...]) -> bytes:
    return _digest_bytes(read_file(path))


def _digest_bytes(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"file").digest()


def _with_range(digest: bytes, pixel_range: PixelRange | None) -> bytes:
    """Tell apart one file read with two ranges, which gives two pictures at 16 bits."""
    if pixel_range is None:
        return digest
    hasher = hashlib.blake2b(digest, digest_size=DIGEST_SIZE, person=b"file in range")
    hasher.update(str(pixel_range).encode())
    return hasher.digest()
