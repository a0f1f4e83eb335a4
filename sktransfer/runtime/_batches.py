"""Read images in threads ahead of the network, in a bounded window."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

from .._spec import InputSpec
from ..images._collection import ImageCollection
from ..images._decode import DecodeError
from ..images._preprocess import preprocess

_BATCHES_AHEAD = 2


class Batch(NamedTuple):
    """Images that were read, and what could not be."""

    positions: list[int]
    pixels: torch.Tensor | None  # uint8 (n, 3, size, size); None where n is 0
    failures: dict[int, str]


def n_threads(n_jobs: int | None) -> int:
    """Return the number of reading threads: joblib's meaning, None is all cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if n_jobs is None:
        return cores
    return n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)


def read_batches(
    images: ImageCollection,
    batches: Sequence[Sequence[int]],
    spec: InputSpec,
    pool: ThreadPoolExecutor,
) -> Iterator[Batch]:
    """Yield batches of preprocessed images in order; a few batches are read ahead.

    Memory is bounded by the window, however many images there are.
    """
    window: deque[tuple[Sequence[int], list[Future]]] = deque()
    waiting = iter(batches)

    def submit_next() -> None:
        positions = next(waiting, None)
        if positions is not None:
            futures = [pool.submit(_read, images, i, spec) for i in positions]
            window.append((positions, futures))

    try:
        for _ in range(_BATCHES_AHEAD):
            submit_next()
        while window:
            positions, futures = window.popleft()
            submit_next()
            good, tensors, failures = [], [], {}
            for position, future in zip(positions, futures, strict=True):
                outcome = future.result()
                if isinstance(outcome, DecodeError):
                    failures[position] = str(outcome)
                else:
                    good.append(position)
                    tensors.append(outcome)
            yield Batch(good, torch.stack(tensors) if tensors else None, failures)
    finally:
        for _, futures in window:
            for future in futures:
                future.cancel()


def _read(images: ImageCollection, position: int, spec: InputSpec) -> torch.Tensor | DecodeError:
    try:
        return preprocess(images[position].read(), spec)
    except DecodeError as error:
        return error
