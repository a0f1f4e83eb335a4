"""Whether a store is thrashing: rows are evicted, asked for again, and computed anew.

An epoch over more images than the store holds evicts each row before the next epoch asks for
it, so a store that is a little too small may have no cache hits at all. The keys that this
process evicted are remembered (a sample of them, once there are many), and compared with
the keys that are asked for later.
"""

import threading
from collections.abc import Iterable

_MOST_REMEMBERED = 2**14  # keys; about 2 MiB
_LEAST_ASKED_AGAIN = 16  # rows, before there is a warning
_PART_ASKED_AGAIN = 0.05  # of the rows that the store holds


class EvictionLog:
    """The rows that were evicted by this process, and how many were asked for again.

    A key is remembered if a hash of it is divisible by a power of two that grows with the
    number of keys, so that the sample is one of keys and not of times.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._one_in = 1
        self._evicted: dict[int, float] = {}  # hash of a key -> bytes of its row
        self._asked: set[int] = set()  # of these, since they were evicted
        self._n_asked_again = 0

    def __len__(self) -> int:
        return len(self._evicted)

    @property
    def n_asked_again(self) -> int:
        """Rows that were asked for after their eviction, estimated from the sample."""
        return self._n_asked_again

    @property
    def n_evicted_bytes(self) -> int:
        """Bytes of the rows that were evicted, each counted once, estimated alike."""
        return round(self._one_in * sum(self._evicted.values()))

    def add(self, evicted: Iterable[tuple[list[bytes], int]]) -> None:
        """Note the keys and the number of bytes of each evicted block."""
        with self._lock:
            for keys, n_bytes in evicted:
                for hashed in map(_hash, keys):
                    if hashed % self._one_in == 0:
                        self._evicted[hashed] = n_bytes / len(keys)
                        self._asked.discard(hashed)
            while len(self._evicted) > _MOST_REMEMBERED:
                self._one_in *= 2
                self._evicted = {
                    hashed: n_bytes
                    for hashed, n_bytes in self._evicted.items()
                    if hashed % self._one_in == 0
                }
                self._asked &= self._evicted.keys()

    def ask(self, keys: Iterable[bytes]) -> None:
        """Note keys that were asked for and not found."""
        with self._lock:
            for hashed in map(_hash, keys):
                if hashed in self._evicted and hashed not in self._asked:
                    self._asked.add(hashed)
                    self._n_asked_again += self._one_in

    def is_thrashing(self, n_rows: int) -> bool:
        """Return whether too many rows were asked for again, in a store of `n_rows` rows."""
        return self._n_asked_again >= max(_LEAST_ASKED_AGAIN, _PART_ASKED_AGAIN * n_rows)


def _hash(key: bytes) -> int:
    # of both halves: either may be the same for all keys of a call
    return int.from_bytes(key[:8], "little") ^ int.from_bytes(key[-8:], "little")
