"""The warnings of a store, each at most once in a process."""

import threading
import warnings

from ..exceptions import FeatureCacheWarning
from ._limit import LIMIT_VARIABLE, format_size


class StoreWarnings:
    """The warnings of the store in `path`."""

    def __init__(self, path: str):
        self._path = path
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """In the child of a fork: nobody else holds the lock."""
        self._lock = threading.Lock()

    def has_said(self, kind: str) -> bool:
        return kind in self._said

    def _say(self, kind: str, message: str) -> None:
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        warnings.warn(message, FeatureCacheWarning, stacklevel=3)

    def damaged(self, error: Exception) -> None:
        self._say(
            "damaged",
            f"The feature cache in {self._path} is damaged ({error}) and was started "
            "anew: features are computed again.",
        )

    def not_written(self, error: Exception, free: int) -> None:
        self._say(
            "failed",
            f"Nothing is written to the feature cache in {self._path} for the rest of this "
            f"process: {error} ({format_size(free)} bytes of its disk are free). Rows that it "
            "holds are still read, all others are computed in each call. Free disk space or "
            "permit writing there, or set feature_cache (or the environment variable "
            "SKTRANSFER_CACHE) to another folder, or feature_cache=None.",
        )

    def off(self, error: Exception) -> None:
        self._say(
            "failed",
            f"The feature cache in {self._path} is off for this process: {error}. All "
            "features are computed in each call. Permit reading there, or set feature_cache (or "
            "the environment variable SKTRANSFER_CACHE) to another folder, or feature_cache=None.",
        )

    def read_only(self) -> None:
        self._say(
            "read-only",
            f"The feature cache in {self._path} is read-only: rows that it does not hold are "
            "computed in each call. To keep them, add one that can be written to: "
            f"feature_cache=[{self._path!r}, 'auto'].",
        )

    def missing(self, has_former: bool) -> None:
        reason = "holds rows of a former version of sktransfer" if has_former else "has none"
        self._say(
            "missing",
            f"No rows are read from the feature cache in {self._path}: the folder {reason}, or "
            "may not be read. Leave it out of feature_cache, permit reading, or have it filled "
            "by this version of sktransfer.",
        )

    def former_version(self) -> None:
        self._say(
            "former version",
            f"The feature cache in {self._path} was written by a former version of sktransfer, "
            "whose rows can't be trusted. It was removed: features are computed again.",
        )

    def shrunk(self, used: int, limit: int, n_evicted: int, limit_for_all: float) -> None:
        self._say(
            "shrunk",
            f"The feature cache in {self._path} held {format_size(used)}, and its limit is "
            f"{format_size(limit)} now: the {n_evicted} rows used longest ago were removed. To "
            f"keep as much, set the environment variable "
            f"{LIMIT_VARIABLE}={format_size(limit_for_all)}.",
        )

    def thrashing(self, n_rows: int, limit: int, limit_for_all: float) -> None:
        self._say(
            "thrashing",
            f"The feature cache in {self._path} is too small for these images: about {n_rows} "
            "rows were removed to make room for others and then asked for again, so they are "
            f"computed again each time. Its limit is {format_size(limit)}; set the environment "
            f"variable {LIMIT_VARIABLE}={format_size(limit_for_all)} to keep all rows, or "
            "SKTRANSFER_CACHE to a folder on a larger disk.",
        )

    def disk_fills_up(self, free: int, used: int) -> None:
        self._say(
            "disk",
            f"The disk of the feature cache in {self._path} is filling up, {format_size(free)} "
            f"are free. The cache keeps its {format_size(used)} and does not grow: new rows "
            "take the place of those used longest ago. Free disk space, or set the environment "
            f"variable {LIMIT_VARIABLE}, or SKTRANSFER_CACHE to a folder on another disk.",
        )
