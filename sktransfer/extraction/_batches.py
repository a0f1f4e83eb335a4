"""Work on batches of images in threads, in a bounded window and bounded memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_BATCHES_AHEAD = 2

Result = TypeVar("Result")
Batch = TypeVar("Batch")


def run_batches(
    batches: Iterable[Batch],
    work: Callable[[Batch], Result],
    pool: ThreadPoolExecutor,
    n_workers: int,
) -> Iterator[Result]:
    """Yield ``work(batch)`` in order; each batch is one worker's, a few are under way."""

    def submit(positions: Batch) -> list[Future]:
        return [pool.submit(work, positions)]

    for (future,) in _ahead(batches, submit, 2 * n_workers):
        yield future.result()


def run_images(
    batches: Iterable[Iterable[int]],
    work: Callable[[list[int]], Result],
    pool: ThreadPoolExecutor,
) -> Iterator[list[Result]]:
    """Yield ``[work([image]), ...]`` of each batch in order; a few batches are worked ahead.

    The images of a batch are worked on side by side.
    """

    def submit(positions: Iterable[int]) -> list[Future]:
        return [pool.submit(work, [position]) for position in positions]

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
    """Bytes that threads may hold together; who would exceed them waits.

    What is larger than all of them is let alone, when nothing else is held.
    """

    def __init__(self, n_bytes: int):
        self._n_bytes = n_bytes
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes bytes; they are given back at the end of the block.

        It may be called once in a block: a thread that holds some and waits for more could
        wait for another that does the same.
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
