"""Batches that fit in a device's memory: halved where it runs out, larger again after a while.

Memory may run out for a moment only, because other processes use the same device.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from .._locking import ForkSafeLock

Result = TypeVar("Result")

# What torch says where memory runs out and the error has no class of its own: on the CPU, on
# MPS, for pinned memory and CUDA's own allocations, and in the libraries that CUDA uses. cuBLAS
# reports a handle that it has no memory for as one that is not initialised.
_MESSAGES = (
    "can't allocate memory",
    "MPS backend out of memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)

# Batches that fit before one of twice their size is tried; each time that fails, twice as many.
_BATCHES_BEFORE_GROWTH = 16
_MOST_BEFORE_GROWTH = 1024


def says_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on a device or for a copy to it."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _MESSAGES)
    )


def release_cached(device: torch.device) -> None:
    """Give the memory that torch's allocator holds without need back, to all devices of a kind."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class BatchLimit:
    """The largest batch that a device's memory has room for, as far as is known.

    It is halved when memory runs out, and doubled after some batches that fitted, until it is
    what it was: a lack of memory may end.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._size: int | None = None  # None: no batch was too large
        self._wanted = 0  # the size that was too large first
        self._n_fitted = 0
        self._patience = _BATCHES_BEFORE_GROWTH
        self._is_grown = False  # and no batch of the new size has passed

    def at_most(self, n: int) -> int:
        """Return the number of images to try, of `n`."""
        with self._lock:
            return n if self._size is None else min(n, self._size)

    def fitted(self, n: int) -> None:
        """Note that a batch of `n` images fitted."""
        with self._lock:
            if self._size is None or n < self._size:
                return  # nothing is learned of larger ones
            self._is_grown = False
            self._n_fitted += 1
            if self._n_fitted >= self._patience:
                self._n_fitted, self._is_grown = 0, True
                self._size *= 2
                if self._size >= self._wanted:
                    self._size = None

    def failed(self, n: int) -> None:
        """Note that memory ran out on a batch of `n` images."""
        with self._lock:
            if self._is_grown:
                self._patience = min(2 * self._patience, _MOST_BEFORE_GROWTH)
            elif self._size is None:
                self._wanted = n
            self._is_grown, self._n_fitted = False, 0
            self._size = max(1, n // 2) if self._size is None else max(1, min(self._size, n // 2))


def in_fitting_parts(
    n: int,
    compute: Callable[[slice], Result],
    limit: BatchLimit,
    device: torch.device,
    what: str = "image",
) -> list[Result]:
    """Return ``compute(part)`` of parts that fit in memory, in order, which make up ``range(n)``.

    Raises
    ------
    torch.OutOfMemoryError
        When memory runs out on one image alone.
    """
    results: list[Result] = []
    start = 0
    while start < n:
        size = min(limit.at_most(n), n - start)
        reason = None
        try:
            results.append(compute(slice(start, start + size)))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not says_out_of_memory(error):
                raise
            reason = str(error)
        # outside the handler: the traceback holds references to the tensors in memory
        if reason is None:
            limit.fitted(size)
            start += size
            continue
        release_cached(device)
        if size == 1:
            raise torch.OutOfMemoryError(
                f"the memory of the device {str(device)!r} ran out on one {what} alone; see which "
                "other processes use the device, or use a smaller image_size or backbone, or "
                f"device='cpu' (torch says: {first_line(reason)})"
            )
        limit.failed(size)
    return results


def first_line(text: str) -> str:
    """Return the first line of a message, which may be empty."""
    return text.strip().splitlines()[0] if text.strip() else "nothing"
