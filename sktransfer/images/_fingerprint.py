"""Content digest of one image: equal bytes, equal digest, whatever the path."""

import hashlib
from functools import lru_cache

import numpy as np

from ._files import file_status, read_file
from ._values import PixelRange

DIGEST_SIZE = 16  # bytes; 2**64 images before a collision is likely


def digest_bytes(data: bytes, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of an encoded image, the same as that of a file that holds it."""
    return _with_range(_digest_bytes(data), pixel_range)


def digest_file(path: str, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of a file's content, read once while the file stays the same."""
    status = file_status(path)
    digest = _digest_file(
        path,
        # Another file may take the place of this one: a relative path after a change of
        # folder, a copy that keeps size and time. The change time can't be set back.
        (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),
    )
    return _with_range(digest, pixel_range)


def digest_pixels(pixels: np.ndarray, how: str) -> bytes:
    """Return the digest of an array of pixels; `how` says how its values are read."""
    header = f"{how}|{pixels.dtype.str}|{pixels.shape}".encode()
    hasher = hashlib.blake2b(header, digest_size=DIGEST_SIZE, person=b"pixels")
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.digest()


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
