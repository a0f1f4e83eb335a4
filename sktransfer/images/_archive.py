"""Members of zip and tar archives, read one by one without unpacking the archive.

An archive's table of members is read once in a process: of a zip file its end, of a tar file all
of it, as headers stand between the members. A member is then one range of bytes that begins with
its own header, which is compared, as is the tag of the archive: one that was replaced since gives
no other bytes under the old names.

An archive is hostile input. What its tables take of memory is bounded, whatever they say.
"""

import io
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from .._locking import ForkSafeLock
from .._object_store import NoSuchObjectError, ObjectStoreError
from ._blob import Blob, Part

_MOST_ENTRIES = 10**6  # in the tables that are kept, at about 250 bytes
_MOST_FILES = 2 * 10**6  # in one archive: while it is read, its table takes 600 bytes for each
_MOST_TABLE = 2**28  # bytes of a zip file's table
_MOST_HEADER = 2**20  # bytes before the content of a file, which long names and notes take
_MOST_CHANGES = 8  # of the tag of an archive alone; then its servers are taken to differ in it
_ZIP_HEADER = struct.Struct("<4s5H3I2H")
_IN_ZIP_TABLE = b"PK\x01\x02"
_IS_ENCRYPTED, _IS_UTF8 = 0x1, 0x800

# What the two modules raise for bytes that are no archive, or a damaged one.
_DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    struct.error,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    LookupError,
    NotImplementedError,
    RecursionError,
)


class Entry(NamedTuple):
    """Where a member is in its archive, and how it is packed."""

    start: int  # of its header
    length: int  # from there to the end of its bytes, or a little more
    size: int  # of its content
    method: int = zipfile.ZIP_STORED
    n_packed: int = 0
    crc: int = 0
    flags: int = 0


Table = dict[str, Entry]


class _Kept(NamedTuple):
    """What is known of an archive."""

    table: Table
    tag: str | None  # of the archive when its table was read
    damage: str = ""  # why it has none
    n_changes: int = 0  # how often it was read again, and was the same


class _OtherMemberError(Exception):
    """Where a member should be, there are other bytes."""


def archive_table(kind: str, blob: Blob) -> Table:
    """Read and return the table of the files in an archive, by name, in their order."""
    return _whole(_read_table(kind, blob))


def read_member(kind: str, blob: Blob, name: str, check: Callable[[int], None]) -> Part:
    """Return the content of a file in an archive, and the tag of that archive.

    `check` is called with the number of its bytes before they are read.
    """
    key = kind, blob.identity
    kept = _tables.get(key)
    if kept is not None:
        try:
            part = _read(kind, blob, name, _whole(kept), check)
            if part.tag == kept.tag:
                return part
            if kept.n_changes >= _MOST_CHANGES:
                return Part(part.data, None)
        except ObjectStoreError as error:
            if error.is_unreachable or error.is_refused:
                raise
            if kept.tag is not None and kept.tag == blob.tag():
                raise
        # the archive may have been replaced: its table is read again
    with _turns[hash(key) % len(_turns)]:  # of many threads, one reads the table
        now = _tables.get(key)
        if now is None or now is kept:
            now = _read_table(kind, blob)
    part = _read(kind, blob, name, _whole(now), check)
    return part if part.tag == now.tag else Part(part.data, None)


class _DamagedError(ObjectStoreError):
    """What is no archive, or none that is whole."""


def _whole(kept: _Kept) -> Table:
    if kept.damage:
        raise _DamagedError(kept.damage)
    return kept.table


def _read_table(kind: str, blob: Blob) -> _Kept:
    key = kind, blob.identity
    before = _tables.get(key)
    table: Table = {}
    damage = ""
    tags: set[str | None] = set()
    try:
        size = blob.size()
        table = _TABLES[kind](_Reader(_Ranges(blob, size, tags), blob.chunk), size)
    except _DAMAGES as error:
        hint = "; a compressed one must be unpacked: gunzip" if kind == "tar" else ""
        damage = f"no {kind} archive ({error}){hint}"
    tag = tags.pop() if len(tags) == 1 else None
    n_changes = before.n_changes + 1 if before is not None and before.table == table else 0
    kept = _Kept(table, tag, damage, n_changes)
    with _lock:
        _tables.pop(key, None)
        while _tables and sum(len(one.table) for one in _tables.values()) > (
            _MOST_ENTRIES - len(table)
        ):
            _tables.popitem(last=False)
        _tables[key] = kept
    return kept


def _read(kind: str, blob: Blob, name: str, table: Table, check: Callable[[int], None]) -> Part:
    entry = table.get(name)
    if entry is None:
        raise NoSuchObjectError("no such file in the archive")
    check(entry.size)
    if entry.length > entry.size + entry.size // 100 + _MOST_HEADER:
        raise _DamagedError("damaged archive (a file takes more bytes in it than it has)")
    raw, tag = blob.read_range(entry.start, entry.length)
    try:
        return Part(_MEMBERS[kind](name, entry, raw), tag)
    except _OtherMemberError as error:
        raise _DamagedError(f"damaged archive ({error})") from None


class _Reader(io.BufferedReader):
    """The bytes of an archive, of which no more are given than allowed."""

    def __init__(self, ranges: "_Ranges", buffer_size: int):
        super().__init__(ranges, buffer_size)
        self._size = ranges.size
        self.n_allowed = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(0, self._size - self.tell())
        if size > self.n_allowed:
            raise ValueError("its table or a header is too large")
        data = super().read(size)
        self.n_allowed -= len(data)
        return data


class _Ranges(io.RawIOBase):
    """A file to be read whose bytes come from a blob, range by range.

    Parameters
    ----------
    blob : Blob
    size : int
    tags : set
        Those of the ranges are added.
    """

    def __init__(self, blob: Blob, size: int, tags: set[str | None]):
        self._blob, self.size, self._at, self._tags = blob, size, 0, tags

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # no type before 3.12
        n_bytes = min(len(buffer), self.size - self._at)
        if n_bytes <= 0:
            return 0
        data, tag = self._blob.read_range(self._at, n_bytes)
        self._tags.add(tag)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


# zip


class _ZipReader:
    """A zip file whose table is not larger than allowed."""

    def __init__(self, reader: _Reader):
        self._reader = reader
        self._n_entries = 0
        self.seek, self.tell = reader.seek, reader.tell

    def read(self, size: int = -1) -> bytes:
        data = self._reader.read(size)
        self._n_entries += data.count(_IN_ZIP_TABLE)
        if self._n_entries > _MOST_FILES:
            raise ValueError(f"more than {_MOST_FILES:,} files")
        return data


def _zip_table(reader: _Reader, size: int) -> Table:
    reader.n_allowed = _MOST_TABLE
    with zipfile.ZipFile(_ZipReader(reader)) as archive:
        every = archive.infolist()
    starts = sorted({info.header_offset for info in every})
    if starts and not 0 <= starts[0] <= starts[-1] < size:
        raise zipfile.BadZipFile("a file lies outside of it")
    ends = dict(zip(starts, [*starts[1:], size], strict=True))
    table = {}
    for info in every:
        if info.is_dir():
            continue
        # what lies between two members, or behind the last one, is not read as well
        most = info.header_offset + _ZIP_HEADER.size + 2 * 2**16 + info.compress_size
        table[info.filename] = Entry(
            info.header_offset,
            min(ends[info.header_offset], most) - info.header_offset,
            info.file_size,
            info.compress_type,
            info.compress_size,
            info.CRC,
            info.flag_bits,
        )
    return table


def _zip_member(name: str, entry: Entry, raw: bytes) -> bytes:
    if entry.flags & _IS_ENCRYPTED:
        raise ObjectStoreError("is encrypted in the archive")
    if entry.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ObjectStoreError(f"is packed by method {entry.method}; stored and deflated are read")
    if len(raw) < _ZIP_HEADER.size:
        raise _OtherMemberError("it ends before this file")
    signature, _, flags, *_, n_name, n_extra = _ZIP_HEADER.unpack_from(raw)
    there = raw[_ZIP_HEADER.size : _ZIP_HEADER.size + n_name]
    if signature != b"PK\x03\x04" or there.decode(
        "utf-8" if flags & _IS_UTF8 else "cp437", "replace"
    ) not in (name, name.replace("/", "\\")):
        raise _OtherMemberError("another file is where this one should be")
    start = _ZIP_HEADER.size + n_name + n_extra
    packed = raw[start : start + entry.n_packed]
    content = packed
    if entry.method == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.size + 1)
        except zlib.error as error:
            raise _OtherMemberError(str(error)) from None
    if len(content) != entry.size or zlib.crc32(content) != entry.crc:
        raise _OtherMemberError("this file has another checksum than the table says")
    return content


# tar


def _tar_table(reader: _Reader, size: int) -> Table:
    table = {}
    reader.n_allowed = _MOST_HEADER
    at = -1
    with tarfile.open(fileobj=reader, mode="r:") as archive:
        while (info := archive.next()) is not None:
            if info.offset <= at or info.size < 0:  # which would lead back without end
                raise tarfile.ReadError("a size below zero")
            at = info.offset
            if info.isreg() and not info.issparse():
                length = info.offset_data - info.offset + info.size
                table[info.name] = Entry(info.offset, length, info.size)
                if len(table) > _MOST_FILES:
                    raise tarfile.ReadError(f"more than {_MOST_FILES:,} files")
            archive.members = []  # type: ignore[attr-defined]  # else all are kept
            reader.n_allowed = _MOST_HEADER
    return table


def _tar_member(name: str, entry: Entry, raw: bytes) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            info = archive.next()
    except _DAMAGES as error:
        raise _OtherMemberError(str(error)) from None
    if info is None or info.name != name or info.size != entry.size:
        raise _OtherMemberError("another file is where this one should be")
    content = raw[info.offset_data : info.offset_data + info.size]
    if len(content) != entry.size:
        raise _OtherMemberError("it ends before this file")
    return content


_TABLES = {"zip": _zip_table, "tar": _tar_table}
_MEMBERS = {"zip": _zip_member, "tar": _tar_member}
_lock = ForkSafeLock()
_turns = tuple(ForkSafeLock() for _ in range(16))
_tables: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
