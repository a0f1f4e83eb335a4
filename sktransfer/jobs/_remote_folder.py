"""The folder of a job in an object store: files appear by one conditional request."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._object_store import (
    NoSuchObjectError,
    ObjectStoreError,
    open_bucket,
    redacted_text,
    split_object_url,
)
from ._folder import FileFacts, JobFolder, LocalFolder
from ._remote_file import RemoteFile


def open_folder(out: Any, parameter: str = "out") -> JobFolder:
    """Return the folder that `out` names: a path, or the URL of one in an object store.

    Errors call it `parameter`, and have no password of a URL.
    """
    if not isinstance(out, (str, os.PathLike)) or not os.fspath(out):
        raise TypeError(f"out must be the path or URL of a folder, got {out!r}")
    if "://" in os.fspath(out):
        try:
            return RemoteFolder(os.fspath(out))
        except ObjectStoreError as error:
            shown = redacted_text(os.fspath(out))
            raise ValueError(f"{parameter}={shown!r} can't be used: {error}") from None
    return LocalFolder(out)


class RemoteFolder:
    """A folder of an object store that has conditional puts: S3, Google Cloud Storage, Azure.

    Pickled as its URL; credentials are those of the environment.
    """

    def __init__(self, url: str):
        scheme, bucket, key = split_object_url(url)
        self._bucket = open_bucket(url)
        self._root = key.strip("/")
        self._start = f"{self._root}/" if self._root else ""
        self.name = f"{scheme}://{bucket}/{self._root}".rstrip("/")

    def list(self, prefix: str) -> dict[str, FileFacts]:
        """Return the files in the folder `prefix`."""
        folder = f"{self._start}{prefix}".rstrip("/")
        with self._named(prefix):
            return {
                status.key.removeprefix(self._start): FileFacts(status.size, status.time)
                for page in self._bucket.list(folder)
                for status in page
            }

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self._named(name):
            return self._bucket.get(self._start + name).data

    def facts(self, name: str) -> FileFacts | None:
        """Return size and time of a file; None where there is none."""
        try:
            with self._named(name):
                status = self._bucket.head(self._start + name)
        except FileNotFoundError:
            return None
        return FileFacts(status.size, status.time)

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Let the block write a file on this machine, and put it in place if there is none."""
        with tempfile.TemporaryDirectory(prefix="sktransfer-jobs-") as folder:
            aside = Path(folder) / "file"
            yield aside
            with self._named(name):
                self._bucket.put_if_absent(self._start + name, aside.read_bytes())

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, in the place of one of that name."""
        with self._named(name):
            self._bucket.put(self._start + name, content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._named(name):
            self._bucket.delete(self._start + name)

    def clear(self, prefix: str) -> None:
        """Do nothing: what a killed process leaves is in a temporary folder of its machine."""

    def open_to_read(self, name: str) -> Any:
        """Return a file that is read by parts."""
        with self._named(name):
            return RemoteFile(self._bucket, self._start + name)

    def filesystem(self) -> tuple[Any, str]:
        """Return a file system of pyarrow over the bucket, and the path of this folder."""
        from ._arrow_filesystem import bucket_filesystem

        return bucket_filesystem(self._bucket), self._root

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Turn the errors of the store into those of files, with the URL in them."""
        try:
            yield
        except NoSuchObjectError as error:
            raise FileNotFoundError(f"{self.name}/{name}: {error}") from None
        except ObjectStoreError as error:
            raise OSError(f"{self.name}/{name}: {error}") from None
