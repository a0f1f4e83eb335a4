"""Bytes that images are in: an object of a store, a file, or what fsspec holds in memory."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .._object_store import (
    NoSuchObjectError,
    ObjectStoreError,
    TooLargeError,
    open_bucket,
    split_object_url,
)
from ..exceptions import DecodeError
from ._fingerprint import READ_FLAGS, check_archive, file_status, file_version

FAR, _NEAR = 2**23, 2**16


class Part(NamedTuple):
    """Some bytes, and what changes with the content that they are of."""

    data: bytes
    tag: str | None


class Blob(Protocol):
    """Bytes that can be read as a whole or in parts."""

    identity: str  # where they are, without credentials
    chunk: int  # how many to read at once where many are read, as each request takes its time

    def tag(self) -> str | None:
        """Return what changes with the content; None where nothing is promised."""

    def size(self) -> int:
        """Return the number of bytes."""

    def read(self, max_bytes: int, admit: Callable[[int], None] | None = None) -> Part:
        """Return all bytes; more than `max_bytes` are an error.

        `admit` is called with their number before they are read; what it raises is raised.
        """

    def read_range(self, start: int, length: int) -> Part:
        """Return some of the bytes, fewer where they end before."""


def strong_tag(e_tag: str | None, size: int) -> str | None:
    """Return the name of a content; None for a weak ETag, which other bytes may share."""
    if e_tag is None or e_tag[:2] in ("W/", "w/"):
        return None
    name = e_tag.strip().strip('"')  # listings of Azure have it without quotes
    return f"{name}|{size}" if name else None


class ObjectBlob:
    """An object of S3, Google Cloud Storage or Azure.

    Parameters
    ----------
    url : str
    """

    chunk = FAR

    def __init__(self, url: str):
        self._bucket = open_bucket(url)
        self._key = split_object_url(url)[2]
        self.identity = f"{self._bucket.identity} {self._key}"

    def tag(self) -> str | None:
        status = self._bucket.head(self._key)
        return strong_tag(status.e_tag, status.size)

    def size(self) -> int:
        return self._bucket.head(self._key).size

    def read(self, max_bytes: int, admit: Callable[[int], None] | None = None) -> Part:
        data, status = self._bucket.get(self._key, max_bytes, admit)
        return Part(data, strong_tag(status.e_tag, status.size))

    def read_range(self, start: int, length: int) -> Part:
        data, status = self._bucket.get_range(self._key, start, length)
        return Part(data, strong_tag(status.e_tag, status.size))


class LocalBlob:
    """A file that holds images, which may be larger than one image.

    Parameters
    ----------
    path : str
    """

    chunk = _NEAR

    def __init__(self, path: str):
        self._path = path
        self.identity = f"file {os.path.abspath(path)}"

    def tag(self) -> str | None:
        try:
            version = file_version(self._path, check=check_archive)
        except DecodeError as error:
            raise ObjectStoreError(f"the archive: {error}") from None
        return None if version is None else version.hex()

    def size(self) -> int:
        try:
            return file_status(self._path, check_archive).st_size
        except DecodeError as error:
            raise ObjectStoreError(f"the archive: {error}") from None

    def read(self, max_bytes: int, admit: Callable[[int], None] | None = None) -> Part:
        size = self.size()
        if size > max_bytes:
            raise TooLargeError(size)
        if admit is not None:
            admit(size)
        return self.read_range(0, size)

    def read_range(self, start: int, length: int) -> Part:
        before = self.tag()
        try:
            with open(os.open(self._path, READ_FLAGS), "rb") as file:
                file.seek(start)
                data = file.read(length)
        except OSError as error:
            raise ObjectStoreError(f"the archive can't be read ({error.strerror})") from None
        return Part(data, before if before == self.tag() else None)


class MemoryBlob:
    """What fsspec's file system in the memory of this process holds.

    It promises no version, and is read each time.

    Parameters
    ----------
    url : str
    """

    chunk = _NEAR

    def __init__(self, url: str):
        import fsspec  # which torch needs as well

        self._files = fsspec.filesystem("memory")
        self._path = url.partition("://")[2]
        self.identity = f"memory {self._path}"

    def tag(self) -> None:
        return None

    def size(self) -> int:
        return self._found(self._files.size)

    def read(self, max_bytes: int, admit: Callable[[int], None] | None = None) -> Part:
        size = self.size()
        if size > max_bytes:
            raise TooLargeError(size)
        if admit is not None:
            admit(size)
        return Part(self._found(self._files.cat_file), None)

    def read_range(self, start: int, length: int) -> Part:
        return Part(self._found(self._files.cat_file, start, start + length), None)

    def _found(self, ask: Callable, *part: int) -> Any:
        try:
            return ask(self._path, *part)
        except (FileNotFoundError, IsADirectoryError):
            raise NoSuchObjectError("no such file in the memory of this process") from None
