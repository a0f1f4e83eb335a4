"""An id for each image before it is read, in 17 bytes an image.

Where the store has the digest of a file, only the file's status is read. The content of any
other file is read once, when it is decoded; until then the file's version is its id, so that
a path that occurs twice is read once. Images by URL are asked for after the files, together: many
of one folder by listing it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from ..exceptions import DecodeError
from ..images._collection import ImageCollection
from ..images._fingerprint import DIGEST_SIZE
from ..images._image_ref import RemoteImage
from ..images._remote_tags import remote_tags
from ..store._base import ActivationStore

_IMAGES_AT_ONCE = 256  # whose digests are asked of the store in one transaction
_URLS_AT_ONCE = 100_000  # whose versions are asked for together; they take 100 MB


class Ids(NamedTuple):
    """The ids of some images, and whether each id is a digest."""

    values: bytes  # DIGEST_SIZE each
    is_digest: list[bool]
    failures: dict[int, str]  # index among these images -> cause
    remote: Sequence[int] = ()  # indices of images by URL, whose ids come later


class ImageIds:
    """An id for each image of a collection: its digest where that is known.

    Attributes
    ----------
    failures : dict
        Position of each image that can't be read -> cause.
    versions : dict
        Position of each image by URL that was read -> the version of what came; none where
        `keep_versions` is false.
    """

    def __init__(self, n_images: int, keep_versions: bool = False):
        self._ids = np.zeros((n_images, DIGEST_SIZE), dtype=np.uint8)
        self._is_digest = np.zeros(n_images, dtype=bool)
        self.failures: dict[int, str] = {}
        self.versions: dict[int, bytes] = {}
        self._keep_versions = keep_versions

    def __len__(self) -> int:
        return len(self._ids)

    def digest(self, position: int) -> bytes | None:
        """Return the digest of an image; None while its content has not been read."""
        return self._ids[position].tobytes() if self._is_digest[position] else None

    def known_digest(self, position: int) -> bytes:
        """Return the digest of an image whose content has been read."""
        digest = self.digest(position)
        assert digest is not None
        return digest

    def digests(self, positions: np.ndarray) -> dict[int, bytes]:
        """Return the digests that are known, by position."""
        known = positions[self._is_digest[positions]]
        # an array of one void value an image turns into a list of bytes at once
        values = self._ids[known].view(f"V{DIGEST_SIZE}")[:, 0].tolist()
        return dict(zip(known.tolist(), values, strict=True))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the ids at these positions, uint8 of shape (n, DIGEST_SIZE)."""
        return self._ids[positions]

    def changed(self, position: int, digest: bytes) -> bool:
        """Tell whether an image that had a digest has another one by now, or can't be read."""
        return position in self.failures or self.digest(position) != digest

    def set_digest(self, position: int, digest: bytes) -> None:
        """Set the digest of an image whose content was read."""
        self._ids[position] = np.frombuffer(digest, dtype=np.uint8)
        self._is_digest[position] = True

    def set_version(self, position: int, version: bytes) -> None:
        """Note the version that an image by URL had when it was read."""
        if self._keep_versions:
            self.versions[position] = version

    def set_range(self, positions: range | np.ndarray, found: Ids) -> None:
        """Set the ids and failures of a range of images, or of those at some positions."""
        here: slice | np.ndarray
        if isinstance(positions, range):
            here = slice(positions.start, positions.stop)
        else:
            here = positions
        self._ids[here] = np.frombuffer(found.values, dtype=np.uint8).reshape(-1, DIGEST_SIZE)
        self._is_digest[here] = found.is_digest
        for place, reason in found.failures.items():
            self.failures[int(positions[place])] = reason

    def first_of_each(self) -> np.ndarray:
        """Return, for each image, the position of the first image with its id."""
        low, high = self._ids.view("<u8").T
        order = np.lexsort((high, low))  # stable: the first of equal ids comes first
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
        firsts = np.empty(len(order), dtype=np.int64)
        firsts[order] = order[np.flatnonzero(is_new)[np.cumsum(is_new) - 1]]
        failed = np.fromiter(self.failures, dtype=np.int64, count=len(self.failures))
        firsts[failed] = failed  # they have no id, and are equal to no other image
        return firsts


def identify(
    images: ImageCollection,
    store: ActivationStore | None,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[range | np.ndarray, Ids]]:
    """Yield ranges of positions, and the ids of these images, in order.

    Images by URL have none there, and come once more at the end.
    """
    starts = range(0, len(images), _IMAGES_AT_ONCE)
    ranges = [range(start, min(start + _IMAGES_AT_ONCE, len(images))) for start in starts]
    remote: list[np.ndarray] = []
    for some, ids in zip(
        ranges, pool.map(lambda some: _look(images, some, store), ranges), strict=True
    ):
        if ids.remote:
            remote.append(np.array(ids.remote, dtype=np.int64) + some.start)
        yield some, ids
    if remote:
        places = np.concatenate(remote)
        for start in range(0, len(places), _URLS_AT_ONCE):
            chosen = places[start : start + _URLS_AT_ONCE]
            yield chosen, _look_by_url(images, chosen, store)


def _look(images: ImageCollection, positions: range, store: ActivationStore | None) -> Ids:
    ids: list[bytes] = []
    is_digest = [False] * len(positions)
    failures: dict[int, str] = {}
    versions: dict[int, bytes] = {}  # of files, by index in `positions`
    remote: list[int] = []
    for place, position in enumerate(positions):
        image = images[position]
        try:
            if not image.is_file:
                if image.is_remote:
                    remote.append(place)
                    ids.append(bytes(DIGEST_SIZE))
                    continue
                ids.append(image.digest())
                is_digest[place] = True
                continue
            version = image.version()
            if version is not None:
                versions[place] = version
            # A file that was just written may change again with the same status: for this
            # call its path is its id.
            ids.append(version or _path_id(image.describe()))
        except DecodeError as error:
            failures[place] = str(error)
            ids.append(bytes(DIGEST_SIZE))
    _set_known_digests(ids, is_digest, versions, store)
    return Ids(b"".join(ids), is_digest, failures, remote)


def _look_by_url(
    images: ImageCollection, positions: np.ndarray, store: ActivationStore | None
) -> Ids:
    ids = [bytes(DIGEST_SIZE)] * len(positions)
    is_digest = [False] * len(positions)
    failures: dict[int, str] = {}
    versions: dict[int, bytes] = {}
    chosen: list[RemoteImage] = [images[position] for position in positions.tolist()]  # type: ignore[misc]  # they say so
    # without a store nothing is known of any version
    tags = {} if store is None else remote_tags({image.url for image in chosen})
    for place, image in enumerate(chosen):
        try:
            tag = tags.get(image.url)
            if isinstance(tag, DecodeError):
                raise tag
            version = image.version_of(tag)
            if version is not None:
                versions[place] = version
            # not the identity: who asks may be given another content than others are
            ids[place] = version or _path_id(image.url)
        except DecodeError as error:
            failures[place] = str(error)
    _set_known_digests(ids, is_digest, versions, store)
    return Ids(b"".join(ids), is_digest, failures)


def _set_known_digests(
    ids: list[bytes],
    is_digest: list[bool],
    versions: dict[int, bytes],
    store: ActivationStore | None,
) -> None:
    """Put the digests that the store has in the places of the versions that they belong to."""
    if store is None or not versions:
        return
    known = store.get_digests(list(versions.values()))
    for place, digest in zip(versions, known, strict=True):
        if digest is not None:
            ids[place], is_digest[place] = digest, True


def _path_id(path: str) -> bytes:
    data = path.encode(errors="surrogateescape")
    return blake2b(data, digest_size=DIGEST_SIZE, person=b"path").digest()
