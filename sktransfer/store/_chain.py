"""Several stores as one: all are read, and only the last one is written to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._base import ActivationStore, KeyLocking


class StoreChain:
    """Several stores as one: read in their order, and only the last one is written to.

    Made by `open_store`. Properties such as `limit` and `path` are those of the last
    store.
    """

    def __init__(self, stores: Sequence[ActivationStore]):
        self.stores = tuple(stores)
        self._last = self.stores[-1]
        self.path = self._last.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.stores)!r})"

    def __len__(self) -> int:
        return len(self._last)

    @property
    def key_locks(self) -> KeyLocking:
        return self._last.key_locks

    @property
    def limit(self) -> int:
        return self._last.limit

    @property
    def size_bytes(self) -> int:
        return self._last.size_bytes

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return a copy of the row of each key, from the first store that has it."""
        return self._first_found(lambda store, wanted: store.get_many(wanted), keys)

    def get_digests(self, versions: Sequence[bytes]) -> list[bytes | None]:
        """Return the digest of each version of a file, from the first store that has it."""
        return self._first_found(lambda store, wanted: store.get_digests(wanted), versions)

    def _first_found(
        self, get: Callable[[ActivationStore, list[bytes]], list], keys: Sequence[bytes]
    ) -> list[Any]:
        found: list[Any] = [None] * len(keys)
        missing = list(range(len(keys)))
        for store in self.stores:
            if not missing:
                break
            for i, value in zip(missing, get(store, [keys[i] for i in missing]), strict=True):
                found[i] = value
            missing = [i for i in missing if found[i] is None]
        return found

    def put_many(self, items: Mapping[bytes, np.ndarray]) -> None:
        """Store rows in the last store."""
        self._last.put_many(items)

    def put_digests(self, items: Mapping[bytes, bytes]) -> None:
        """Store digests of files in the last store."""
        self._last.put_digests(items)

    def clear(self) -> None:
        """Remove the rows of the last store; the others are not changed."""
        self._last.clear()
