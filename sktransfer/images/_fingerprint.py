"""Content digest of one image: equal bytes, equal digest, whatever the path.

The bytes of a file are read without waiting for what is not a file.
"""

import hashlib
import os
import stat
import struct
import time

import numpy as np

from ..exceptions import DecodeError
from ._colour import PixelRange
from ._formats import check_bytes

# Opening a FIFO waits for a writer unless told not to. For a regular file these
# change nothing; Windows knows only the last.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def file_status(path: str) -> os.stat_result:
    """Return the status of a regular file of allowed size, or raise DecodeError."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        hint = " (a URL; download it first)" if "://" in path else ""
        raise DecodeError(f"no such file{hint}") from None
    except OSError as error:  # a loop of links, no permission, a name too long
        raise DecodeError(f"can't be opened ({error.strerror})") from None
    except ValueError as error:  # a zero byte in the name
        raise DecodeError(f"can't be opened ({error})") from None
    _check_kind(status)
    return status


def read_file(path: str) -> bytes:
    """Return the content of a regular file, or raise DecodeError."""
    file_status(path)  # not to open a device, which may act on it
    try:
        with open(os.open(path, _FLAGS), "rb") as file:
            # once more on what was opened: the name may stand for another file by now
            status = os.fstat(file.fileno())
            _check_kind(status)
            return file.read(status.st_size)
    except OSError as error:
        raise DecodeError(f"can't be read ({error.strerror})") from None


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError("a directory, expected an image file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("not a regular file, expected an image file")
    check_bytes(status.st_size)


DIGEST_SIZE = 16  # bytes; 2**64 images before a collision is likely

# A file's times have the steps of its file system's clock: 2 s on FAT, milliseconds
# elsewhere. One that was changed less than this ago may change again and look the same.
_SETTLED_AFTER = 3 * 10**9  # ns


def digest_bytes(data: bytes, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of an encoded image, the same as that of a file that holds it."""
    return _with_range(_digest_bytes(data), pixel_range)


def digest_file(path: str, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of a file's content, which is read whole."""
    return digest_bytes(read_file(path), pixel_range)


def file_version(path: str, pixel_range: PixelRange | None = None) -> bytes | None:
    """Return what is another when the file's content is; None while that can't be told.

    It costs a look at the file's status, and holds from one process to the next.
    """
    now = time.time_ns()  # before the look: a change after it gives a later time
    status = file_status(path)
    if not _is_settled(status, now):
        return None
    # Not the device: its number may change when the computer is started.
    where = os.path.abspath(path).encode(errors="surrogateescape")
    data = b"|".join([repr(_state(status)).encode(), _range_bytes(pixel_range), where])
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"file version").digest()


def digest_pixels(pixels: np.ndarray, kind: str, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of an array; `kind` and `pixel_range` say how its values are read."""
    header = f"{kind}|{pixels.dtype.str}|{'x'.join(map(str, pixels.shape))}|".encode()
    hasher = hashlib.blake2b(header, digest_size=DIGEST_SIZE, person=b"pixels")
    hasher.update(_range_bytes(pixel_range))
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.digest()


def _is_settled(status: os.stat_result, now: int) -> bool:
    return max(status.st_mtime_ns, status.st_ctime_ns) < now - _SETTLED_AFTER


def _state(status: os.stat_result) -> tuple[int, ...]:
    # Another file may take the place of this one: a relative path after a change of
    # folder, a copy that keeps size and time. The change time can't be set back.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest_bytes(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"file").digest()


def _with_range(digest: bytes, pixel_range: PixelRange | None) -> bytes:
    """Tell apart one file read with two ranges, which gives two pictures at 16 bits."""
    if pixel_range is None:
        return digest
    hasher = hashlib.blake2b(digest, digest_size=DIGEST_SIZE, person=b"file in range")
    hasher.update(_range_bytes(pixel_range))
    return hasher.digest()


def _range_bytes(pixel_range: PixelRange | None) -> bytes:
    if pixel_range is None:
        return b"none"
    return struct.pack("<dd?", pixel_range.low, pixel_range.high, pixel_range.clip)
