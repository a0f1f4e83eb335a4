"""What is below a URL: objects of a store, files in an archive or in fsspec's memory."""

from collections.abc import Iterator

from .._object_store import (
    OBJECT_SCHEMES,
    NoSuchObjectError,
    ObjectStoreError,
    check_scheme,
    open_bucket,
    split_object_url,
)
from .._remote_options import remote_options
from ._archive import archive_table
from ._remote import archive_blob
from ._url import ARCHIVES, described, scheme_of


def listed(url: str) -> Iterator[tuple[str, str]]:
    """Yield the name below a folder, and the URL, of each file in the folder and below it.

    Raises
    ------
    OSError
        When it can't be listed: `FileNotFoundError` where there is none, `PermissionError` where
        access is denied or not allowed, `ConnectionError` where no answer came.
    """
    scheme = scheme_of(url)
    try:
        check_scheme(scheme, remote_options())
        if scheme in OBJECT_SCHEMES:
            yield from _objects(url)
        elif scheme in ARCHIVES:
            yield from _members(url)
        elif scheme == "memory":
            yield from _in_memory(url)
        else:
            raise ObjectStoreError("a web address has no listing; pass the URLs of the images")
    except ObjectStoreError as error:
        failure = _as_os_error(error, url)
    else:
        return
    # not within the block: it would hold the library's own error, which holds the URL
    raise failure


def _as_os_error(error: ObjectStoreError, url: str) -> OSError:
    kind: type[OSError] = OSError
    if isinstance(error, NoSuchObjectError):
        kind = FileNotFoundError
    elif error.is_refused:
        kind = PermissionError
    elif error.is_unreachable:
        kind = ConnectionError
    return kind(f"path={described(url)!r} can't be listed: {error}")


def _objects(url: str) -> Iterator[tuple[str, str]]:
    scheme, bucket, key = split_object_url(url)
    folder = key.strip("/")
    start = f"{folder}/" if folder else ""
    for page in open_bucket(url).list(folder):
        for status in page:
            if status.key.startswith(start):
                yield status.key[len(start) :], f"{scheme}://{bucket}/{status.key}"


def _members(url: str) -> Iterator[tuple[str, str]]:
    kind, folder, blob = archive_blob(url)
    archive = url.rpartition("::")[2]
    start = f"{folder.strip('/')}/" if folder.strip("/") else ""
    for name in archive_table(kind, blob):
        if name.startswith(start):
            yield name[len(start) :], f"{kind}://{name}::{archive}"


def _in_memory(url: str) -> Iterator[tuple[str, str]]:
    import fsspec  # which torch needs as well

    folder = url.partition("://")[2].strip("/")
    start = f"/{folder}/" if folder else "/"
    for path in fsspec.filesystem("memory").find(start):
        yield path[len(start) :], f"memory:/{path}"
