"""Read images in threads ahead of the network, in a bounded window."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch

from ..images._decode import DecodeError

_BATCHES_AHEAD = 2

Result = TypeVar("Result")
# position of an image -> what the network reads of it, or DecodeError
Read = Callable[[int], torch.Tensor]


class Batch(NamedTuple):
    """Images that were read, and what could not be."""

    positions: list[int]
    pixels: torch.Tensor | None  # uint8 (n, 3, size, size); None where n is 0
    failures: dict[int, str]


def read_batch(read: Read, positions: Sequence[int]) -> Batch:
    """Return one batch of images, read one after the other."""
    return _gather(positions, [_outcome(read, position) for position in positions])


def read_batches(
    read: Read, batches: Iterable[Sequence[int]], pool: ThreadPoolExecutor
) -> Iterator[Batch]:
    """Yield batches of images in order; a few batches are read ahead.

    The images of a batch are read side by side. Memory is bounded by the window,
    however many images there are.
    """

    def submit(positions: Sequence[int]) -> list[Future]:
        return [pool.submit(_outcome, read, position) for position in positions]

    for positions, futures in _ahead(batches, submit, _BATCHES_AHEAD):
        yield _gather(positions, [future.result() for future in futures])


def run_batches(
    batches: Iterable[Sequence[int]],
    work: Callable[[Sequence[int]], Result],
    pool: ThreadPoolExecutor,
    n_workers: int,
) -> Iterator[Result]:
    """Yield ``work(batch)`` in order; each batch is one worker's, a few are under way."""

    def submit(positions: Sequence[int]) -> list[Future]:
        return [pool.submit(work, positions)]

    for _, (future,) in _ahead(batches, submit, 2 * n_workers):
        yield future.result()


def _ahead(
    batches: Iterable[Sequence[int]],
    submit: Callable[[Sequence[int]], list[Future]],
    n_ahead: int,
) -> Iterator[tuple[Sequence[int], list[Future]]]:
    """Yield batches with their futures; `n_ahead` more are submitted at any time."""
    window: deque[tuple[Sequence[int], list[Future]]] = deque()
    try:
        for positions in batches:
            window.append((positions, submit(positions)))
            if len(window) > n_ahead:
                yield window.popleft()
        while window:
            yield window.popleft()
    finally:
        for _, futures in window:
            for future in futures:
                future.cancel()


def _gather(positions: Sequence[int], outcomes: Sequence[torch.Tensor | DecodeError]) -> Batch:
    good, tensors, failures = [], [], {}
    for position, outcome in zip(positions, outcomes, strict=True):
        if isinstance(outcome, DecodeError):
            failures[position] = str(outcome)
        else:
            good.append(position)
            tensors.append(outcome)
    return Batch(good, torch.stack(tensors) if tensors else None, failures)


def _outcome(read: Read, position: int) -> torch.Tensor | DecodeError:
    try:
        return read(position)
    except DecodeError as error:
        return error
