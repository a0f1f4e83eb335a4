"""The feature cache of the estimators: `open_store` turns `feature_cache` into a store.

The folder should be on a local disk. LMDB's locks and memory maps are not made
for network file systems: where the home folder is on NFS, set the variable
SKTRANSFER_CACHE to a local one, which the processes of one machine share.
"""

import copyreg
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload
from weakref import WeakValueDictionary

import platformdirs

from .._locking import ForkSafeLock
from .._text_table import html_table
from ._chain import StoreChain
from ._limit import format_size, read_limit
from ._lmdb_store import LmdbStore

_Cache = str | os.PathLike[str]
_Caches = list[Any] | tuple[Any, ...]

# One store for each folder: LMDB must not be opened twice in a process. Unused stores are
# closed, except the last few, so that the next call finds its store open.
_stores: WeakValueDictionary[str, LmdbStore] = WeakValueDictionary()
_recent: deque[LmdbStore] = deque(maxlen=4)
_stores_lock = ForkSafeLock()


@dataclass(frozen=True)
class FeatureCacheInfo:
    """The folder and the size of a feature cache; sizes in bytes."""

    path: str
    n_entries: int
    size: int
    limit: int
    read_only: bool = False

    def _repr_html_(self) -> str:
        size = f"{format_size(self.size)} of {format_size(self.limit)}"
        row = (self.path, self.n_entries, size, "yes" if self.read_only else "no")
        return html_table(("path", "entries", "size", "read only"), [row])


@overload
def feature_cache_info(feature_cache: _Cache = "auto") -> FeatureCacheInfo: ...
@overload
def feature_cache_info(feature_cache: _Caches) -> list[FeatureCacheInfo]: ...
@overload
def feature_cache_info(feature_cache: None) -> None: ...
def feature_cache_info(
    feature_cache: _Cache | _Caches | None = "auto",
) -> FeatureCacheInfo | list[FeatureCacheInfo] | None:
    """Return the folder, the size and the limit of the feature cache.

    Parameters
    ----------
    feature_cache : "auto", None, path or list of these, default="auto"
        As in the estimators.

    Returns
    -------
    info : FeatureCacheInfo, list of FeatureCacheInfo or None
        ``path``; ``n_entries``, the number of rows of all depths and of activations;
        ``size`` and ``limit`` in bytes; ``read_only``, whether this process can read it
        and not write to it. A list, in the same order, if `feature_cache` is a list. None
        if `feature_cache` is None.

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
    if feature_cache is None:
        return None
    if isinstance(feature_cache, (list, tuple)):
        return [_info(store) for store in _open_all(feature_cache)]
    return _info(_open_one(feature_cache))


def _info(store: LmdbStore) -> FeatureCacheInfo:
    return FeatureCacheInfo(
        store.path, len(store), store.size_bytes, store.limit, store.is_read_only
    )


def clear_feature_cache(feature_cache: _Cache | _Caches | None = "auto") -> None:
    """Delete the feature cache and give its disk back.

    Parameters
    ----------
    feature_cache : "auto", None, path or list of these, default="auto"
        As in the estimators. Only what sktransfer wrote to the folder is
        deleted. Other processes that use it continue with an empty cache. Of a list, the
        last cache is deleted, which is the one that is written to.

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


def open_store(feature_cache: Any) -> LmdbStore | StoreChain | None:
    """Return the store of `feature_cache`; None if it is None. Nothing is written yet.

    Of a list, rows are read from each in its order, and written to the last one only.
    """
    if feature_cache is None:
        return None
    if not isinstance(feature_cache, (list, tuple)):
        return _open_one(feature_cache)
    *others, last = _open_all(feature_cache)
    # one that is read and written is asked once, in the place of its first naming
    stores = list(dict.fromkeys(store for store in others if store is not last))
    for store in stores:
        if not store.has_rows:
            store.warnings.missing(store.has_former_rows)
    return StoreChain([*stores, last]) if stores else last


def _open_all(caches: list | tuple) -> list[LmdbStore]:
    if not caches:
        raise ValueError(
            "feature_cache must not be an empty list: name the caches to read, and last the one "
            "to write to, such as ['/shared/prebuilt', 'auto'], or pass None for no cache"
        )
    return [_open_one(cache, f"[{i}]") for i, cache in enumerate(caches)]


def _open_one(cache: Any, index: str = "") -> LmdbStore:
    if not isinstance(cache, (str, os.PathLike)) or cache == "":
        none = "" if index else ", None (off), a list of caches"
        raise ValueError(
            f"feature_cache{index} must be 'auto'{none} or the path of a folder "
            f"(str or os.PathLike), got {cache!r}"
        )
    if cache == "auto":
        cache = os.environ.get("SKTRANSFER_CACHE") or platformdirs.user_cache_dir(
            "sktransfer", appauthor=False
        )
    read_limit()  # a wrong variable is an error here, not a warning later
    # realpath: two names of one folder are one store
    path = os.path.realpath(os.path.expanduser(os.fsdecode(cache)))
    with _stores_lock:
        store = _stores.get(path)
        if store is None:
            store = _stores[path] = LmdbStore(path)
        if store not in _recent:
            _recent.append(store)
        return store


# pickled as the paths that they are opened with
_open: Callable[..., Any] = open_store
copyreg.pickle(LmdbStore, lambda store: (_open, (store.path,)))
copyreg.pickle(StoreChain, lambda chain: (_open, ([store.path for store in chain.stores],)))
