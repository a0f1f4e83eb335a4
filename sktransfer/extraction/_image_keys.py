"""The key of every image: its content's digest, read from the file only when it must be."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ..exceptions import DecodeError
from ..images._collection import ImageCollection
from ..images._fingerprint import DIGEST_SIZE
from ..store._store import ActivationStore

_IMAGES_AT_ONCE = 256
_DIGESTS_AT_ONCE = 1024  # kept in one go: each waits for the disk


def image_keys(
    images: ImageCollection,
    common: bytes,
    store: ActivationStore | None,
    pool: ThreadPoolExecutor,
    failures: dict[int, str],
    needs_content: bool = True,
) -> Iterator[bytes | None]:
    """Yield each image's key, None where its content can't be had.

    The digest of a file that the store knows costs a look at the file's status. Where
    the key need not be that of the content, for one call without a store, the status
    stands for it, and the file is read once. The reasons of failures are added to
    `failures`, by position.
    """
    starts = range(0, len(images), _IMAGES_AT_ONCE)
    ranges = [range(start, min(start + _IMAGES_AT_ONCE, len(images))) for start in starts]
    fresh: dict[bytes, bytes] = {}
    try:
        for positions, (digests, of_version) in zip(
            ranges,
            pool.map(lambda some: _digests(images, some, store, needs_content), ranges),
            strict=True,
        ):
            fresh.update(of_version)
            if len(fresh) >= _DIGESTS_AT_ONCE:
                store.put_digests(fresh)
                fresh = {}
            for position, digest in zip(positions, digests, strict=True):
                if isinstance(digest, str):
                    failures[position] = digest
                    yield None
                else:
                    yield common + digest
    finally:  # after Ctrl-C as well
        if fresh:
            store.put_digests(fresh)


def digest_in(key: bytes) -> bytes:
    """Return the digest of the image that a key is of."""
    return key[-DIGEST_SIZE:]


def _digests(
    images: ImageCollection,
    positions: range,
    store: ActivationStore | None,
    needs_content: bool,
) -> tuple[list[bytes | str], dict[bytes, bytes]]:
    """Return digests, or why there is none, and those to be kept by the file's version."""
    if store is None and needs_content:
        return [_outcome(images, position) for position in positions], {}
    versions = [_version(images, position) for position in positions]
    if store is None:
        pairs = zip(positions, versions, strict=True)
        return [version or _outcome(images, position) for position, version in pairs], {}
    wanted = [version for version in versions if version is not None]
    known = dict(zip(wanted, store.get_digests(wanted), strict=True)) if wanted else {}
    fresh: dict[bytes, bytes] = {}
    digests: list[bytes | str] = []
    for position, version in zip(positions, versions, strict=True):
        digest = known.get(version)
        if digest is None:
            digest = _outcome(images, position)
            is_same_file = version is not None and version == _version(images, position)
            if is_same_file and isinstance(digest, bytes):
                fresh[version] = digest
        digests.append(digest)
    return digests, fresh


def _version(images: ImageCollection, position: int) -> bytes | None:
    try:
        return images[position].version()
    except DecodeError:  # said by the digest
        return None


def _outcome(images: ImageCollection, position: int) -> bytes | str:
    try:
        return images[position].digest()
    except DecodeError as error:
        return str(error)
