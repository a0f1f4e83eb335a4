"""One process at a time computes on a GPU: batches of several would fill its memory.

The lock of a GPU is a lock on a file in a folder of this user. The system releases it
when its process ends, in whatever way. Processes in other containers, and those of
other users, have other locks.

Who waits for the GPU first waits for a second file, which the next process in line holds. So a
process that releases the GPU and wants it again comes after the others.

Threads of a process hold a GPU together. Some could always overlap, and other processes would wait
without end. So a thread that comes when another process has waited for a second comes after it.
"""

import os
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import torch

from ..exceptions import GpuWaitWarning

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PROCESSES_VARIABLE = "SKTRANSFER_GPU_PROCESSES"
# s between two looks at a lock: at first, and at most, as they double. A batch takes some 10 ms.
_BETWEEN_LOOKS = 0.0005, 0.01
# s of waiting after which a warning says so. There is no limit: a fit may train for hours.
_SILENT = 10.0
# s that a process computes while others wait
_TURN = 1.0


@contextmanager
def gpu_lock(device: torch.device) -> Iterator[None]:
    """Wait until this process may use `device`, and hold it within a ``with`` block.

    Blocks may be nested, and threads of a process hold a GPU together. The CPU needs no
    lock. Nothing should be read or decoded inside the block: the GPU would be idle, and no
    other process could use it. Nor may it wait for torch's random state (`own_random_state`): a
    fit in another thread has that, and may wait for the GPU.

    The environment variable ``SKTRANSFER_GPU_PROCESSES`` lets more processes on each
    GPU at a time; its default is 1.
    """
    if device.type == "cpu":
        yield
        return
    lock = _lease(gpu_name(device))
    with lock:
        lock.count_blocks(1)
        try:
            yield
        finally:
            lock.count_blocks(-1)


def without_waiting(devices: list[torch.device]) -> list[torch.device]:
    """Return those of some devices that a process may wait for: all, outside of `gpu_lock`.

    Who waits for one GPU within a block for another could wait for a process that does the
    reverse, without end.
    """
    if len(devices) < 2:
        return devices
    return [device for device in devices if _lease(gpu_name(device)).n_blocks] or devices


class GpuTurn:
    """The lock of a device, held over several batches by one thread.

    Parameters
    ----------
    device : torch.device
        The CPU needs no lock.
    """

    def __init__(self, device: torch.device):
        self._lock = None if device.type == "cpu" else _lease(gpu_name(device))
        self._since: float | None = None  # None: not held

    def begin(self, stop: threading.Event | None = None) -> None:
        """Wait for the lock, unless it is held.

        Raises
        ------
        WaitStopped
            When `stop` was set while another process held the lock, or came first.
        """
        if self._since is None:
            if self._lock is not None:
                self._lock.acquire(stop, is_turn=True)
            self._since = time.monotonic()

    def is_over(self) -> bool:
        """Tell whether other processes have waited long enough."""
        return (
            self._lock is not None
            and self._since is not None
            and time.monotonic() - self._since >= _TURN
            and self._lock.is_wanted()
        )

    def end(self) -> None:
        """Release the lock, if it is held."""
        if self._since is not None:
            self._since = None
            if self._lock is not None:
                self._lock.release()


class WaitStopped(Exception):
    """Whoever waited for a GPU needs it no longer."""


class GpuLock:
    """One of the locks of the GPU `name`, held by threads of a process together."""

    def __init__(self, name: str):
        self._name = name
        self._reset()

    def _reset(self) -> None:
        self._changing = threading.Lock()
        self._n_holders = 0
        self._since = 0.0  # when the first of them got it
        self._of_threads: dict[int, int] = {}  # how often each holds it, by its number
        self.n_blocks = 0  # of `gpu_lock`, in all threads
        self._file: int | None = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def acquire(self, stop: threading.Event | None = None, *, is_turn: bool = False) -> None:
        """Wait until this thread holds the lock; raise `WaitStopped` when told to stop.

        `is_turn` tells that it is held for a second at most while others wait. The thread may
        work for one within a block of `gpu_lock`, which would wait for it without end.
        """
        waiting = _Waiting(self._name, stop)
        while not self._has_acquired(waiting, is_turn):
            waiting.wait(lambda: "its other threads, after which another process is next")

    def _has_acquired(self, waiting: "_Waiting", is_turn: bool) -> bool:
        """Acquire the lock, unless another process comes first."""
        with self._changing:  # where the first holder waits, the process's others do
            if self._n_holders == 0:
                self._file = _wait_for_a_place(self._name, waiting)
                self._since = time.monotonic()
            elif self._is_passed_on(is_turn):
                return False
            self._n_holders += 1
            thread = threading.get_ident()
            self._of_threads[thread] = self._of_threads.get(thread, 0) + 1
            return True

    def _is_passed_on(self, is_turn: bool) -> bool:
        """Tell whether another process comes before a thread that has come now."""
        may_be_waited_for = threading.get_ident() in self._of_threads or (is_turn and self.n_blocks)
        return (
            not may_be_waited_for and time.monotonic() - self._since >= _TURN and self.is_wanted()
        )

    def release(self) -> None:
        """Release the lock, as often as it was acquired."""
        with self._changing:
            self._n_holders -= 1
            thread = threading.get_ident()
            left = self._of_threads.pop(thread, 1) - 1
            if left:
                self._of_threads[thread] = left
            if self._n_holders == 0 and self._file is not None:
                close_lock_file(self._file)
                self._file = None

    def count_blocks(self, n: int) -> None:
        """Note that blocks begin, or end."""
        with self._changing:
            self.n_blocks += n

    def is_wanted(self) -> bool:
        """Tell whether another process waits for this lock."""
        file = open_lock_file(_queue_of(self._name))
        try:
            return not is_locked_now(file)
        finally:
            close_lock_file(file)

    def forget(self) -> None:
        """Reset in the child of a fork: the lock is the parent's alone."""
        self._reset()


_open_files: set[int] = set()  # whose locks the child of a fork would hold as well


def open_lock_file(path: Path) -> int:
    """Return a file to lock; the child of a fork closes it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _open_files.add(file)
    return file


def close_lock_file(file: int) -> None:
    """Close the file, and release its lock."""
    if sys.platform != "win32":
        # A child that was forked before the file was listed has it open, and would keep the lock.
        fcntl.flock(file, fcntl.LOCK_UN)
    _open_files.discard(file)
    os.close(file)


_leases: dict[str, GpuLock] = {}


def _lease(name: str) -> GpuLock:
    return _leases.setdefault(name, GpuLock(name))


def _forget_all() -> None:
    for file in _open_files:
        os.close(file)
    _open_files.clear()
    for lease in _leases.values():
        lease.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def gpu_name(device: torch.device) -> str:
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


def _queue_of(name: str) -> Path:
    return own_folder() / f"{name}-next.lock"


def _wait_for_a_place(name: str, waiting: "_Waiting") -> int:
    """Return the open file whose lock is the place."""
    folder = own_folder()
    queue = _locked_one_of([_queue_of(name)], waiting)
    try:
        places = [folder / f"{name}-{place}.lock" for place in range(_n_places())]
        file = _locked_one_of(places, waiting)
    finally:
        close_lock_file(queue)
    _write_holder(file)
    return file


class _Waiting:
    """Time spent waiting for a GPU; warns once when it is long."""

    def __init__(self, name: str, stop: threading.Event | None):
        self._name, self._stop = name, stop
        self._since = time.monotonic()
        self._pause, self._longest = _BETWEEN_LOOKS
        self._has_warned = False

    def wait(self, holders: Callable[[], str]) -> None:
        if self._stop is not None and self._stop.is_set():
            raise WaitStopped
        waited = time.monotonic() - self._since
        if waited >= _SILENT and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"process {os.getpid()} has waited {waited:.0f} s for the GPU {self._name}, which "
                f"is in use by {holders()}, and goes on waiting. One process computes on a "
                "GPU at a time; where its memory has room for several, set the environment "
                f"variable {PROCESSES_VARIABLE} in all of them",
                GpuWaitWarning,
                stacklevel=2,
            )
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, self._longest)


def _locked_one_of(paths: Sequence[Path], waiting: _Waiting) -> int:
    """Wait for the first lock that is free; return its open file."""
    files = [open_lock_file(path) for path in paths]
    locked = None
    try:
        while True:
            for file in files:
                if is_locked_now(file):
                    locked = file
                    return file
            waiting.wait(lambda: _holders(paths))
    finally:
        for file in files:
            if file != locked:
                close_lock_file(file)


def _write_holder(file: int) -> None:
    if sys.platform != "win32":  # where nobody could read it while it is locked
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())


def _holders(paths: Sequence[Path]) -> str:
    if sys.platform == "win32":
        return "another process"
    numbers = [text for text in (path.read_text() for path in paths) if text.isdigit()]
    return " and ".join(f"process {number}" for number in numbers) or "another process"


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


def is_locked_now(file: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # somebody else's: so say Unix, and Windows
        return False
    return True
