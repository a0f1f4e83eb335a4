"""The folder of a job: files that appear whole, in one step, and only if they are not there.

Names are relative and have ``/`` between their parts. What a killed process leaves is a file
whose name begins with a dot, which no reader looks at.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

# what file systems without hard links answer
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class FileFacts(NamedTuple):
    """Bytes of a file, and the time when it was put in place, in seconds since 1970."""

    size: int
    time: float


class JobFolder(Protocol):
    """Where a job keeps its files: a folder of this machine, or of an object store."""

    name: str  # as the user wrote it, absolute

    def list(self, prefix: str) -> dict[str, FileFacts]:
        """Return the whole files whose names begin with `prefix`, a folder's name and ``/``."""

    def read(self, name: str) -> bytes:
        """Return the content of a file; raise FileNotFoundError where there is none."""

    def facts(self, name: str) -> FileFacts | None:
        """Return size and time of a file; None where there is none."""

    def new_file(self, name: str) -> Any:
        """Return a context: a local path to write to, put in place at the end, if absent.

        The context yields the path. Where another process was first, its file stays.
        """

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, in the place of one of that name."""

    def remove(self, name: str) -> None:
        """Remove a file; it is no error where there is none."""

    def clear(self, prefix: str) -> None:
        """Remove what killed processes left in the folder `prefix`."""

    def open_to_read(self, name: str) -> Any:
        """Return what pyarrow reads a file from: a path, or a file that is open."""

    def filesystem(self) -> tuple[Any, str]:
        """Return what pyarrow's data sets read files by, and the path of this folder in it."""


class LocalFolder:
    """A folder of this machine, or one that several mount."""

    def __init__(self, path: str | os.PathLike):
        self._path = Path(os.path.abspath(os.path.expanduser(path)))
        self.name = str(self._path)

    def list(self, prefix: str) -> dict[str, FileFacts]:
        """Return the whole files in the folder `prefix`."""
        found = {}
        try:
            with os.scandir(self._path / prefix) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        status = entry.stat()
                        found[prefix + entry.name] = FileFacts(status.st_size, status.st_mtime)
        except FileNotFoundError:
            pass
        return found

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return (self._path / name).read_bytes()

    def facts(self, name: str) -> FileFacts | None:
        """Return size and time of a file; None where there is none."""
        try:
            status = os.stat(self._path / name)
        except FileNotFoundError:
            return None
        return FileFacts(status.st_size, status.st_mtime)

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Let the block write a file aside, and put it in place if there is none."""
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            yield aside
            try:
                with open(aside, "rb+") as file:
                    os.fsync(file.fileno())
                _put_in_place(aside, path)
            except FileNotFoundError:
                # another process closed the job, and removed what was not in place
                if not path.exists():
                    raise
        finally:
            aside.unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, in the place of one of that name."""
        path = self._path / name
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            aside.write_bytes(content)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file, and its folder where that is empty then."""
        (self._path / name).unlink(missing_ok=True)
        parent = (self._path / name).parent
        if parent != self._path and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

    def clear(self, prefix: str) -> None:
        """Remove the files that killed processes had not finished."""
        for path in (self._path / prefix).glob(".*.tmp"):
            # Windows keeps a file that another driver writes; that one removes it
            with suppress(PermissionError):
                path.unlink(missing_ok=True)

    def open_to_read(self, name: str) -> Any:
        """Return the path of a file."""
        return str(self._path / name)

    def filesystem(self) -> tuple[Any, str]:
        """Return pyarrow's local file system and the path of this folder."""
        from pyarrow import fs

        return fs.LocalFileSystem(), self._path.as_posix()


def _put_in_place(aside: Path, path: Path) -> None:
    """Give a file its name, unless another file has it.

    A link is refused where the name is taken, by the file system itself. Where there are no
    links, two processes may both find the name free; the second file takes the place of the
    first, whole, and has the same bytes.
    """
    try:
        os.link(aside, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not path.exists():
            os.rename(aside, path)
