"""The array of a result, written batch by batch: in memory, or in a file when it is large."""

import mmap
import os
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

# Share of the available memory: later steps may copy the result, and other processes of a
# search hold results of their own.
_SHARE = 4
# Where the system does not report it: little for a computer that trains networks
_UNKNOWN = 4 * 2**30

_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def result_budget() -> int:
    """Return the bytes that one result may take in memory: a quarter of what is available."""
    return _available() // _SHARE


def _available() -> int:
    """Return the bytes available without swapping, within the limits of a container."""
    if _MEMINFO.exists():
        fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        if "MemAvailable" in fields:
            free = int(fields["MemAvailable"].split()[0]) * 1024
            return min([free, *_left_in_cgroups()])
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # macOS: no count of what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return _UNKNOWN


def _left_in_cgroups() -> list[int]:
    """Return the bytes left by the limits of this process's control groups and their parents."""
    left = []
    for line in _OWN_GROUPS.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / name.lstrip("/")
        for group in (folder, *folder.parents):
            if root not in (group, *group.parents):
                break
            left += _left(group, limit, usage)
    return left


def _left(group: Path, limit: str, usage: str) -> list[int]:
    try:
        most = (group / limit).read_text().strip()
        used = int((group / usage).read_text())
        stat = (group / "memory.stat").read_text()
    except OSError:  # the root has none, and a container may not see those above it
        return []
    if most == "max":
        return []
    # pages of files count as used and are given back when memory is wanted
    pages = dict(line.split() for line in stat.splitlines())
    files = int(pages.get("total_inactive_file", pages.get("inactive_file", 0)))
    return [max(0, int(most) - used + files)]


_PREFIX, _SUFFIX = "sktransfer-", ".rows"
_COPIED_AT_ONCE = 2**26  # bytes


class ResultArray:
    """An array of rows; the first row sets shape and dtype, missing rows are zeros."""

    def __init__(self, n_rows: int):
        self._n_rows = n_rows
        self._values: np.ndarray | None = None

    def write(self, rows: Mapping[int, np.ndarray]) -> None:
        """Write rows; the keys of the dict are their positions."""
        for position, row in rows.items():
            if self._values is None:
                self._values = new_array((self._n_rows, *row.shape), row.dtype)
            self._values[position] = row

    def repeat(self, sources: np.ndarray, targets: np.ndarray) -> None:
        """Write ``sources[i]``, which is a position that was written, to ``targets[i]``."""
        if len(sources) == 0 or self._values is None:
            return
        n = max(1, _COPIED_AT_ONCE // _row_bytes(self._values))
        for i in range(0, len(sources), n):
            self._values[targets[i : i + n]] = self._values[sources[i : i + n]]

    @property
    def row_bytes(self) -> int | None:
        """Bytes of one row, 1 at least; None before the first is written."""
        if self._values is None:
            return None
        return _row_bytes(self._values)

    def finish(self) -> np.ndarray:
        """Return the array; without columns, if nothing was written."""
        if self._values is None:
            return np.empty((self._n_rows, 0), dtype=np.float32)
        return self._values


def _row_bytes(rows: np.ndarray) -> int:
    return max(1, prod(rows.shape[1:]) * rows.itemsize)


def new_array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros of that shape, in a temporary file if they are beyond the memory budget.

    The file is deleted when the array and all its views are deleted, or at exit. It has a
    name until then, because joblib passes the name to worker processes instead of copying
    the array. A lock on the file shows that its process lives; the next process deletes the
    files of killed ones.

    Raises
    ------
    MemoryError
        When neither memory nor disk has enough space.
    """
    _collect_once(_folder(), os.getpid())
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    budget = result_budget()
    if n_bytes <= budget:
        return np.zeros(shape, dtype)
    folder = _folder()
    file, path = _locked_file(folder)
    try:
        _reserve(file, n_bytes)
        array = np.memmap(path, dtype, mode="r+", shape=shape)
    except OSError as error:
        os.close(file)
        os.unlink(path)
        raise MemoryError(
            f"{shape[0]} activations of shape {shape[1:]} take {n_bytes / 2**30:.1f} GiB: more "
            f"than a quarter of the memory that is available, and {folder} can't hold them "
            f"({error.strerror}); pass fewer images at once, freeze to a greater depth, choose a "
            "smaller image_size, or set the environment variable TMPDIR to a folder with room"
        ) from None
    # of the map, which lives as long as any view of the array
    weakref.finalize(_map_of(array), _remove, path, file, os.getpid())
    return array


def _folder() -> str:
    """Return a folder for large temporary files."""
    # /tmp is in memory on many systems; /var/tmp is on a disk (file-hierarchy(7))
    if not any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")) and os.access(
        "/var/tmp", os.W_OK | os.X_OK
    ):
        return "/var/tmp"
    return tempfile.gettempdir()


def _reserve(file: int, n_bytes: int) -> None:
    """Allocate the disk now: writing to a map on a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, n_bytes)
    elif n_bytes > shutil.disk_usage(_folder()).free:
        raise OSError(28, "No space left on device")
    else:
        os.ftruncate(file, n_bytes)


def _map_of(array: Any) -> mmap.mmap:
    return array._mmap  # which numpy's types leave out


def _remove(path: str, file: int, owner: int) -> None:
    os.close(file)
    if os.getpid() != owner:  # the child of a fork
        return
    # At exit, Windows does not remove what is still mapped; and a file that was removed
    # by whoever cleans the folder is not missed.
    with suppress(PermissionError, FileNotFoundError):
        os.unlink(path)


def _locked_file(folder: str) -> tuple[int, str]:
    """Create a file with a lock on it that ends with this process; return it and its path."""
    while True:
        file, path = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=folder)
        if fcntl is None:
            return file, path
        with suppress(OSError):  # a file system without locks: nothing is collected there
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file, path
        os.close(file)  # collected by another process before the lock


@cache
def _collect_once(folder: str, process: int) -> None:
    """Delete the files that processes of this user left when they were killed."""
    for path in Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"):
        # of another user, deleted meanwhile, or, on Windows, in use
        with suppress(PermissionError, FileNotFoundError):
            if _is_left_behind(path):
                path.unlink()


def _is_left_behind(path: Path) -> bool:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):  # not ours; the folder is everybody's
        return False
    if fcntl is None:  # Windows does not delete what is in use
        return True
    if status.st_uid != os.getuid():
        return False
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its process lives, or the file system has no locks
        return False
    finally:
        os.close(file)
    return True
