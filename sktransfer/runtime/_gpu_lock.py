"""One process at a time on a GPU: workers of a search together would fill its memory.

The lock of a GPU is a lock on a file in a folder of this user. The system releases it
when its process ends, in whatever way. Processes in other containers, and those of
other users, have other locks.
"""

import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import torch

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PROCESSES_VARIABLE = "SKTRANSFER_GPU_PROCESSES"
# s between two looks; a fit on a GPU takes seconds at least
_BETWEEN_LOOKS = 0.05


@contextmanager
def gpu_lock(device: torch.device) -> Iterator[None]:
    """Wait until this process may use `device`, and hold it within a ``with`` block.

    Blocks may be nested, and threads of a process hold a GPU together. The CPU needs no
    lock. Memory that torch's allocator caches is released for the next process.

    The environment variable ``SKTRANSFER_GPU_PROCESSES`` lets more processes on each
    GPU at a time; its default is 1.
    """
    if device.type == "cpu":
        yield
        return
    with _lease(_name_of(device)):
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()


class GpuLock:
    """One of the locks of the GPU `name`, held by a process as a whole."""

    def __init__(self, name: str):
        self._name = name
        self._reset()

    def _reset(self) -> None:
        self._changing = threading.Lock()
        self._n_holders = 0
        self._file: int | None = None

    def __enter__(self) -> None:
        with self._changing:  # where the first holder waits, the process's others do
            if self._n_holders == 0:
                self._file = _wait_for_a_place(self._name)
            self._n_holders += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._changing:
            self._n_holders -= 1
            if self._n_holders == 0 and self._file is not None:
                os.close(self._file)
                self._file = None

    def forget(self) -> None:
        """Reset in the child of a fork: the lock is the parent's alone."""
        if self._file is not None:
            os.close(self._file)
        self._reset()


_leases: dict[str, GpuLock] = {}


def _lease(name: str) -> GpuLock:
    return _leases.setdefault(name, GpuLock(name))


def _forget_all() -> None:
    for lease in _leases.values():
        lease.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _name_of(device: torch.device) -> str:
    """Return a name of a GPU that is the same in all processes, whichever GPUs they see."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return device.type


def _n_places() -> int:
    value = os.environ.get(PROCESSES_VARIABLE, "1")
    if not value.isdigit() or int(value) == 0:
        raise ValueError(
            f"the environment variable {PROCESSES_VARIABLE} must be the number of processes that "
            f"may use a GPU at a time, 1 or more, got {value!r}"
        )
    return int(value)


def _user() -> str:
    # not a name: in containers a user may have none
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")


def _wait_for_a_place(name: str) -> int:
    """Return the open file whose lock is the place."""
    folder = own_folder()
    files = [folder / f"{name}-{place}.lock" for place in range(_n_places())]
    while True:
        for path in files:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            if _is_locked_now(file):
                return file
            os.close(file)
        time.sleep(_BETWEEN_LOOKS)


def own_folder() -> Path:
    """Return a folder that only this user can write to, the same in all of the user's processes.

    Everybody may write to the folder of temporary files, and a name in it can be predicted.
    Where another user owns the folder of that name, or it is a link, the folder is one in the
    user's cache.
    """
    folders = [
        Path(tempfile.gettempdir(), f"sktransfer-{_user()}"),
        Path(platformdirs.user_cache_dir("sktransfer", appauthor=False), "gpu-locks"),
    ]
    reasons = []
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            reason = _why_not_own(folder)
        except OSError as error:
            reason = error.strerror
        if reason is None:
            return folder
        reasons.append(f"{folder} ({reason})")
    raise OSError(
        "no folder for the locks that let one process at a time use a GPU: "
        f"{'; '.join(reasons)}. Set the environment variable TMPDIR to a folder of your own, the "
        "same for all processes that use the GPU"
    )


def _why_not_own(folder: Path) -> str | None:
    """Return the reason why others may change the folder's files; None if they can't."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        return "not a folder" if not stat.S_ISLNK(status.st_mode) else "a symbolic link"
    if hasattr(os, "getuid"):
        if status.st_uid != os.getuid():
            return f"it belongs to user {status.st_uid}"
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.chmod(folder, 0o700)
    return None


def _is_locked_now(file: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # somebody else's: so say Unix, and Windows
        return False
    return True
