"""Locks on keys: processes that share a store don't compute the same row twice.

The lock of a key is a lock on one byte of a file, at an offset that the key determines.
The system releases it when its process ends, in whatever way, and nothing is written. Where
there are no such locks (Windows, some network file systems, a store that can only be
read) every lock is granted: then a row may be computed twice, with the same result.
"""

import errno
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from ._folder import is_read_only, make_private_file, make_private_folder

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

_N_PLACES = 2**62  # offsets in a file; two keys with one offset wait for each other


class KeyLocks:
    """The locks of this process on keys, in the file `path`.

    The system's locks belong to the process; this class tells its threads apart. Closing
    any descriptor of the file releases all locks of the process, so it is opened once.
    """

    def __init__(self, path: str):
        self._path = path
        self._lock = threading.Lock()
        self._held: dict[int, bool] = {}  # place -> whether the system holds it too
        self._file: int | None = None

    def acquire(self, keys: Iterable[bytes]) -> list[bytes]:
        """Lock the keys that are free; return those that this caller now holds."""
        with self._lock:
            return [key for key in keys if self._take(_place(key))]

    def release(self, keys: Sequence[bytes]) -> None:
        """Release the locks; keys that are not held are ignored."""
        with self._lock:
            for key in keys:
                if self._held.pop(_place(key), False) and self._file is not None:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(key))
            if not self._held and self._file is not None:
                os.close(self._file)
                self._file = None

    def _take(self, place: int) -> bool:
        if place in self._held:
            return False
        self._held[place] = False
        if fcntl is None:
            return True
        try:
            if self._file is None:
                self._file = self._open()
        except OSError:  # a folder that can't be written to: nothing will be stored there
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            self._held[place] = True
        except (BlockingIOError, PermissionError):  # another process's: EAGAIN or EACCES
            del self._held[place]
            return False
        except OSError:  # no locks on this file system, or no more of them
            pass
        return True

    def _open(self) -> int:
        folder = os.path.dirname(self._path)
        if not os.path.isdir(folder):
            make_private_folder(folder)
        if is_read_only(folder, ()):
            raise PermissionError(errno.EACCES, "read-only", folder)
        make_private_file(self._path)
        return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)


def _place(key: bytes) -> int:
    # from all bytes of the key: rows of one image at two depths have two offsets
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") % _N_PLACES
