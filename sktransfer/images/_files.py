"""The bytes of a file, without waiting for what is not a file."""

import os
import stat

from ._errors import DecodeError
from ._limits import check_bytes

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
