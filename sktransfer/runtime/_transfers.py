"""Batches to a device and results back: the one place where devices differ.

On CUDA a copy from or to pinned memory is asynchronous: the host reads the next images while the
device computes. Everywhere else a batch is computed when its copy is asked for.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch


class Transfers:
    """Copies that wait; on the CPU there is none to make."""

    def __init__(self, device: torch.device):
        self.device = device

    def current(self) -> AbstractContextManager[object]:
        """Return a context in which this thread works on the device."""
        return nullcontext()

    def to_device(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return images as one batch on the device."""
        return torch.stack(list(images)).to(self.device)

    def to_host(self, values: Sequence[torch.Tensor]) -> Callable[[], list[np.ndarray]]:
        """Return a function that waits for the values, and returns them in memory."""
        return lambda: [_as_array(value.cpu().contiguous()) for value in values]


class CudaTransfers(Transfers):
    """Copies by pinned memory, which nobody waits for until the values are wanted."""

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.device)

    def to_device(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        first = images[0]
        pinned = torch.empty((len(images), *first.shape), dtype=first.dtype, pin_memory=True)
        torch.stack(list(images), out=pinned)
        # torch does not give the pinned memory to anything else before the copy has ended
        return pinned.to(self.device, non_blocking=True)

    def to_host(self, values: Sequence[torch.Tensor]) -> Callable[[], list[np.ndarray]]:
        hosts = [torch.empty(v.shape, dtype=v.dtype, pin_memory=True) for v in values]
        for host, value in zip(hosts, values, strict=True):
            host.copy_(value, non_blocking=True)
        # an event of this batch alone: the next one may have been launched meanwhile
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> list[np.ndarray]:
            done.synchronize()
            # pinned memory is scarce
            return [_as_array(host if _is_bfloat16(host) else host.clone()) for host in hosts]

        return wait


def transfers_to(device: torch.device) -> Transfers:
    """Return the transfers of a kind of device."""
    return (CudaTransfers if device.type == "cuda" else Transfers)(device)


def _as_array(value: torch.Tensor) -> np.ndarray:
    """Return a tensor in memory as an array, bfloat16 as float32: numpy has no such type."""
    return (value.float() if _is_bfloat16(value) else value).numpy()


def _is_bfloat16(value: torch.Tensor) -> bool:
    return value.dtype == torch.bfloat16
