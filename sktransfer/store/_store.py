"""The store of activations: rows by key, on disk, shared by every process of a user.

`open_store` turns the parameter `feature_cache` into a store. The store itself
never stops the work: where the disk fails it, it warns once and from then on
finds nothing and keeps nothing. What is kept and how is in `_store_file.py`.

The folder should be on a local disk. LMDB's locks and memory maps are not made
for network file systems: where the home folder is on NFS, set the variable
SKTRANSFER_CACHE to a local one, which the processes of one machine share.
"""

import atexit
import os
import shutil
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import numpy as np
import platformdirs

from .._locking import ForkGuard
from ..exceptions import FeatureCacheWarning
from ._key_locks import KeyLocks
from ._lmdb import DAMAGE, Error, LmdbFile

_Result = TypeVar("_Result")

# Ours inside the user's folder, so that clearing never removes what is not
# ours. The number is that of the layout of the tables.
_SUBFOLDER = "activations-1"
_DEFAULT_LIMIT = 10 * 2**30  # bytes, or a tenth of the free disk if that is less
_OUTGROWN = 1.5  # times the limit: a file this large is given up
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

# One store a folder: LMDB must not be opened twice in a process. Stores nobody
# holds are closed, but for the last few, so that each call finds its own open.
_stores: WeakValueDictionary[str, "ActivationStore"] = WeakValueDictionary()
_recent: deque["ActivationStore"] = deque(maxlen=4)
_stores_lock = threading.Lock()
_gate = ForkGuard()


@dataclass(frozen=True)
class FeatureCacheInfo:
    """Where the feature cache is and how large: sizes in bytes."""

    path: str
    n_entries: int
    size: int
    limit: int


def feature_cache_info(feature_cache="auto"):
    """Tell where the feature cache is, how large, and how large it may become.

    Parameters
    ----------
    feature_cache : "auto", None or path, default="auto"
        As in the estimators.

    Returns
    -------
    info : FeatureCacheInfo or None
        ``path``; ``n_entries``, the number of rows and activations; ``size``
        and ``limit`` in bytes. None if `feature_cache` is None.

    Notes
    -----
    The limit is 10 GiB or a tenth of the disk that is free without the cache,
    whichever is less, or what the environment variable ``SKTRANSFER_CACHE_LIMIT``
    says: bytes, or a number with K, M, G or T, such as ``50G``.

    Examples
    --------
    >>> import tempfile
    >>> from sktransfer import feature_cache_info
    >>> feature_cache_info(tempfile.mkdtemp()).n_entries
    0
    """
    store = open_store(feature_cache)
    if store is None:
        return None
    return FeatureCacheInfo(store.path, len(store), store.size_bytes, store.limit)


def clear_feature_cache(feature_cache="auto"):
    """Delete the feature cache and give its disk back.

    Parameters
    ----------
    feature_cache : "auto", None or path, default="auto"
        As in the estimators. Only what sktransfer wrote to the folder is
        deleted. Other processes that use it go on with an empty cache.

    Raises
    ------
    OSError
        If the folder can't be changed.

    Examples
    --------
    >>> import tempfile
    >>> from sktransfer import clear_feature_cache
    >>> clear_feature_cache(tempfile.mkdtemp())
    """
    store = open_store(feature_cache)
    if store is not None:
        store.clear()


def open_store(feature_cache) -> "ActivationStore | None":
    """Return the store of `feature_cache`; None if it is None. Nothing is written yet."""
    if feature_cache is None:
        return None
    if not isinstance(feature_cache, (str, os.PathLike)) or feature_cache == "":
        raise ValueError(
            "feature_cache must be 'auto', None (off), or the path of a folder "
            f"(str or os.PathLike), got {feature_cache!r}"
        )
    if feature_cache == "auto":
        feature_cache = os.environ.get("SKTRANSFER_CACHE") or platformdirs.user_cache_dir(
            "sktransfer", appauthor=False
        )
    _read_limit()  # a wrong variable is an error here, not a warning later
    # realpath: two names of one folder are one store
    path = os.path.realpath(os.path.expanduser(os.fsdecode(feature_cache)))
    with _stores_lock:
        store = _stores.get(path)
        if store is None:
            store = _stores[path] = ActivationStore(path)
        if store not in _recent:
            _recent.append(store)
        return store


class ActivationStore:
    """Arrays by key in `path`, for many threads and processes at once.

    A key is 32 bytes that name everything its row depends on, so a key has one
    row for good, and of two processes that put it the first one is kept. Two
    that start on an empty store share the work: each takes a claim on a key and
    then asks for it once more, before it computes the row.

    Made by `open_store`. Pickles as its path.
    """

    def __init__(self, path: str):
        self.path = path
        self._folder = os.path.join(path, _SUBFOLDER)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()  # for what follows; LMDB locks its own
        self._file: LmdbFile | None = None
        self._is_off = False
        self._n_restarts = 0
        self._unreadable: set[bytes] = set()  # to be replaced by the next put
        self._default_limit: int | None = None
        self.key_locks = KeyLocks(os.path.join(self._folder, "locks"))

    def __reduce__(self):
        return open_store, (self.path,)

    def __repr__(self) -> str:
        return f"ActivationStore({self.path!r})"

    def __len__(self) -> int:
        return self._try(LmdbFile.measure, (0, 0))[0]

    @property
    def size_bytes(self) -> int:
        """Bytes in use; the file may hold free pages besides, within `limit`."""
        return self._try(LmdbFile.measure, (0, 0))[1]

    @property
    def limit(self) -> int:
        """Bytes the store may use: 10 GiB, a tenth of the free disk, or as the user says."""
        limit = _read_limit()
        if limit is not None:
            return limit
        if self._default_limit is None:
            self._default_limit = min(_DEFAULT_LIMIT, self._free_bytes() // 10)
        return self._default_limit

    def _free_bytes(self) -> int:
        """Return the free disk, what the store has taken counted as free."""
        folder = self.path
        while not os.path.isdir(folder) and folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
        data = os.path.join(self._folder, "data.mdb")
        taken = os.path.getsize(data) if os.path.exists(data) else 0
        return shutil.disk_usage(folder).free + taken

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return a copy of the row of each key, or None where there is none to be had."""
        rows, unreadable = self._try(lambda file: file.get(keys), ([None] * len(keys), []))
        self._unreadable.update(unreadable)
        return rows

    def put_many(self, items: Mapping[bytes, np.ndarray]) -> None:
        """Keep the rows, all or none of each 64 MiB, and evict those used longest ago.

        Waits some milliseconds for the disk, without the interpreter's lock:
        put a batch, not a row, and put it beside the computation of the next.
        """
        if items:
            self._try(lambda file: self._put(file, items), None, create=True)

    def get_digests(self, versions: Sequence[bytes]) -> list[bytes | None]:
        """Return the digest of each version of a file, or None where it is not known."""
        return self._try(lambda file: file.get_digests(versions), [None] * len(versions))

    def put_digests(self, items: Mapping[bytes, bytes]) -> None:
        """Keep the digests of files by their versions."""
        if items:
            self._try(lambda file: file.put_digests(items, self.limit), None, create=True)

    def _put(self, file: LmdbFile, items: Mapping[bytes, np.ndarray]) -> None:
        limit = self.limit
        if file.file_bytes > _OUTGROWN * limit + 2**24:
            # The limit was lowered. LMDB's file never shrinks, so a new one.
            del file
            with self._lock:
                self._discard()
                file = self._open_locked(create=True)
        file.put(items, limit, self._unreadable)

    def clear(self) -> None:
        """Remove all rows and the file; other processes start anew at their next call."""
        with self._lock:
            self._discard()
        self._reset()

    # when the disk fails

    def _try(self, work: Callable[[LmdbFile], _Result], default: _Result, create=False):
        """Return `work(file)`; `default` if there is no file or it fails."""
        with _gate:
            # in a frame of its own, that has let go of the file at the gate
            return self._try_inside(work, default, create)

    def _try_inside(self, work: Callable[[LmdbFile], _Result], default: _Result, create: bool):
        try:
            file = self._open(create)
            return default if file is None else work(file)
        except DAMAGE as error:
            self._start_anew(error)
        except (Error, OSError) as error:
            self._turn_off(error)
        return default

    def _open(self, create: bool) -> LmdbFile | None:
        with self._lock:
            return None if self._is_off else self._open_locked(create)

    def _open_locked(self, create: bool) -> LmdbFile | None:
        if self._file is not None and not self._file.is_current():
            # Cleared or removed by another. Dropped, not closed: another
            # thread may be reading; it closes with the last transaction.
            self._file = None
        if self._file is None:
            if create:
                os.makedirs(self._folder, exist_ok=True)
            elif not os.path.exists(os.path.join(self._folder, "data.mdb")):
                return None
            self._file = LmdbFile(self._folder)
        return self._file

    def _start_anew(self, error: Exception) -> None:
        self._n_restarts += 1
        if self._n_restarts > 1:  # what damaged it is still there
            return self._turn_off(error)
        try:
            with self._lock:
                self._discard()
        except OSError as os_error:
            return self._turn_off(os_error)
        warnings.warn(
            f"The feature cache in {self.path} is damaged ({error}) and was started "
            "anew: features are computed again.",
            FeatureCacheWarning,
            stacklevel=2,
        )

    def _discard(self) -> None:
        """Take the folder away, in one step for all who look for it."""
        self._file = None
        if not os.path.isdir(self._folder):
            return
        trash = tempfile.mkdtemp(prefix="trash-", dir=self.path)
        try:
            os.rename(self._folder, os.path.join(trash, _SUBFOLDER))
        except FileNotFoundError:
            pass  # another was faster
        finally:
            shutil.rmtree(trash)

    def _turn_off(self, error: Exception) -> None:
        with self._lock:
            if self._is_off:
                return
            self._is_off = True
            self._file = None
        warnings.warn(
            f"The feature cache in {self.path} is off for this process: {error}. The "
            "work goes on without it. Free disk space or permit writing there, or set "
            "feature_cache (or the environment variable SKTRANSFER_CACHE) to another "
            "folder, or feature_cache=None.",
            FeatureCacheWarning,
            stacklevel=2,
        )


def _read_limit() -> int | None:
    """Return the bytes that SKTRANSFER_CACHE_LIMIT names; None if it isn't set."""
    text = os.environ.get("SKTRANSFER_CACHE_LIMIT", "").strip()
    if not text:
        return None
    unit = _UNITS.get(text[-1].upper(), 1)
    number = text if unit == 1 else text[:-1]
    try:
        limit = int(float(number) * unit)
    except (ValueError, OverflowError):  # no number; infinity
        limit = -1
    if limit < 0:
        raise ValueError(
            "SKTRANSFER_CACHE_LIMIT must be a number of bytes, or a number with K, M, G "
            f"or T such as 20G, got {text!r}"
        )
    return limit


def _forget_after_fork() -> None:
    """Let the child of a fork open its own: locks and LMDB don't survive a fork."""
    global _stores_lock, _gate
    _stores_lock, _gate = threading.Lock(), ForkGuard()
    for store in list(_stores.values()):
        store._reset()


def _write_uses_at_exit() -> None:
    for store in list(_stores.values()):
        if store._file is not None:
            store._try(LmdbFile.write_uses, None)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=lambda: _gate.close(),
        after_in_parent=lambda: _gate.open(),
        after_in_child=_forget_after_fork,
    )
atexit.register(_write_uses_at_exit)
