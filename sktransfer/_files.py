"""Atomic writes of files: a reader sees the whole old file or the whole new one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the ``with`` block ends.

    It is written under a temporary name in the same folder, and reaches the disk before
    it is renamed: if the process is killed or the machine loses power, the old file stays.
    If the block raises, the old file stays as well, and the temporary one is deleted. The
    permissions of the file follow from the umask.
    """
    path = Path(path)
    # a name that no other thread or process has, whatever a killed one left
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        # not tempfile, whose files nobody else may read, whatever the umask
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
