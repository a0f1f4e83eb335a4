"""The number of threads of this process: its share of the cores, also in a worker."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

import joblib
import torch

from .._locking import ForkSafeLock

Result = TypeVar("Result")

# Variables with a share of the cores: joblib sets cores / workers in the processes of loky,
# dask's nanny 1 for each thread of a worker, batch systems the allotted cores. joblib and
# dask leave a variable that the user has set, and then the other one holds the share.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def _allotted() -> list[int]:
    values = [os.environ.get(name, "").split(",")[0].strip() for name in _VARIABLES]
    return [int(value) for value in values if value.isdigit() and int(value)]


# Read once, as torch does: a dask cluster leaves the numbers that are meant for its
# workers in the environment of the process that starts it.
_ALLOTTED = _allotted()


def n_cores() -> int:
    """Return the cores that this process may use; in a worker, its share of them."""
    return min([joblib.cpu_count(), *_ALLOTTED])


def n_threads(n_jobs: int | None) -> int:
    """Return the number of reading threads: joblib's meaning, None is all cores."""
    if n_jobs is None:
        return n_cores()
    return n_jobs if n_jobs > 0 else max(1, n_cores() + 1 + n_jobs)


class CorePool(ThreadPoolExecutor):
    """Threads for work that keeps a core busy: torch uses one thread in each.

    The pools of a process share its cores: where threads run several fits at once, as many
    tasks run as there are cores. A task must not wait for another. A pool with an explicit
    number of threads uses that number, and shares no cores.
    """

    def __init__(self, n_jobs: int | None = None):
        self.n_threads = n_threads(n_jobs)
        self._turn = _turns() if n_jobs is None else nullcontext()
        _torch_threads_here()  # before threads of this pool change it for a moment
        super().__init__(
            self.n_threads,
            thread_name_prefix="sktransfer",
            initializer=_limit_torch_here,
            initargs=(1,),
        )

    def submit(self, work: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        return super().submit(self._in_turn, work, *args, **kwargs)

    def _in_turn(self, work: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        with self._turn:
            return work(*args, **kwargs)


@contextmanager
def torch_threads_of_a_worker() -> Iterator[None]:
    """Let torch use one thread, if joblib runs several tasks in threads of this process.

    joblib means one thread for everything inside a parallel task. In worker processes
    torch reads the share from the environment.
    """
    backend, _ = joblib.parallel.get_active_backend()
    is_task = (backend.nesting_level or 0) > 0
    if is_task and threading.current_thread() is not threading.main_thread():
        with _torch_threads_at_most(1):
            yield
    else:
        with torch_threads_within_cores():
            yield


@contextmanager
def torch_threads_within_cores(most: int | None = None) -> Iterator[None]:
    """Let torch use no more threads than the cores that this process may use, or than `most`.

    torch counts the cores of the machine. In a container with a share of them, waiting
    threads would use the processor time of those that compute.
    """
    with _torch_threads_at_most(min(most or joblib.cpu_count(), joblib.cpu_count())):
        yield


@contextmanager
def _torch_threads_at_most(n: int) -> Iterator[None]:
    before = _torch_threads_here()
    if before <= n:
        yield
        return
    _limit_torch_here(n)
    try:
        yield
    finally:
        _limit_torch_here(before)


@cache
def _turns() -> threading.Semaphore:
    return threading.Semaphore(joblib.cpu_count())


if hasattr(os, "register_at_fork"):
    # the threads that had taken turns are not in the child, and would never give them back
    os.register_at_fork(after_in_child=_turns.cache_clear)

_changing_torch = ForkSafeLock()


def _limit_torch_here(n: int) -> None:
    """Set torch's number of threads for this thread alone.

    torch.set_num_threads sets two numbers: that of the calling thread, and the default of
    threads that ask for the first time. The latter is restored at once.
    """
    with _changing_torch:
        torch.get_num_threads()  # takes over; later it would undo the limit
        common = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(n)
        _in_new_thread(lambda: torch.set_num_threads(common))


def _torch_threads_here() -> int:
    with _changing_torch:  # a first look while another thread changes it would be wrong
        return torch.get_num_threads()


def _in_new_thread(ask: Callable[[], Result]) -> Result:
    answers: list[Result] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join()
    return answers[0]
