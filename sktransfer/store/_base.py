"""The protocol of a store: rows and digests of files by key, and locks on keys."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np


class KeyLocking(Protocol):
    """Locks by which processes share the computation of rows; `acquire` never waits."""

    def acquire(self, keys: Iterable[bytes]) -> list[bytes]:
        """Lock the keys that are free; return those that this caller now holds."""

    def release(self, keys: Sequence[bytes]) -> None:
        """Release the locks; keys that are not held are ignored."""


class ActivationStore(Protocol):
    """Arrays by key, for many threads and processes at once.

    A key is 32 bytes that name everything its row depends on: 16 for all but the image,
    then 16 of the image's digest. So a key never has another row, and where two processes
    put it, the first row stays. Two processes that start with an empty store share the
    work: each locks a key and then looks it up once more, before it computes the row.

    A store raises no error when the disk fails. It warns once; from then on it finds
    nothing, or stores nothing.

    Attributes
    ----------
    path : str
        The folder that rows are written to.
    limit : int
        Bytes that the store may use.
    size_bytes : int
        Bytes in use.
    key_locks : KeyLocking
    """

    path: str

    @property
    def key_locks(self) -> KeyLocking: ...

    @property
    def limit(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    def __len__(self) -> int:
        """Return the number of rows."""

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return a copy of the row of each key, or None where the store has none."""

    def put_many(self, items: Mapping[bytes, np.ndarray]) -> None:
        """Store the rows; where room is needed, evict those used longest ago."""

    def get_digests(self, versions: Sequence[bytes]) -> list[bytes | None]:
        """Return the digest of each version of a file, or None where it is not known."""

    def put_digests(self, items: Mapping[bytes, bytes]) -> None:
        """Store the digests of files by their versions."""

    def clear(self) -> None:
        """Remove all rows; other processes use an empty store from their next call on."""
