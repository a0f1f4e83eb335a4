"""The folders of a store: private to their user; what killed processes left is deleted.

A store is the folder `activations-3` inside the folder that the user names. It is removed
in one step for other processes: renamed to `activations-3.trash-...`, then deleted. A
process that is killed in between leaves that folder behind, and the next one that opens the
store for writing deletes it. A lock on such a folder means that it is being filled.
"""

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

_TRASH = re.compile(r"activations-\d+\.trash-[0-9a-f]{16}")
_FORMER = re.compile(r"activations-\d+")
# The first version moved its folder into one of tempfile's names.
_FIRST_TRASH = re.compile(r"trash-\w{8}")


def make_private_folder(path: str) -> None:
    """Create the folder and those above it that are missing, all with mode 0700.

    Existing folders stay as they are, except the last one: if it belongs to this user, it
    gets mode 0700 too.
    """
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        make_private_folder(above)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    _set_mode(path, 0o700)


def make_private_file(path: str, size: int = 0) -> None:
    """Create the file if it is missing, and set mode 0600 if it belongs to this user.

    With a `size`, that many bytes of the disk are allocated, or OSError is raised: on a full
    disk, writing to a file through a memory map would end the process with SIGBUS.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        _set_mode(path, 0o600)
        if os.fstat(file).st_size < size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
    finally:
        os.close(file)


def _set_mode(path: str, mode: int) -> None:
    status = os.stat(path)
    # the umask may have removed permissions of its owner
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if is_own and stat.S_IMODE(status.st_mode) != mode:
        with suppress(PermissionError):  # a file system without modes, such as FAT
            os.chmod(path, mode)


def is_read_only(folder: str, files: tuple[str, ...]) -> bool:
    """Return whether this process may not write to the folder or to one of its files.

    A folder without any write permission was published. Root could write to it all the
    same, but only reads it, as all others do.
    """
    try:
        if not os.stat(folder).st_mode & 0o222:
            return True
    except FileNotFoundError:
        return False
    return not all(map(_is_writable, [folder, *(os.path.join(folder, name) for name in files)]))


def _is_writable(path: str) -> bool:
    """Return whether this process may write to the path, or nothing is there.

    Another process may remove it, and make it anew, between the looks: what is there only
    after a refusal is asked again.
    """
    effective = os.access in os.supports_effective_ids

    def may_write() -> bool:
        return os.access(path, os.W_OK, effective_ids=effective)

    return may_write() or not os.path.exists(path) or may_write()


def remove_folder(folder: str) -> None:
    """Remove the folder, in one step for other processes."""
    trash = f"{folder}.trash-{os.urandom(8).hex()}"
    try:
        os.rename(folder, trash)
    except FileNotFoundError:  # there is none, or another process has removed it
        return
    _delete(trash)


def _delete(trash: str) -> None:
    try:
        shutil.rmtree(trash)
    except FileNotFoundError:  # another process deletes it at the same time
        shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def replacement_of(folder: str) -> Iterator[str]:
    """Yield a new folder that replaces `folder` when the block ends without error."""
    new = f"{folder}.trash-{os.urandom(8).hex()}"
    os.mkdir(new, 0o700)
    held = os.open(new, os.O_RDONLY) if fcntl is not None else None
    try:
        if held is not None:
            fcntl.flock(held, fcntl.LOCK_EX)
        yield new
        remove_folder(folder)
        # fails if another process has created the folder again: then its rows stay
        try:
            os.rename(new, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)  # renamed, if all went well
        if held is not None:
            os.close(held)


class Replaced(OSError):
    """Another process cleared the store while this one opened it."""


@contextmanager
def not_replaced(folder: str) -> Iterator[None]:
    """Raise `Replaced` if the folder is gone or another one when the block ends or fails."""
    try:
        # as long as it is open, no other folder is given its number
        held = os.open(folder, os.O_RDONLY) if fcntl is not None else None
        before = os.stat(folder if held is None else held)
    except FileNotFoundError:
        raise Replaced(f"{folder} was removed") from None
    try:
        yield
    except Exception as error:
        if not _is_at(folder, before):
            raise Replaced(f"{folder} was replaced while it was opened") from error
        raise
    else:
        if not _is_at(folder, before):
            raise Replaced(f"{folder} was replaced while it was opened")
    finally:
        if held is not None:
            os.close(held)


def _is_at(folder: str, status: os.stat_result) -> bool:
    try:
        now = os.stat(folder)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino)


def collect_rubbish(path: str, current: str) -> list[str]:
    """Delete what killed processes and former versions left in the folder of the user.

    Returns the folders of former versions. The next process tries again to delete what could
    not be deleted, such as a file in use on Windows.
    """
    if not os.path.isdir(path) or not os.access(path, os.W_OK):
        return []
    for name in os.listdir(path):
        folder = os.path.join(path, name)
        if os.path.islink(folder) or not os.path.isdir(folder):
            continue
        is_trash = _TRASH.fullmatch(name) and not _is_being_filled(folder)
        if is_trash or _is_first_trash(name, folder):
            shutil.rmtree(folder, ignore_errors=True)
    former = former_stores(path, current)
    for folder in former:
        remove_folder(folder)
    return former


def _is_first_trash(name: str, folder: str) -> bool:
    # the name could be the user's own, so the content is checked
    return bool(_FIRST_TRASH.fullmatch(name)) and os.listdir(folder) == ["activations-1"]


def _is_being_filled(folder: str) -> bool:
    if fcntl is None:
        return False
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:  # deleted by another process, or without permission to open it
        return True
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(held)
    return False


def former_stores(path: str, current: str) -> list[str]:
    """Return the folders of former versions in the folder of the user."""
    try:
        names = os.listdir(path)
    except OSError:  # missing, or without permission to list it
        return []
    return sorted(
        os.path.join(path, name)
        for name in names
        if _FORMER.fullmatch(name) and _number(name) < _number(current)
    )


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def free_bytes(path: str) -> int:
    """Return the free bytes of the disk on which `path` is or will be."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free
