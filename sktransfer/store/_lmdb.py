"""One LMDB environment that holds blocks of rows: read, append, evict.

Three tables: `rows` (key of a row -> its block and position), `blocks` (id ->
bytes of the block) and `uses` (id -> minute of last use, size). Ids grow, so
blocks are appended and the tree stays full and flat. A fourth, `digests`, keeps
what files held that may not have to be read again (version of a file -> digest).

What holds when things break:

- A process killed at any moment leaves its unfinished transaction invisible.
  LMDB writes new pages beside the old ones and switches by one write of a meta
  page; a writer's lock is taken over from the dead.
- After a crash of the operating system the tree is whole, because every commit
  waits until its pages are on the disk (`sync=True`); the last commit may be
  undone (`metasync=False`: half the waiting, and a cache can do without it).
- A full disk is an error, not a signal: without `writemap` pages are written,
  not stored through the memory map, where a full disk is SIGBUS.
- Wrong bytes are caught by the checksum of the block and by the key kept in it.
"""

import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import lmdb
import numpy as np

from ._block import KEY_SIZE, Block, check_item, pack, unpack

_PLACE = struct.Struct(">QI")  # of a row: id of its block, position in it
_ID = struct.Struct(">Q")  # big-endian: LMDB's order of bytes is that of the numbers
_USE = struct.Struct("<IQ")  # minute of last use, size in bytes
_CHECK = struct.Struct("<I")  # crc32 of a file's version and digest, after the digest

# Address space, not disk or memory. The same in every process, so that none
# outgrows the map of another; the limit is kept by eviction.
_MAP_SIZE = 2**40

_BLOCK_BYTES = 2**18  # rows are packed up to here; a larger row is a block of its own
_TRANSACTION_BYTES = 2**26  # keeps the wait of other writers short
_TOUCH_MINUTES = 10  # a use is written down only if the last one is older

# The part of the limit that rows may fill. The rest is for pages that are free
# but not yet reusable: those of the last two transactions and gaps.
_FILL = 0.75
_EVICT_TO = 0.9  # of that part, so that one search for the oldest serves many puts

# Digests of files are few bytes and soon had again, so when they fill this they are
# dropped all at once. 128 MiB is about a million files.
_DIGEST_BYTES = 2**27
_DIGEST_PART = 1 / 16  # of the limit, if that is less

# Whatever LMDB raises of a file or a disk.
Error = lmdb.Error

# What LMDB raises when the file is not, or no longer, what it wrote.
DAMAGE = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.PanicError,
    lmdb.MapResizedError,  # no file of ours is as large as the map
    struct.error,  # a record of a length that is never written
)


class LmdbFile:
    """An open environment in `folder`, which must exist. LMDB's errors pass through."""

    def __init__(self, folder: str):
        self._env = lmdb.open(
            folder,
            map_size=_MAP_SIZE,
            max_dbs=4,
            max_readers=1024,  # a read at the same time each; 64 bytes a slot
            metasync=False,
            readahead=False,  # rows are read at random; don't drag in their neighbours
            meminit=False,
        )
        self._env.reader_check()  # slots of killed readers keep old pages from reuse
        self._data = os.path.join(folder, "data.mdb")
        self._identity = self._identify()
        self._page = self._env.stat()["psize"]
        if os.stat(self._data).st_size < self.file_bytes:
            # reading beyond the end would be SIGBUS, not an error
            raise lmdb.CorruptedError(f"{self._data} is shorter than its pages")
        self._rows, self._blocks, self._uses, self._digests = (
            self._env.open_db(name) for name in (b"rows", b"blocks", b"uses", b"digests")
        )
        self._verified: set[int] = set()  # blocks whose checksum held in this process
        self._touched: dict[int, int] = {}  # block -> minute, not yet written
        self._touched_at = 0.0

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._data)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def is_current(self) -> bool:
        """Whether the path still leads to this file: not cleared, removed or replaced."""
        return self._identify() == self._identity

    @property
    def file_bytes(self) -> int:
        """Size the file has grown to, free pages included."""
        return (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]

    def measure(self) -> tuple[int, int]:
        """Return the number of rows and the bytes of the pages in use."""
        with self._env.begin() as txn:
            return txn.stat(self._rows)["entries"], self._used(txn)

    def _used(self, txn: lmdb.Transaction) -> int:
        return self._size(txn, self._rows, self._blocks, self._uses, self._digests)

    def _size(self, txn: lmdb.Transaction, *tables) -> int:
        stats = [txn.stat(table) for table in tables]
        parts = ("branch_pages", "leaf_pages", "overflow_pages")
        return self._page * sum(stat[part] for stat in stats for part in parts)

    # reading

    def get(self, keys: Sequence[bytes]) -> tuple[list[np.ndarray | None], list[bytes]]:
        """Return copies of the rows, and the keys whose row is there but can't be read."""
        found: list[np.ndarray | None] = [None] * len(keys)
        unreadable: list[bytes] = []
        now = _minute()
        with self._env.begin(buffers=True) as txn:
            wanted: dict[int, tuple[list[int], list[int]]] = {}
            for i, key in enumerate(keys):
                place = txn.get(key, db=self._rows)
                if place is not None:
                    block_id, position = _PLACE.unpack(place)
                    indices, positions = wanted.setdefault(block_id, ([], []))
                    indices.append(i)
                    positions.append(position)
            for block_id, (indices, positions) in wanted.items():
                block = self._read_block(txn, block_id)
                if block is None or not all(
                    block.holds(keys[i], position)
                    for i, position in zip(indices, positions, strict=True)
                ):
                    unreadable += [keys[i] for i in indices]
                    continue
                rows = block.take(positions)
                for j, i in enumerate(indices):
                    found[i] = rows[j, ...]  # the dots: an array of no axes stays one
                self._note_use(txn, block_id, now)
        if self._touched and time.monotonic() - self._touched_at > 60:
            self.write_uses()
        return found, unreadable

    def _read_block(self, txn: lmdb.Transaction, block_id: int) -> Block | None:
        data = txn.get(_ID.pack(block_id), db=self._blocks)
        if data is None:
            return None
        # Blocks never change, so a checksum that held once is not taken again:
        # the second epoch reads at the speed of a copy.
        block = unpack(data, verify=block_id not in self._verified)
        if block is not None:
            self._verified.add(block_id)
        return block

    def _note_use(self, txn: lmdb.Transaction, block_id: int, now: int) -> None:
        use = txn.get(_ID.pack(block_id), db=self._uses)
        if use is not None and now - _USE.unpack(use)[0] >= _TOUCH_MINUTES:
            self._touched[block_id] = now

    # writing

    def write_uses(self) -> None:
        """Write down the uses noted since the last time."""
        with self._env.begin(write=True) as txn:
            self._write_uses(txn)

    def _write_uses(self, txn: lmdb.Transaction) -> None:
        touched, self._touched = self._touched, {}
        self._touched_at = time.monotonic()
        for block_id, minute in touched.items():
            use = txn.get(_ID.pack(block_id), db=self._uses)
            if use is not None:  # else evicted meanwhile
                size = _USE.unpack(use)[1]
                txn.put(_ID.pack(block_id), _USE.pack(minute, size), db=self._uses)

    def put(self, items: Mapping[bytes, np.ndarray], limit: int, replace: set[bytes]) -> None:
        """Add the rows that are not there, or are in `replace`; evict to stay below `limit`."""
        limit = min(limit, _MAP_SIZE // 2)
        for part in _transactions(items, min(_TRANSACTION_BYTES, limit // 16)):
            try:
                self._put_part(part, limit * _FILL, replace)
            except lmdb.MapFullError:
                # Pages are free again two transactions later, hence an empty one.
                self._put_part({}, self.measure()[1] / 2, replace)
                self.write_uses()
                self._put_part(part, limit * _FILL, replace)

    def _put_part(self, part: Mapping[bytes, np.ndarray], room: float, replace: set[bytes]):
        with self._env.begin(write=True) as txn:
            self._write_uses(txn)
            # Another process may have been faster: its rows stay.
            fresh = {
                key: row
                for key, row in part.items()
                if key in replace or txn.get(key, db=self._rows) is None
            }
            blocks = [(keys, pack(keys, rows)) for keys, rows in _blocks(fresh)]
            blocks = [(keys, data) for keys, data in blocks if len(data) <= room / 2]
            self._make_room(txn, room, sum(self._pages(data) for _, data in blocks))
            for keys, data in blocks:
                self._append(txn, keys, data)
        replace.difference_update(fresh)

    def _pages(self, data: bytes) -> int:
        return (len(data) // self._page + 1) * self._page

    def _append(self, txn: lmdb.Transaction, keys: Sequence[bytes], data: bytes) -> None:
        with txn.cursor(self._blocks) as cursor:
            last = _ID.unpack(cursor.key())[0] if cursor.last() else 0
        # From the clock, so that the id of an evicted block doesn't come back.
        block_id = max(last + 1, time.time_ns())
        name = _ID.pack(block_id)
        txn.put(name, data, db=self._blocks, append=True)
        use = _USE.pack(_minute(), self._pages(data))
        txn.put(name, use, db=self._uses, append=True)
        for position, key in enumerate(keys):
            txn.put(key, _PLACE.pack(block_id, position), db=self._rows)

    def _make_room(self, txn: lmdb.Transaction, room: float, incoming: int) -> None:
        """Delete the blocks used longest ago until `incoming` bytes fit."""
        used = self._used(txn)
        if used + incoming <= room:
            return
        self._env.reader_check()
        excess = used + incoming - room * _EVICT_TO
        with txn.cursor(self._uses) as cursor:
            uses = ((_ID.unpack(name)[0], *_USE.unpack(use)) for name, use in cursor)
            # ids grow: of one minute, what was written first goes first
            oldest = sorted(uses, key=lambda use: (use[1], use[0]))
        for block_id, _, size in oldest:
            if excess <= 0:
                break
            excess -= size
            self._delete(txn, block_id)

    def _delete(self, txn: lmdb.Transaction, block_id: int) -> None:
        name = _ID.pack(block_id)
        data = txn.get(name, db=self._blocks)
        block = None if data is None else unpack(memoryview(data), verify=True)
        if block is None:
            # Its keys are lost with it; search for the rows that point here.
            with txn.cursor(self._rows) as cursor:
                keys = [key for key, place in cursor if _PLACE.unpack(place)[0] == block_id]
        else:
            keys = block.list_keys()
        for key in keys:
            place = txn.get(key, db=self._rows)
            if place is not None and _PLACE.unpack(place)[0] == block_id:
                txn.delete(key, db=self._rows)
        txn.delete(name, db=self._blocks)
        txn.delete(name, db=self._uses)

    # digests of files

    def get_digests(self, versions: Sequence[bytes]) -> list[bytes | None]:
        """Return the digest of each version of a file; None if unknown or damaged."""
        with self._env.begin() as txn:
            kept = [txn.get(version, db=self._digests) for version in versions]
        return [
            _unseal(version, value) if value is not None else None
            for version, value in zip(versions, kept, strict=True)
        ]

    def put_digests(self, items: Mapping[bytes, bytes], limit: int) -> None:
        """Keep digests by the version of the file; drop all others when they are many."""
        with self._env.begin(write=True) as txn:
            if self._size(txn, self._digests) > min(_DIGEST_BYTES, limit * _DIGEST_PART):
                txn.drop(self._digests, delete=False)
            for version, digest in items.items():
                txn.put(version, _seal(version, digest), db=self._digests)


def _seal(version: bytes, digest: bytes) -> bytes:
    return digest + _CHECK.pack(zlib.crc32(version + digest))


def _unseal(version: bytes, value: bytes) -> bytes | None:
    digest = value[: -_CHECK.size]
    return digest if value == _seal(version, digest) else None


def _minute() -> int:
    return int(time.time() // 60)


def _transactions(
    items: Mapping[bytes, np.ndarray], max_bytes: int
) -> Iterator[dict[bytes, np.ndarray]]:
    """Yield the items in parts of about `max_bytes`, and of one row at least."""
    part: dict[bytes, np.ndarray] = {}
    size = 0
    for key, row in items.items():
        check_item(key, row)
        if part and size + row.nbytes > max_bytes:
            yield part
            part, size = {}, 0
        part[key] = row
        size += row.nbytes + KEY_SIZE
    if part:
        yield part


def _blocks(
    items: Mapping[bytes, np.ndarray],
) -> Iterable[tuple[list[bytes], list[np.ndarray]]]:
    """Yield keys and rows that fit in one block: one dtype and shape."""
    open_blocks: dict[tuple, tuple[list[bytes], list[np.ndarray]]] = {}
    for key, row in items.items():
        kind = (row.dtype.str, row.shape)
        keys, rows = open_blocks.setdefault(kind, ([], []))
        if rows and (len(rows) + 1) * (row.nbytes + KEY_SIZE) > _BLOCK_BYTES:
            yield keys, rows
            keys, rows = open_blocks[kind] = ([], [])
        keys.append(key)
        rows.append(row)
    yield from open_blocks.values()
