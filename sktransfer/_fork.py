"""A lock that a forked child can use, whoever held it in the parent."""

import os
import threading
from weakref import WeakSet

_locks: "WeakSet[ForkSafeLock]" = WeakSet()


class ForkSafeLock:
    """A lock for a ``with`` block; new in the child of a fork.

    A fork copies a lock as it is. Where another thread held it, that thread is not there
    in the child to give it back, and the child would wait for it without end.
    """

    def __init__(self):
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info) -> None:
        self._lock.release()


def _renew() -> None:
    for lock in _locks:
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew)
