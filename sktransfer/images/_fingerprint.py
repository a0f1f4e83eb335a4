"""The digest of an image's content: equal bytes have equal digests, whatever the path.

Only regular files are read: reading a pipe or a device could wait forever.
"""

import hashlib
import os
import re
import stat
import struct
import time
from collections.abc import Callable

import numpy as np

from ..exceptions import DecodeError
from ._colour import PixelRange
from ._formats import check_bytes

# Without O_NONBLOCK, opening a FIFO waits for a writer. For regular files these flags
# change nothing; Windows has only the last one.
READ_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)

_CUT_URL = re.compile(r"(https?|s3|gs|az|memory|zip|tar):/[^/]", re.I)


def check_file(status: os.stat_result) -> None:
    """Raise DecodeError for what is no regular file of allowed size."""
    check_archive(status)
    check_bytes(status.st_size)


def check_archive(status: os.stat_result) -> None:
    """Raise DecodeError for what is no regular file; one that holds images has any size."""
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError("a directory, expected an image file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("not a regular file, expected an image file")


def file_status(path: str, check: Callable[[os.stat_result], None] = check_file) -> os.stat_result:
    """Return the status of a file that `check` accepts, or raise DecodeError."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        cause = "no such file"
        if _CUT_URL.match(path):
            cause += "; pathlib.Path has taken a slash from this URL, so pass it as str"
        raise DecodeError(cause) from None
    except OSError as error:  # a loop of links, no permission, a name too long
        raise DecodeError(f"can't be opened ({error.strerror})") from None
    except ValueError as error:  # a zero byte in the name
        raise DecodeError(f"can't be opened ({error})") from None
    check(status)
    return status


def read_file(path: str) -> bytes:
    """Return the content of a regular file, or raise DecodeError."""
    file_status(path)  # first, because opening a device may have effects
    try:
        # without a file object, which asks for more than is needed, each time with a change of
        # the thread that holds the interpreter's lock
        file = os.open(path, READ_FLAGS)
        try:
            # checked again: another file may have this name by now
            status = os.fstat(file)
            check_file(status)
            return _read(file, status.st_size)
        finally:
            os.close(file)
    except OSError as error:
        raise DecodeError(f"can't be read ({error.strerror})") from None


def _read(file: int, n_bytes: int) -> bytes:
    """Return so many bytes, or fewer where the file ends before."""
    data = os.read(file, n_bytes)
    if len(data) == n_bytes:
        return data
    parts = [data]  # a file system may give less at once
    while parts[-1] and (n_left := n_bytes - sum(map(len, parts))):
        parts.append(os.read(file, n_left))
    return b"".join(parts)


DIGEST_SIZE = 16  # bytes; 2**64 images before a collision is likely

# The times of a file have the resolution of its file system: 2 s on FAT, milliseconds
# elsewhere. A file that changed less than this ago may change again with the same times.
_SETTLED_AFTER = 3 * 10**9  # ns


def digest_bytes(data: bytes, pixel_range: PixelRange | None = None) -> bytes:
    """Return the digest of an encoded image, the same as that of a file that holds it."""
    return _with_range(_digest_bytes(data), pixel_range)


def digest_file(path: str, pixel_range: PixelRange | None = None) -> bytes:
    """Read a file and return the digest of its content."""
    return digest_bytes(read_file(path), pixel_range)


def file_version(
    path: str,
    pixel_range: PixelRange | None = None,
    check: Callable[[os.stat_result], None] = check_file,
) -> bytes | None:
    """Return a digest of path, size and times, which changes with the file's content.

    None for a file that has just been changed. Only the file's status is read. The value
    is the same in all processes.
    """
    now = time.time_ns()  # before the status: a later change has a later time
    status = file_status(path, check)
    if not _is_settled(status, now):
        return None
    # Without the device, whose number may change at a reboot.
    where = os.path.abspath(path).encode(errors="surrogateescape")
    # decimal, because numbers of files have up to 128 bits and times may lie far in the past
    data = b"%d|%d|%d|%d|" % _state(status) + _range_bytes(pixel_range) + b"|" + where
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"file version").digest()


def remote_version(identity: str, tag: str, pixel_range: PixelRange | None = None) -> bytes:
    """Return a digest of where an object is and of what changes with its content."""
    data = b"|".join(
        [
            _range_bytes(pixel_range),
            *(part.encode(errors="surrogateescape") for part in (tag, identity)),
        ]
    )
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"remote version").digest()


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
    # The inode and the change time distinguish a file that replaces this one with the same
    # size and modification time. The change time can't be set by a program.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest_bytes(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"file").digest()


def _with_range(digest: bytes, pixel_range: PixelRange | None) -> bytes:
    """Return another digest for each range: 16-bit files give other pixels with it."""
    if pixel_range is None:
        return digest
    hasher = hashlib.blake2b(digest, digest_size=DIGEST_SIZE, person=b"file in range")
    hasher.update(_range_bytes(pixel_range))
    return hasher.digest()


def _range_bytes(pixel_range: PixelRange | None) -> bytes:
    if pixel_range is None:
        return b"none"
    return struct.pack("<dd?", pixel_range.low, pixel_range.high, pixel_range.clip)
