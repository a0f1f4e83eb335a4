"""One LMDB environment that holds blocks of rows: read, append, evict.

Three tables: `rows` (name of a row -> its block and position), `blocks` (id ->
bytes of the block) and `uses` (id -> minute of last use, size). Ids grow, so
blocks are appended and the tree stays full and flat. Two more hold the digests of files,
so that these need not be read again (`_digest_table.py`).

What is guaranteed after failures:

- A process killed at any moment leaves its unfinished transaction invisible.
  LMDB writes new pages beside the old ones and switches by one write of a meta
  page; the lock of a killed writer is taken over.
- After a crash of the operating system the tree is whole, because every commit
  waits until its pages are on the disk (`sync=True`); the last commit may be
  undone (`metasync=False` halves the wait, and a cache may lose its last rows).
- A full disk is an error, not a signal: without `writemap` pages are written,
  not stored through the memory map, where a full disk is SIGBUS.
- Damaged bytes are detected by the checksum of the block and by the keys in it.

A file that this process may not write to is read without LMDB's locks, because taking one
writes to a file. Then a writer may reuse the pages of an old state, but not before the second
transaction after the next one: what was read is valid if at most one transaction was
committed meanwhile, else it is read again.
"""

import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import lmdb
import numpy as np

from ._block import COMMON_SIZE, Block, group, pack, parts, unpack
from ._digest_table import DigestTable
from ._folder import is_read_only, make_private_file, make_private_folder, not_replaced
from ._use_table import UseTable

_Result = TypeVar("_Result")
Rows = tuple[list[np.ndarray | None], list[bytes]]  # and the keys of those that can't be read

_PLACE = struct.Struct(">QH")  # of a row: id of its block, position in it
_ID = struct.Struct(">Q")  # big-endian: LMDB's order of bytes is that of the numbers

# Address space, not disk or memory. It is the same in every process, so that no process
# makes the file larger than the map of another; eviction enforces the limit.
_MAP_SIZE = 2**40

_TRANSACTION_BYTES = 2**26  # so that other writers wait briefly

# The part of the limit that rows may fill. The rest is for pages that are free
# but not yet reusable: those of the last two transactions and gaps.
FILL = 0.75
_EVICT_TO = 0.9  # of that part, so that one search for the oldest serves many puts

_EVICT_AT_ONCE = 1 / 8  # of the pages in use, at most, after the limit was lowered

# Share of the limit for digests of files: with 10 GiB, those of 4 to 6 million files.
_DIGEST_PART = 1 / 16

_FILES = ("data.mdb", "lock.mdb")
_MAX_READERS = 1024  # simultaneous reads
_LOCK_FILE_BYTES = 64 * _MAX_READERS + 2**12  # 64 bytes a reader, and what LMDB adds
_READ_AGAIN = 3  # times, where a writer may have overwritten what was read

# The base of the errors that LMDB raises.
Error = lmdb.Error

# The errors that LMDB raises for a damaged file.
DAMAGE = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.MapResizedError,  # no file of ours is as large as the map
    struct.error,  # a record of a length that is never written
)


def data_file(folder: str) -> str:
    """Return the path of LMDB's data file."""
    return os.path.join(folder, _FILES[0])


def can_only_be_read(folder: str) -> bool:
    """Return whether there is a data file that this process may not write to."""
    return os.path.exists(data_file(folder)) and is_read_only(folder, _FILES)


def _name(key: bytes) -> bytes:
    """Return the name of a row in the table of rows.

    The table takes more of the disk than small rows do, so a name is three quarters of the
    key; the block has the whole key, which tells two rows of one name apart. The image's half
    comes first, so that all depths of an image are on one page of the table.
    """
    return key[COMMON_SIZE:] + key[: COMMON_SIZE // 2]


class LmdbFile:
    """An open environment in `folder`, which must exist. LMDB's errors pass through."""

    def __init__(self, folder: str):
        self._data = data_file(folder)
        self.is_read_only = can_only_be_read(folder)
        if not self.is_read_only:
            make_private_folder(folder)
        with not_replaced(folder):  # locks of one folder must not guard the file of another
            if not self.is_read_only:
                make_private_file(self._data)
                make_private_file(os.path.join(folder, _FILES[1]), _LOCK_FILE_BYTES)
            self._env = lmdb.open(
                folder,
                map_size=_MAP_SIZE,
                max_dbs=5,
                max_readers=_MAX_READERS,
                metasync=False,
                readahead=False,  # rows are read in random order
                meminit=True,  # else what was in memory before, a password maybe, goes to the disk
                mode=0o600,
                readonly=self.is_read_only,
                lock=not self.is_read_only,
            )
            self._identity = self._identify()
        if not self.is_read_only:
            self._env.reader_check()  # else slots of killed readers block the reuse of pages
        self._page = self._env.stat()["psize"]
        needed = self.file_bytes  # read before the size, which another process may increase
        if os.stat(self._data).st_size < needed:
            # reading beyond the end would be SIGBUS, not an error
            raise lmdb.CorruptedError(f"{self._data} is shorter than its pages")
        self._tables = [
            self._env.open_db(name, create=not self.is_read_only)
            for name in (b"rows", b"blocks", b"uses", b"digests", b"order")
        ]
        self._rows, self._blocks = self._tables[:2]
        self._uses = UseTable(self._tables[2])
        self._digests = DigestTable(*self._tables[3:])
        self._verified: set[int] = set()  # blocks whose checksum held in this process

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._data)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def is_current(self) -> bool:
        """Return whether the path still names this file: not cleared, removed or replaced."""
        return self._identify() == self._identity

    @property
    def file_bytes(self) -> int:
        """Size the file has grown to, free pages included."""
        return (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]

    def measure(self) -> tuple[int, int]:
        """Return the number of rows and the bytes of the pages in use."""
        return self._read(lambda txn: (txn.stat(self._rows)["entries"], self._used(txn)), (0, 0))

    def _used(self, txn: lmdb.Transaction) -> int:
        return self._size(txn, *self._tables)

    def _size(self, txn: lmdb.Transaction, *tables: "lmdb._Database") -> int:
        stats = [txn.stat(table) for table in tables]
        return self._page * sum(
            stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats
        )

    # reading

    def _read(
        self, work: Callable[[lmdb.Transaction], _Result], default: _Result, buffers: bool = True
    ) -> _Result:
        """Return the result of `work` for one consistent state of the file."""
        if not self.is_read_only:
            with self._begin(buffers) as txn:
                return work(txn)
        for _ in range(_READ_AGAIN):
            with self._begin(buffers) as txn:
                result = work(txn)
                if self._env.info()["last_txnid"] <= txn.id() + 1:
                    return result
        return default

    def _begin(self, buffers: bool) -> lmdb.Transaction:
        return self._env.begin(buffers=True) if buffers else self._env.begin()

    def get(self, keys: Sequence[bytes]) -> Rows:
        """Return copies of the rows, and the keys whose row is stored but can't be read."""
        nothing: Rows = ([None] * len(keys), [])
        result = self._read(lambda txn: self._get(txn, keys), nothing)
        if self._uses.is_time_to_write() and not can_only_be_read(os.path.dirname(self._data)):
            self.write_uses()
        return result

    def _get(self, txn: lmdb.Transaction, keys: Sequence[bytes]) -> Rows:
        found: list[np.ndarray | None] = [None] * len(keys)
        unreadable: list[bytes] = []
        wanted: dict[int, tuple[list[int], list[int]]] = {}
        for i, key in enumerate(keys):
            place = txn.get(_name(key), db=self._rows)
            if place is not None:
                block_id, position = _PLACE.unpack(place)
                indices, positions = wanted.setdefault(block_id, ([], []))
                indices.append(i)
                positions.append(position)
        for block_id, (indices, positions) in wanted.items():
            block = self._read_block(txn, block_id)
            if block is None or not block.holds([keys[i] for i in indices], positions):
                unreadable += [keys[i] for i in indices]
                continue
            rows = block.take(positions)
            for j, i in enumerate(indices):
                found[i] = rows[j, ...]  # the ellipsis returns an array even without axes
            if not self.is_read_only:
                self._uses.note(txn, block_id)
        return found, unreadable

    def _read_block(self, txn: lmdb.Transaction, block_id: int) -> Block | None:
        data = txn.get(_ID.pack(block_id), db=self._blocks)
        if data is None:
            return None
        # Blocks never change, so a checksum is verified once: the second epoch reads at the
        # speed of a copy. Without locks a block may change, so it is verified every time.
        verify = self.is_read_only or block_id not in self._verified
        block = unpack(memoryview(data), verify=verify)
        if block is not None:
            self._verified.add(block_id)
        return block

    # writing

    def write_uses(self) -> None:
        """Write the uses that were noted since the last time."""
        with self._env.begin(write=True) as txn:
            self._uses.write(txn)

    def put(
        self, items: Mapping[bytes, np.ndarray], limit: int, replace: set[bytes]
    ) -> list[tuple[list[bytes], int]]:
        """Add the rows that are missing or in `replace`; evict to stay below `limit`.

        Returns the keys of each block that was evicted, or is too large to be stored, and
        the bytes it had.
        """
        limit = min(limit, _MAP_SIZE // 2)
        evicted: list[tuple[list[bytes], int]] = []
        for part in parts(items, min(_TRANSACTION_BYTES, limit // 16)):
            try:
                evicted += self._put_part(part, limit * FILL, replace)
            except lmdb.MapFullError:
                # Pages can be reused two transactions later, so an empty one follows.
                evicted += self.evict_to(self.measure()[1] * (1 - _EVICT_AT_ONCE))
                self.write_uses()
                evicted += self._put_part(part, limit * FILL, replace)
        return evicted

    def _put_part(
        self, part: Mapping[bytes, np.ndarray], room: float, replace: set[bytes]
    ) -> list[tuple[list[bytes], int]]:
        with self._env.begin(write=True) as txn:
            self._uses.write(txn)
            # Rows that another process has put meanwhile stay.
            fresh = {
                key: row
                for key, row in part.items()
                if key in replace or txn.get(_name(key), db=self._rows) is None
            }
            packed = [(keys, pack(keys, rows)) for keys, rows in group(fresh)]
            blocks = [(keys, data) for keys, data in packed if len(data) <= room / 2]
            evicted = self._make_room(txn, room, sum(self._pages(data) for _, data in blocks))
            for keys, data in blocks:
                self._append(txn, keys, data)
        replace.difference_update(fresh)
        return evicted + [(keys, len(data)) for keys, data in packed if len(data) > room / 2]

    def evict_to(self, n_bytes: float) -> list[tuple[list[bytes], int]]:
        """Evict blocks used longest ago until the others take at most `n_bytes`."""
        with self._env.begin(write=True) as txn:
            return self._evict(txn, self._used(txn) - n_bytes)

    def _pages(self, data: bytes) -> int:
        return (len(data) // self._page + 1) * self._page

    def _append(self, txn: lmdb.Transaction, keys: Sequence[bytes], data: bytes) -> None:
        with txn.cursor(self._blocks) as cursor:
            last = _ID.unpack(cursor.key())[0] if cursor.last() else 0
        # From the clock, so that the id of an evicted block is not used again.
        block_id = max(last + 1, time.time_ns())
        name = _ID.pack(block_id)
        txn.put(name, data, db=self._blocks, append=True)
        self._uses.add(txn, block_id, self._pages(data))
        for position, key in enumerate(keys):
            txn.put(_name(key), _PLACE.pack(block_id, position), db=self._rows)

    def _make_room(
        self, txn: lmdb.Transaction, room: float, incoming: int
    ) -> list[tuple[list[bytes], int]]:
        """Delete the blocks used longest ago until `incoming` bytes fit."""
        used = self._used(txn)
        if used + incoming <= room:
            return []
        self._env.reader_check()
        excess = used + incoming - room * _EVICT_TO
        # A lowered limit is reached in steps.
        return self._evict(txn, min(excess, incoming + used * _EVICT_AT_ONCE))

    def _evict(self, txn: lmdb.Transaction, n_bytes: float) -> list[tuple[list[bytes], int]]:
        """Delete the blocks used longest ago, of at least `n_bytes` together."""
        if n_bytes <= 0:
            return []
        evicted = []
        for block_id, size in self._uses.oldest_first(txn):
            if n_bytes <= 0:
                break
            n_bytes -= size
            evicted.append((self._delete(txn, block_id), size))
        return evicted

    def _delete(self, txn: lmdb.Transaction, block_id: int) -> list[bytes]:
        """Delete a block and the rows in it; return their keys, if it can be read."""
        data = txn.get(_ID.pack(block_id), db=self._blocks)
        block = None if data is None else unpack(memoryview(data), verify=True)
        keys = [] if block is None else block.list_keys()
        names = [_name(key) for key in keys]
        if block is None:  # search for the rows that point here
            with txn.cursor(self._rows) as cursor:
                names = [bytes(name) for name, _ in cursor]
        for name in names:
            place = txn.get(name, db=self._rows)
            if place is not None and _PLACE.unpack(place)[0] == block_id:
                txn.delete(name, db=self._rows)
        txn.delete(_ID.pack(block_id), db=self._blocks)
        self._uses.delete(txn, block_id)
        return keys

    def copy_to(self, folder: str) -> None:
        """Copy everything but free pages to `folder`; other writers wait meanwhile."""
        with self._env.begin(write=True):
            self._env.copy(folder, compact=True)

    # digests of files

    def get_digests(self, versions: Sequence[bytes]) -> list[bytes | None]:
        """Return the digest of each version of a file; None if unknown or damaged."""
        unknown: list[bytes | None] = [None] * len(versions)
        return self._read(lambda txn: self._digests.get(txn, versions), unknown, buffers=False)

    def put_digests(self, items: Mapping[bytes, bytes], limit: int) -> None:
        """Store digests by the version of the file; drop the oldest above their limit."""
        with self._env.begin(write=True) as txn:
            self._digests.put(txn, items)
            if self._size(txn, *self._digests.tables) > limit * _DIGEST_PART:
                # two for each new one, so that their number falls after the limit was lowered
                self._digests.drop_first(txn, 2 * len(items))
