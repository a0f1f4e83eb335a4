"""Whether a store is thrashing: rows are evicted, asked for again, and computed anew.

A pass over more images than the store holds evicts each row before the next pass asks for
it, so a store that is a little too small may be of no use at all. What this process
evicted is remembered, a sample of it once that is much, and compared with what is asked
for later.
"""

import threading
from collections.abc import Iterable

_MOST_REMEMBERED = 2**14  # keys; about 2 MiB
_LEAST_ASKED_AGAIN = 16  # rows, before anything is said
_PART_ASKED_AGAIN = 0.05  # of the rows that the store holds


class EvictionLog:
    """The rows that were evicted by this process, and how many were asked for again.

    A key is remembered if a hash of it is divisible by a power of two that grows with the
    number of keys, so that the sample is one of keys and not of times.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._one_in = 1
        self._evicted_before: dict[int, int] = {}  # hash of a key -> `_n_bytes` at that time
        self._n_bytes = 0  # evicted until now
        self._n_asked_again = 0
        self._most_missing = 0

    def __len__(self) -> int:
        return len(self._evicted_before)

    @property
    def n_asked_again(self) -> int:
        """Rows that were asked for after their eviction, estimated from the sample."""
        return self._n_asked_again

    @property
    def n_missing_bytes(self) -> int:
        """Bytes by which the store would have to be larger to still hold those rows."""
        return self._most_missing

    def add(self, evicted: Iterable[tuple[list[bytes], int]]) -> None:
        """Note the keys of each block that was evicted, and the bytes it had."""
        with self._lock:
            for keys, n_bytes in evicted:
                for hashed in map(_hash, keys):
                    if hashed % self._one_in == 0:
                        self._evicted_before[hashed] = self._n_bytes
                self._n_bytes += n_bytes
            while len(self._evicted_before) > _MOST_REMEMBERED:
                self._one_in *= 2
                self._evicted_before = {
                    hashed: before
                    for hashed, before in self._evicted_before.items()
                    if hashed % self._one_in == 0
                }

    def ask(self, keys: Iterable[bytes]) -> None:
        """Note keys that were asked for in vain."""
        with self._lock:
            for key in keys:
                before = self._evicted_before.pop(_hash(key), None)
                if before is not None:
                    self._n_asked_again += self._one_in
                    self._most_missing = max(self._most_missing, self._n_bytes - before)

    def is_thrashing(self, n_rows: int) -> bool:
        """Tell whether so many rows were asked for again, of a store that holds `n_rows`."""
        return self._n_asked_again >= max(_LEAST_ASKED_AGAIN, _PART_ASKED_AGAIN * n_rows)


def _hash(key: bytes) -> int:
    # Both halves are digests, and either may be the same for all keys of a call.
    return int.from_bytes(key[:8], "little") ^ int.from_bytes(key[-8:], "little")
