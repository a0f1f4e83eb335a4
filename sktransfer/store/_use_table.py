"""The table of when each block was used last, which decides which are evicted first.

A use is noted in memory and written with the next put, after a minute, or at exit, so that
reading does not wait for the disk.
"""

import struct
import time
from typing import Any

_ID = struct.Struct(">Q")  # as in `_lmdb.py`
_USE = struct.Struct("<IQ")  # minute of last use, size in bytes
_NOTED_AFTER = 10  # minutes: a use is noted only if the last one is older
_WRITTEN_AFTER = 60  # s


class UseTable:
    """The table `uses` (id of a block -> minute of last use, size) of a database."""

    def __init__(self, table: Any):
        self._table = table
        self._noted: dict[int, int] = {}  # block -> minute, not yet written
        self._written_at = 0.0

    def add(self, txn: Any, block_id: int, size: int) -> None:
        """Add a block, which is used now. Ids grow."""
        txn.put(_ID.pack(block_id), _USE.pack(_minute(), size), db=self._table, append=True)

    def delete(self, txn: Any, block_id: int) -> None:
        txn.delete(_ID.pack(block_id), db=self._table)

    def note(self, txn: Any, block_id: int) -> None:
        """Note that a block is used now."""
        now = _minute()
        use = txn.get(_ID.pack(block_id), db=self._table)
        if use is not None and now - _USE.unpack(use)[0] >= _NOTED_AFTER:
            self._noted[block_id] = now

    def is_time_to_write(self) -> bool:
        return bool(self._noted) and time.monotonic() - self._written_at > _WRITTEN_AFTER

    def write(self, txn: Any) -> None:
        """Write the noted uses."""
        noted, self._noted = self._noted, {}
        self._written_at = time.monotonic()
        for block_id, minute in noted.items():
            use = txn.get(_ID.pack(block_id), db=self._table)
            if use is not None:  # else evicted meanwhile
                size = _USE.unpack(use)[1]
                txn.put(_ID.pack(block_id), _USE.pack(minute, size), db=self._table)

    def oldest_first(self, txn: Any) -> list[tuple[int, int]]:
        """Return the id and the size of every block, the one used longest ago first."""
        with txn.cursor(self._table) as cursor:
            uses = ((_ID.unpack(name)[0], *_USE.unpack(use)) for name, use in cursor)
            # ids grow, so blocks of one minute are in the order in which they were written
            ordered = sorted(uses, key=lambda use: (use[1], use[0]))
        return [(block_id, size) for block_id, _, size in ordered]


def _minute() -> int:
    return int(time.time() // 60)
