"""The data of a fit where it trains: the one place of training where devices differ.

On the CPU arrays are used as they are. On any other device activations that fit there are copied
once, and batches are gathered there; others are gathered in pinned memory, and copied while the
batch before trains. The host waits for no copy. Where memory runs out, the first become others.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from ..runtime._memory import release_cached, says_out_of_memory
from ._augmented import AugmentedActivations

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

    def drop(self) -> bool:
        """Give the device's memory back; return whether any was taken. Batches are as before."""


class _InMemory:
    def __init__(self, activations: np.ndarray):
        self._activations = activations

    def take(self, chosen: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._activations[chosen.numpy()])

    def all(self) -> torch.Tensor:
        return torch.from_numpy(self._activations)

    def drop(self) -> bool:
        return False


class _ForDevice(_InMemory):
    """Activations that train elsewhere: all of them are there, or each batch is copied."""

    def __init__(self, activations: np.ndarray, device: torch.device, drop: Callable[[], bool]):
        super().__init__(activations)
        self._device = device
        self._drop_all = drop
        self._data: torch.Tensor | None = None

    def copy(self) -> None:
        """Copy all of them to the device."""
        source = torch.from_numpy(self._activations)
        data = torch.empty(source.shape, dtype=source.dtype, device=self._device)
        at_once = max(1, _BYTES_AT_ONCE // max(1, self._activations[:1].nbytes))
        for piece, target in zip(source.split(at_once), data.split(at_once), strict=True):
            target.copy_(moved(piece, self._device))
        self._data = data

    def drop(self) -> bool:
        had_any = self._data is not None
        self._data = None
        return had_any

    def take(self, chosen: torch.Tensor, placed: torch.Tensor) -> torch.Tensor:
        while True:
            try:
                if self._data is not None:
                    return self._data.index_select(0, placed)
                return moved(super().take(chosen, placed), self._device)
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not says_out_of_memory(error):
                    raise
            has_more_room = self._drop_all()
            release_cached(self._device)
            if not has_more_room:
                return super().take(chosen, placed)  # parts of it may fit

    def all(self) -> torch.Tensor:
        return super().all() if self._data is None else self._data


class ViewsOnDevice:
    """The activations of a fit, each view copied to the device once, as far as memory allows."""

    def __init__(self, device: torch.device):
        self.device = device
        self._keeps = True
        self._held: dict[AugmentedActivations, list[tuple[np.ndarray, Activations]]] = {}

    def of(self, views: AugmentedActivations, epoch: int) -> Activations:
        """Return where the batches of an epoch are taken from."""
        activations = views.of_epoch(epoch)
        held = self._held.setdefault(views, [])
        for array, source in held:
            if array is activations:
                return source
        if not views.are_reused:  # no later epoch asks for those before
            for _, before in held:
                before.drop()  # whoever drew batches from it may hold it still
            held.clear()
        held.append((activations, self._source(activations)))
        return held[-1][1]

    def _source(self, activations: np.ndarray) -> Activations:
        if is_host(self.device):
            return _InMemory(activations)
        source = _ForDevice(activations, self.device, self.drop)
        if self._keeps and fits_on(self.device, activations.nbytes):
            try:
                source.copy()
                return source
            except RuntimeError as error:  # another process may have taken the memory meanwhile
                if not says_out_of_memory(error):
                    raise
            release_cached(self.device)
        return source

    def drop(self) -> bool:
        """Keep nothing on the device any more; return whether anything was.

        A batch that is all activations of a view holds them for as long as it is in use.
        """
        self._keeps = False
        return sum(source.drop() for held in self._held.values() for _, source in held) > 0
