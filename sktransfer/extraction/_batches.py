"""Work on batches of images in threads, in a bounded window and bounded memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

_BATCHES_AHEAD = 2
# Images that one thread is given at once: each task, and each look-up in a store, costs some
# 50 microseconds in which no other thread of the interpreter runs.
_IMAGES_AT_ONCE = 8

Result = TypeVar("Result")
Batch = TypeVar("Batch")
Positions = Sequence[int] | np.ndarray


def run_batches(
    batches: Iterable[Batch],
    work: Callable[[Batch], Result],
    pool: ThreadPoolExecutor,
    n_workers: int,
) -> Iterator[Result]:
    """Yield ``work(batch)`` in order; one worker does a batch, and a few run ahead."""

    def submit(positions: Batch) -> list[Future]:
        return [pool.submit(work, positions)]

    for (future,) in _ahead(batches, submit, 2 * n_workers):
        yield future.result()


def run_images(
    batches: Iterable[Positions],
    work: Callable[[Positions], Result],
    pool: ThreadPoolExecutor,
    n_workers: int,
) -> Iterator[list[Result]]:
    """Yield ``[work(some images), ...]`` of each batch in order; a few batches run ahead.

    The images of a batch are divided between the workers, each of which gets two parts or more.
    """

    def submit(positions: Positions) -> list[Future]:
        n = min(_IMAGES_AT_ONCE, max(1, len(positions) // (2 * n_workers)))
        parts = (positions[start : start + n] for start in range(0, len(positions), n))
        return [pool.submit(work, part) for part in parts]

    for futures in _ahead(batches, submit, _BATCHES_AHEAD):
        yield [future.result() for future in futures]


def _ahead(
    batches: Iterable[Batch],
    submit: Callable[[Batch], list[Future]],
    n_ahead: int,
) -> Iterator[list[Future]]:
    """Yield the futures of batches; those of `n_ahead` more are submitted at any time."""
    window: deque[list[Future]] = deque()
    try:
        for positions in batches:
            window.append(submit(positions))
            if len(window) > n_ahead:
                yield window.popleft()
        while window:
            yield window.popleft()
    finally:
        for futures in window:
            for future in futures:
                future.cancel()


class MemoryBudget:
    """A limit on the bytes that threads reserve together; a thread above it waits.

    A reservation larger than the limit is granted when there is no other.
    """

    def __init__(self, n_bytes: int):
        self._n_bytes = n_bytes
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes; the end of the block releases them.

        It may be called once in a block: two threads that hold some bytes and wait for more
        could wait for each other.
        """
        held = 0

        def reserve(n_bytes: int) -> None:
            nonlocal held
            if held:
                raise RuntimeError("memory was reserved twice in one block")
            wanted = min(n_bytes, self._n_bytes)
            with self._changed:
                self._changed.wait_for(lambda: self._held + wanted <= self._n_bytes)
                self._held += wanted
            held = wanted

        try:
            yield reserve
        finally:
            with self._changed:
                self._held -= held
                self._changed.notify_all()
