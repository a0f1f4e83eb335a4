"""The data of a fit where it trains: the one place of training where devices differ.

On the CPU arrays are used as they are. On any other device activations that fit there are copied
once, and batches are gathered there; others are gathered in pinned memory, and copied while the
batch before trains. The host waits for no copy.
"""

from typing import Protocol

import numpy as np
import torch

# Share of a device's free memory that data may take; the rest is for what a step needs.
_SHARE = 0.5
# Pinned memory is scarce: a large array crosses in pieces.
_BYTES_AT_ONCE = 2**26


def is_host(device: torch.device) -> bool:
    """Return whether a device computes in the memory that arrays are in, and at once."""
    return device.type == "cpu"


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; the host does not wait for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # torch does not give the pinned memory to anything else before the copy has ended
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device that is not the CPU.

    Where it can't be told, nothing is free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what torch's allocator has, and no tensor uses
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return 0


def fits_on(device: torch.device, n_bytes: int) -> bool:
    """Return whether data of a fit may live on a device; the CPU has them already."""
    return n_bytes <= _SHARE * free_bytes(device)


class Activations(Protocol):
    """The activations of one view, from which batches are taken."""

    def take(self, chosen: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
        """Return a batch; `placed` is `chosen` on the device."""

    def all(self) -> torch.Tensor:
        """Return the activations themselves, which must not be changed in place."""


class _InMemory:
    def __init__(self, activations: np.ndarray):
        self._activations = activations

    def take(self, chosen: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._activations[chosen.numpy()])

    def all(self) -> torch.Tensor:
        return torch.from_numpy(self._activations)


class _OnDevice:
    def __init__(self, activations: np.ndarray, device: torch.device):
        source = torch.from_numpy(activations)
        self._data = torch.empty(source.shape, dtype=source.dtype, device=device)
        at_once = max(1, _BYTES_AT_ONCE // max(1, activations[:1].nbytes))
        for piece, target in zip(source.split(at_once), self._data.split(at_once), strict=True):
            target.copy_(moved(piece, device))

    def take(self, chosen: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
        return self._data.index_select(0, placed)

    def all(self) -> torch.Tensor:
        return self._data


class _Streamed(_InMemory):
    def __init__(self, activations: np.ndarray, device: torch.device):
        super().__init__(activations)
        self._device = device

    def take(self, chosen: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
        return moved(super().take(chosen, placed), self._device)


class ViewsOnDevice:
    """The activations of views, each copied to the device once, as far as memory allows."""

    def __init__(self, device: torch.device):
        self._device = device
        self._held: list[tuple[np.ndarray, Activations]] = []

    def of(self, activations: np.ndarray, are_reused: bool) -> Activations:
        """Return where batches of a view are taken from.

        `are_reused` tells whether a later epoch asks for the views before again.
        """
        for array, held in self._held:
            if array is activations:
                return held
        if not are_reused:
            self._held.clear()
        source: Activations
        if is_host(self._device):
            source = _InMemory(activations)
        elif fits_on(self._device, activations.nbytes):
            source = _OnDevice(activations, self._device)
        else:
            source = _Streamed(activations, self._device)
        self._held.append((activations, source))
        return source
