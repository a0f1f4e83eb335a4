"""The store in one folder: opened when it is needed, and bounded in size.

Where the disk fails, the store warns once and raises no error. If rows can't be written any
more, stored ones are still read; if they can't be read, the store is off for this process.
The layout of the file is in `_lmdb.py`.
"""

import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from weakref import WeakSet

import numpy as np

from .._locking import ForkGuard
from . import _folder
from ._evictions import EvictionLog
from ._key_locks import KeyLocks
from ._limit import DEFAULT_LIMIT, read_limit
from ._lmdb import DAMAGE, FILL, Error, LmdbFile, Rows, can_only_be_read, data_file
from ._warnings import StoreWarnings

_Result = TypeVar("_Result")

# A folder of our own inside the user's, so that clearing removes nothing else. The number
# is the version of the layout of the tables and of the ingredients of keys.
SUBFOLDER = "activations-3"
_OUTGROWN = 1.5  # times the limit: a file this large is copied without its free pages
_KEPT = 0.9  # share of the file for rows, when the disk fills up and the file may not grow
_DISK_FILLS_UP = 0.8  # of the bytes of the rows; warn when the disk allows less

_ATTEMPTS = 5  # to open a store that other processes clear

_all_stores: WeakSet["LmdbStore"] = WeakSet()
_gate = ForkGuard()


class LmdbStore:
    """Arrays by key in the folder `path`: an `ActivationStore`.

    Made by `open_store`, one a folder.
    """

    def __init__(self, path: str):
        self.path = path
        self._folder = os.path.join(path, SUBFOLDER)
        self.warnings = StoreWarnings(path)
        self._reset()
        _all_stores.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()  # for the attributes below; LMDB has its own locks
        self._file: LmdbFile | None = None
        self._is_off = False
        self._is_written = True
        self._was_collected = False
        self._was_damaged = False
        self._unreadable: set[bytes] = set()  # to be replaced by the next put
        self._evicted = EvictionLog()
        self.key_locks = KeyLocks(os.path.join(self._folder, "locks"))

    def _forget(self) -> None:
        """Reset in the child of a fork, where locks and LMDB can't be used."""
        self._reset()
        self.warnings.forget()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def __len__(self) -> int:
        return self._read(LmdbFile.measure, (0, 0))[0]

    @property
    def size_bytes(self) -> int:
        """Bytes in use; the file may hold free pages besides, within `limit`."""
        return self._read(LmdbFile.measure, (0, 0))[1]

    @property
    def has_rows(self) -> bool:
        """Whether this process can see a file that may hold rows."""
        return self._taken() > 0

    @property
    def has_former_rows(self) -> bool:
        """Whether a former version of the package wrote to the folder."""
        return bool(_folder.former_stores(self.path, SUBFOLDER))

    @property
    def is_read_only(self) -> bool:
        """Whether there are rows, and this process may read but not add rows."""
        return can_only_be_read(self._folder)

    @property
    def limit(self) -> int:
        """Bytes the store may use: 10 GiB, a tenth of the free disk, or the user's number.

        When other files fill the disk, the limit does not fall below the bytes in use.
        """
        limit = read_limit()
        if limit is not None:
            return limit
        return min(DEFAULT_LIMIT, max(self._tenth_of_disk(), int(_KEPT * self._taken() / FILL)))

    def _taken(self) -> int:
        try:
            return os.path.getsize(data_file(self._folder))
        except OSError:  # there is none, or this process may not look
            return 0

    def _tenth_of_disk(self) -> int:
        """Return a tenth of the disk that would be free without the store."""
        return (_folder.free_bytes(self.path) + self._taken()) // 10

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return a copy of the row of each key, or None where the store has none."""
        nothing: Rows = ([None] * len(keys), [])
        rows, unreadable = self._read(lambda file: file.get(keys), nothing)
        self._unreadable.update(unreadable)
        if len(self._evicted):
            self._evicted.ask(key for key, row in zip(keys, rows, strict=True) if row is None)
            self._warn_if_thrashing()
        return rows

    def put_many(self, items: Mapping[bytes, np.ndarray]) -> None:
        """Store the rows, all or none of each 64 MiB, and evict those used longest ago.

        Waits some milliseconds for the disk, without the interpreter's lock:
        put a batch, not a row, and put it beside the computation of the next.
        """
        if items:
            self._write(lambda file: self._put(file, items))

    def get_digests(self, versions: Sequence[bytes]) -> list[bytes | None]:
        """Return the digest of each version of a file, or None where it is not known."""
        return self._read(lambda file: file.get_digests(versions), [None] * len(versions))

    def put_digests(self, items: Mapping[bytes, bytes]) -> None:
        """Store the digests of files by their versions."""
        if items:
            self._write(lambda file: file.put_digests(items, self.limit))

    def clear(self) -> None:
        """Remove all rows and the file; other processes use an empty store from then on."""
        with self._lock:
            self._file = None
            for folder in (self._folder, *_folder.former_stores(self.path, SUBFOLDER)):
                _folder.remove_folder(folder)
        self._reset()

    # the limit

    def _put(self, file: LmdbFile, items: Mapping[bytes, np.ndarray]) -> None:
        limit = self.limit
        if file.file_bytes > _OUTGROWN * limit + 2**24:
            file = self._shrink(file, limit)
        evicted = file.put(items, limit, self._unreadable)
        if limit:  # with 0 nothing is stored
            self._evicted.add(evicted)
        if evicted and read_limit() is None:
            used = file.measure()[1]
            if self._tenth_of_disk() < _DISK_FILLS_UP * used:
                self.warnings.disk_fills_up(_folder.free_bytes(self.path), used)

    def _shrink(self, file: LmdbFile, limit: int) -> LmdbFile:
        """Give disk back after the limit was lowered; the rows used last stay.

        LMDB's file never shrinks, so it is copied. Rows that another process puts meanwhile
        are lost.
        """
        n_rows, used = file.measure()
        most = min(used, limit * FILL)
        if _folder.free_bytes(self.path) < 1.1 * most:
            return file  # evicts within the file, a part with each put
        with self._lock:
            file.evict_to(most)
            with _folder.replacement_of(self._folder) as new:
                file.copy_to(new)
            n_left = file.measure()[0]
            del file
            self._file = None
            shrunk = self._open_locked(create=True)
            assert shrunk is not None  # as it was to be created
        if n_left < n_rows:
            self.warnings.shrunk(used, limit, n_rows - n_left, used / FILL)
        return shrunk

    def _warn_if_thrashing(self) -> None:
        if not self.warnings.has_said("thrashing") and self._evicted.is_thrashing(len(self)):
            needed = self.size_bytes + self._evicted.n_evicted_bytes
            # a tenth more, because eviction frees more than is needed at once
            self.warnings.thrashing(self._evicted.n_asked_again, self.limit, 1.1 * needed / FILL)

    # the file, and a disk that fails

    def _read(self, work: Callable[[LmdbFile], _Result], default: _Result) -> _Result:
        """Return `work(file)`; `default` if there is no file or it fails."""
        with _gate:
            # in a frame of its own, which no longer refers to the file when the gate opens
            return self._read_inside(work, default)

    def _read_inside(self, work: Callable[[LmdbFile], _Result], default: _Result) -> _Result:
        try:
            file = self._open(create=False)
            return default if file is None else work(file)
        except DAMAGE as error:
            self._start_anew(error)
        except (Error, OSError) as error:
            self._turn_off(error)
        return default

    def _write(self, work: Callable[[LmdbFile], None]) -> None:
        if self._is_written:
            with _gate:
                self._write_inside(work)

    def _write_inside(self, work: Callable[[LmdbFile], None]) -> None:
        try:
            file = self._open(create=True)
            if file is None:
                return
            if self.is_read_only:  # it may have become so since it was opened
                self.warnings.read_only()
            else:
                work(file)
        except DAMAGE as error:
            self._start_anew(error)
        except (Error, OSError) as error:
            self._is_written = False
            self.warnings.not_written(error, _folder.free_bytes(self.path))

    def _open(self, create: bool) -> LmdbFile | None:
        with self._lock:
            return None if self._is_off else self._open_locked(create)

    def _open_locked(self, create: bool) -> LmdbFile | None:
        self._drop_if_removed()
        if create and not self._was_collected:
            self._was_collected = True
            if _folder.collect_rubbish(self.path, SUBFOLDER):
                self.warnings.former_version()
        for attempt in range(_ATTEMPTS):
            if self._file is not None:
                break
            if create and not self.has_rows:
                _folder.make_private_folder(self._folder)
            elif not self.has_rows:
                return None
            # LMDB takes a new folder for a removed, open one if their inode numbers are equal
            for store in list(_all_stores):
                store._drop_if_removed()
            try:
                self._file = LmdbFile(self._folder)
            # cleared by another process: look again
            except (_folder.Replaced, FileNotFoundError):
                if attempt == _ATTEMPTS - 1:
                    raise
        return self._file

    def _drop_if_removed(self) -> None:
        """Drop the reference to a file that another process has cleared or removed.

        It is not closed, because another thread may be reading; it closes with the last
        transaction.
        """
        file = self._file
        if file is not None and not file.is_current():
            self._file = None

    def _start_anew(self, error: Exception) -> None:
        if self._was_damaged or self.is_read_only:
            return self._turn_off(error)  # it was damaged again, or can't be removed
        self._was_damaged = True
        try:
            with self._lock:
                self._file = None
                _folder.remove_folder(self._folder)
        except OSError as os_error:
            return self._turn_off(os_error)
        self.warnings.damaged(error)

    def _turn_off(self, error: Exception) -> None:
        with self._lock:
            self._is_off = True
            self._file = None
        self.warnings.off(error)

    def _write_uses(self) -> None:
        if self._file is not None and not self.is_read_only:
            self._write(LmdbFile.write_uses)


def _forget_after_fork() -> None:
    global _gate
    _gate = ForkGuard()
    for store in list(_all_stores):
        store._forget()


def _write_uses_at_exit() -> None:
    for store in list(_all_stores):
        store._write_uses()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=lambda: _gate.close(),
        after_in_parent=lambda: _gate.open(),
        after_in_child=_forget_after_fork,
    )
atexit.register(_write_uses_at_exit)
