"""Members of zip and tar archives, read one by one without unpacking the archive.

An archive's table of members is read once in a process: of a zip file its end, of a tar file all
of it, as headers stand between the members. A member is then one range of bytes that begins with
its own header, which is compared: an archive that was replaced since gives no other bytes under
the old names.
"""

import io
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._locking import ForkSafeLock
from .._object_store import NoSuchObjectError, ObjectStoreError
from ._blob import Blob, Part

_MOST_ENTRIES = 10**6  # in the tables that are kept, at about 250 bytes
_BUFFER = 2**16
_ZIP_HEADER = struct.Struct("<4s5H3I2H")
_IS_ENCRYPTED, _IS_UTF8 = 0x1, 0x800


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


class _OtherMemberError(Exception):
    """Where a member should be, there are other bytes."""


def archive_table(kind: str, blob: Blob) -> Table:
    """Read and return the table of the files in an archive, by name, in their order."""
    try:
        table = _TABLES[kind](blob)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        hint = "; a compressed one must be unpacked: gunzip" if kind == "tar" else ""
        raise ObjectStoreError(f"no {kind} archive ({error}){hint}") from None
    with _lock:
        _tables.pop((kind, blob.identity), None)
        while _tables and sum(map(len, _tables.values())) + len(table) > _MOST_ENTRIES:
            _tables.popitem(last=False)
        _tables[kind, blob.identity] = table
    return table


def read_member(kind: str, blob: Blob, name: str, check: Callable[[int], None]) -> Part:
    """Return the content of a file in an archive, and the tag of that archive.

    `check` is called with the number of its bytes before they are read.
    """
    table = _tables.get((kind, blob.identity))
    if table is not None:
        try:
            return _read(kind, blob, name, table, check)
        except (NoSuchObjectError, _OtherMemberError):
            pass  # the archive may have been replaced: its table is read again
    with _turns[hash(blob.identity) % len(_turns)]:  # of many threads, one reads the table
        if _tables.get((kind, blob.identity)) is table:
            archive_table(kind, blob)
    try:
        return _read(kind, blob, name, _tables[kind, blob.identity], check)
    except _OtherMemberError as error:
        raise ObjectStoreError(f"damaged archive ({error})") from None


def _read(kind: str, blob: Blob, name: str, table: Table, check: Callable[[int], None]) -> Part:
    entry = table.get(name)
    if entry is None:
        raise NoSuchObjectError("no such file in the archive")
    check(entry.size)
    raw, tag = blob.read_range(entry.start, entry.length)
    return Part(_MEMBERS[kind](name, entry, raw), tag)


# zip


def _zip_table(blob: Blob) -> Table:
    size = blob.size()
    with zipfile.ZipFile(io.BufferedReader(_Ranges(blob, size), _BUFFER)) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        starts = sorted({info.header_offset for info in archive.infolist()})
    ends = dict(zip(starts, [*starts[1:], size], strict=True))
    table = {}
    for info in members:
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


class _Ranges(io.RawIOBase):
    """A file to be read whose bytes come from a blob, range by range."""

    def __init__(self, blob: Blob, size: int):
        self._blob, self._size, self._at = blob, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # no type before 3.12
        n_bytes = min(len(buffer), self._size - self._at)
        if n_bytes <= 0:
            return 0
        data = self._blob.read_range(self._at, n_bytes).data
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


# tar


def _tar_table(blob: Blob) -> Table:
    table = {}
    stream = _Stream(blob.stream())
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for info in archive:
            if info.isreg():
                length = info.offset_data - info.offset + info.size
                table[info.name] = Entry(info.offset, length, info.size)
            archive.members = []  # else all are kept
    return table


def _tar_member(name: str, entry: Entry, raw: bytes) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            info = archive.next()
    except tarfile.TarError as error:
        raise _OtherMemberError(str(error)) from None
    if info is None or info.name != name or info.size != entry.size:
        raise _OtherMemberError("another file is where this one should be")
    content = raw[info.offset_data : info.offset_data + info.size]
    if len(content) != entry.size:
        raise _OtherMemberError("it ends before this file")
    return content


class _Stream:
    """What tarfile reads of an archive in one go."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks, self._left = chunks, b""

    def read(self, n_bytes: int) -> bytes:
        parts, n = [self._left[:n_bytes]], min(len(self._left), n_bytes)
        self._left = self._left[n_bytes:]
        while n < n_bytes and (chunk := next(self._chunks, b"")):
            parts.append(chunk[: n_bytes - n])
            self._left = chunk[n_bytes - n :]
            n += len(parts[-1])
        return b"".join(parts)


_TABLES = {"zip": _zip_table, "tar": _tar_table}
_MEMBERS = {"zip": _zip_member, "tar": _tar_member}
_lock = ForkSafeLock()
_turns = tuple(ForkSafeLock() for _ in range(16))
_tables: OrderedDict[tuple[str, str], Table] = OrderedDict()
