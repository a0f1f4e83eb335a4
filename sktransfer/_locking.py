"""Locks over threads, forks and processes.

A lock that a forked child can use even if another thread held it in the parent; a gate that
makes a fork wait for threads that use a store; torch's global random state, which one block
at a time may set.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch

_locks: "WeakSet[ForkSafeLock]" = WeakSet()


class ForkSafeLock:
    """A lock for a ``with`` block, which is replaced in the child of a fork.

    A fork copies a lock in its state. If another thread holds it, that thread does not
    exist in the child to release it, and the child would wait forever.
    """

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._lock = make()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


def _renew_locks() -> None:
    for lock in _locks:
        lock._lock = lock._make()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_locks)


_random_state_turn = ForkSafeLock(threading.RLock)


@contextmanager
def own_random_state(seed: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Let a ``with`` block set and use the random state; it is left as it was.

    All threads of a process share the state: two that draw from it at the same time get
    neither the numbers of their seeds, nor is the user's state restored. So one waits for
    the other. Blocks may be nested.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with _random_state_turn, torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield


class ForkGuard:
    """Counts the threads inside; while it is closed, no thread enters.

    LMDB's environment can't be used by the child of a fork, and its binding refuses a second
    one while the first is referenced: in the child, by the frames of threads that no longer
    run. So no thread may be inside during a fork.
    """

    _PATIENCE = 10  # s; a child that is forked after this time works without its store

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_inside = 0
        self._is_closed = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed, self._PATIENCE)
            self._n_inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._n_inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let no thread enter, and wait until all have left."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._n_inside, self._PATIENCE)

    def open(self) -> None:
        """Let threads enter again."""
        with self._changed:
            self._is_closed = False
            self._changed.notify_all()
