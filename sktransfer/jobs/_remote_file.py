"""An object of a store as a file that is read by parts."""

import errno
import io
import os
from typing import Any

from .._object_store import ObjectStoreError

_READ_AT_ONCE = 2**20  # bytes of the smallest request, so that a footer is one


class RemoteFile(io.RawIOBase):
    """An object as a file to read, a part at a time.

    Parameters
    ----------
    bucket : Bucket
    key : str
    """

    def __init__(self, bucket: Any, key: str):
        self._bucket = bucket
        self._key = key
        self._size = bucket.head(key).size
        self._place = 0
        self._part, self._part_at = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._size - self._place))
        if not wanted:
            return 0
        if not self._part_at <= self._place <= self._part_at + len(self._part) - wanted:
            length = min(max(wanted, _READ_AT_ONCE), self._size)
            # near the end, where Parquet files are read first, the part ends with the file
            self._part_at = min(self._place, self._size - length)
            try:
                found = self._bucket.get_range(self._key, self._part_at, length)
                self._part = found.data
            except ObjectStoreError as error:
                raise OSError(errno.EIO, f"{self._key}: {error}") from None
        start = self._place - self._part_at
        buffer[:wanted] = self._part[start : start + wanted]
        self._place += wanted
        return wanted
