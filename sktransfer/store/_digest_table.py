"""The digests of files by their versions, in a database of bytes, first in, first out.

Two tables: `digests` (version of a file -> its digest and a checksum) and `order` (number ->
version), the order in which they were stored.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

_CHECK = struct.Struct("<I")  # crc32 of version and digest, after the digest
_NUMBER = struct.Struct(">Q")  # big-endian: the order of the bytes is that of the numbers


class DigestTable:
    """Digests in two tables of the database that the transactions belong to."""

    def __init__(self, digests: Any, order: Any):
        self._digests = digests
        self._order = order
        self.tables = digests, order

    def get(self, txn: Any, versions: Sequence[bytes]) -> list[bytes | None]:
        """Return the digest of each version; None if unknown or damaged."""
        return [_unseal(version, txn.get(version, db=self._digests)) for version in versions]

    def put(self, txn: Any, items: Mapping[bytes, bytes]) -> None:
        """Store digests by version."""
        with txn.cursor(self._order) as order:
            number = _NUMBER.unpack(order.key())[0] + 1 if order.last() else 0
            for version, digest in items.items():
                is_new = txn.get(version, db=self._digests) is None
                txn.put(version, _seal(version, digest), db=self._digests)
                if is_new:
                    order.put(_NUMBER.pack(number), version, append=True)
                    number += 1

    def drop_first(self, txn: Any, n: int) -> None:
        """Drop the `n` oldest digests."""
        with txn.cursor(self._order) as order:
            while n and order.first():
                txn.delete(order.value(), db=self._digests)
                order.delete()
                n -= 1


def _seal(version: bytes, digest: bytes) -> bytes:
    return digest + _CHECK.pack(zlib.crc32(version + digest))


def _unseal(version: bytes, value: bytes | None) -> bytes | None:
    if value is None:
        return None
    digest = value[: -_CHECK.size]
    return digest if value == _seal(version, digest) else None
