"""The folders of a store: private to their user, and cleared of what killed processes left.

A store is the folder `activations-2` inside the folder that the user names. It is removed
in one step for all who look for it: renamed to `activations-2.trash-...`, then deleted. A
process that is killed in between leaves that name behind, and the next one that opens the
store for writing deletes it. A lock on such a folder says that it is being filled.
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

    Folders that are there stay as they are, but for the last one: if it is this user's,
    others lose their access.
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
    """Create the file if it is missing; mode 0600 if it is this user's.

    With a `size`, so much of the disk is taken, or OSError raised: a file that is written
    through a memory map would end the process, with SIGBUS, where the disk is full.
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
    # the umask may have taken more than was asked for
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if is_own and stat.S_IMODE(status.st_mode) != mode:
        with suppress(PermissionError):  # a file system without modes, such as FAT
            os.chmod(path, mode)


def is_read_only(folder: str, files: tuple[str, ...]) -> bool:
    """Tell whether this process may not write to the folder or to one of its files.

    A folder that nobody may write to was published: root and its owner, who could write
    all the same, only read it as well.
    """
    try:
        if not os.stat(folder).st_mode & 0o222:
            return True
    except FileNotFoundError:
        return False
    paths = [folder, *(os.path.join(folder, name) for name in files)]
    effective = os.access in os.supports_effective_ids
    return not all(
        os.access(path, os.W_OK, effective_ids=effective) for path in paths if os.path.exists(path)
    )


def remove_folder(folder: str) -> None:
    """Take the folder away, in one step for all who look for it."""
    trash = f"{folder}.trash-{os.urandom(8).hex()}"
    try:
        os.rename(folder, trash)
    except FileNotFoundError:  # there is none, or another was faster
        return
    _delete(trash)


def _delete(trash: str) -> None:
    try:
        shutil.rmtree(trash)
    except FileNotFoundError:  # another process collects it as well
        shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def replacement_of(folder: str) -> Iterator[str]:
    """Give a new folder that takes the place of `folder` when the block ends without error."""
    new = f"{folder}.trash-{os.urandom(8).hex()}"
    os.mkdir(new, 0o700)
    held = os.open(new, os.O_RDONLY) if fcntl is not None else None
    try:
        if held is not None:
            fcntl.flock(held, fcntl.LOCK_EX)
        yield new
        remove_folder(folder)
        # fails if another process has made the folder anew: then its rows stay
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

    Returns the folders of former versions. What can't be deleted now, on Windows a file in
    use, is tried again by the next process.
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
    # the name could be the user's own, so by content
    return bool(_FIRST_TRASH.fullmatch(name)) and os.listdir(folder) == ["activations-1"]


def _is_being_filled(folder: str) -> bool:
    if fcntl is None:
        return False
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:  # collected by another process, or not ours to open
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
    except OSError:  # none, or one that may be passed through but not listed
        return []
    return sorted(
        os.path.join(path, name)
        for name in names
        if _FORMER.fullmatch(name) and _number(name) < _number(current)
    )


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def free_bytes(path: str) -> int:
    """Return the free disk where `path` is or will be."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free
