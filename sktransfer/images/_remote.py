"""The content of an image by URL, and the name of its version.

Every cause why an image can't be read becomes a DecodeError. What is wrong with the installation
or with the environment is raised as it is: it is no matter of single images.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from .._object_store import (
    OBJECT_SCHEMES,
    ObjectStoreError,
    TooLargeError,
    check_scheme,
)
from .._remote_options import remote_options
from ..exceptions import DecodeError
from ._archive import read_member
from ._blob import Blob, LocalBlob, MemoryBlob, ObjectBlob
from ._formats import check_bytes
from ._https import WebBlob
from ._url import ARCHIVES, is_url, scheme_of, server_of, split_member


class RemoteContent(NamedTuple):
    """The bytes of an image, and what changes with them; None where nothing is promised."""

    data: bytes
    tag: str | None


class UnreachableError(DecodeError):
    """No answer came. Other images of the same server will most likely fail as well."""


class RefusedError(DecodeError):
    """The server said that this may not be read, or that it does not know who asks."""


class Unanswered:
    """Counts the images in a row that no answer came for, for each server.

    Parameters
    ----------
    most : int
        After so many, no further one is asked for: each may wait for minutes.
    """

    def __init__(self, most: int):
        self._most = most
        self._in_a_row: dict[str, int] = {}

    def check(self, url: str) -> None:
        """Raise DecodeError where a server is not asked any more."""
        if self._in_a_row and self._in_a_row.get(server_of(url), 0) >= self._most:
            raise DecodeError("not asked for: no answer came for the images before it")

    def note(self, url: str, error: DecodeError | None) -> None:
        """Count an image that was asked for."""
        if isinstance(error, UnreachableError):
            server = server_of(url)
            self._in_a_row[server] = self._in_a_row.get(server, 0) + 1
        elif self._in_a_row:
            self._in_a_row.pop(server_of(url), None)


def blob_at(url: str) -> Blob:
    """Return the bytes at a URL; nothing is asked or read yet."""
    scheme = scheme_of(url)
    if scheme == "file":
        raise ObjectStoreError("file:// is not read; pass the path of the file itself")
    check_scheme(scheme, remote_options())
    if scheme in OBJECT_SCHEMES:
        return ObjectBlob(url)
    if scheme == "memory":
        return MemoryBlob(url)
    if scheme in ARCHIVES:
        raise ObjectStoreError("an archive in an archive is not read")
    return WebBlob(url)


def archive_blob(url: str) -> tuple[str, str, Blob]:
    """Return the kind of an archive, the name of a member and the archive's bytes."""
    kind, name, archive = split_member(url)
    check_scheme(kind, remote_options())
    return kind, name, blob_at(archive) if is_url(archive) else LocalBlob(archive)


def fetch(url: str, admit: Callable[[int], None] | None = None) -> RemoteContent:
    """Return the content of an image, or raise DecodeError.

    `admit` is called with its bytes before they are read; what it raises ends the request.
    """
    most = remote_options().max_bytes

    def check(n_bytes: int) -> None:
        if n_bytes > most:
            raise DecodeError(f"{n_bytes:,} bytes, more than the {most:,} allowed")
        check_bytes(n_bytes)

    def check_and_admit(n_bytes: int) -> None:
        check(n_bytes)
        if admit is not None:
            admit(n_bytes)

    def ask() -> RemoteContent:
        if scheme_of(url) in ARCHIVES:
            kind, name, blob = archive_blob(url)
            data, tag = read_member(kind, blob, name, check_and_admit)
        else:
            data, tag = blob_at(url).read(most, admit)
        return RemoteContent(data, tag)

    content = _translated(ask)
    check(len(content.data))
    return content


def current_tag(url: str) -> str | None:
    """Return what changes with the content of an image; None where nothing is promised.

    Nothing of the image is read. The tag of a file in an archive is that of the archive.
    """

    def ask() -> str | None:
        return (archive_blob(url)[2] if scheme_of(url) in ARCHIVES else blob_at(url)).tag()

    return _translated(ask)


def identity_of(url: str) -> str:
    """Return what distinguishes this image from others, without credentials."""

    def ask() -> str:
        if scheme_of(url) in ARCHIVES:
            kind, name, blob = archive_blob(url)
            return f"{kind} {name} in {blob.identity}"
        return blob_at(url).identity

    return _translated(ask)


_Answer = TypeVar("_Answer")


def _translated(ask: Callable[[], _Answer]) -> _Answer:
    """Call a function, and turn what is wrong with this image into a DecodeError."""
    try:
        return ask()
    except ObjectStoreError as error:
        failure = _as_decode_error(error)
    # not within the block: it would hold the library's own error, which holds the URL
    raise failure


def _as_decode_error(error: ObjectStoreError) -> DecodeError:
    if isinstance(error, TooLargeError):
        most = remote_options().max_bytes
        if error.n_bytes > most:
            return DecodeError(f"{error.n_bytes:,} bytes, more than the {most:,} allowed")
        return DecodeError("the server sent more than was asked for")
    if error.is_unreachable:
        return UnreachableError(str(error))
    return (RefusedError if error.is_refused else DecodeError)(str(error))
