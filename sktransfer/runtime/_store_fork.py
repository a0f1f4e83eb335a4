"""A gate that lets a fork wait for the threads at work in a store."""

import threading


class ForkGate:
    """Counts the threads inside; while it is closed, none comes in.

    LMDB's environment can't be used by the child of a fork, and its binding
    refuses a second one as long as the first is held: in the child, by the
    frames of threads that no longer run. So none may be at work.
    """

    _PATIENCE = 10  # s; a child that was forked all the same goes on without its store

    def __init__(self):
        self._changed = threading.Condition()
        self._n_inside = 0
        self._is_closed = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed, self._PATIENCE)
            self._n_inside += 1

    def __exit__(self, *exc_info) -> None:
        with self._changed:
            self._n_inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in, and wait until all are out."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._n_inside, self._PATIENCE)

    def open(self) -> None:
        """Let them in again."""
        with self._changed:
            self._is_closed = False
            self._changed.notify_all()
