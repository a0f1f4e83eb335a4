"""Copies of networks on a device: one of each, for as long as a call lasts.

A network that several threads use is not moved: another device gets a copy. A fit extracts many
times, once for each random view, and a search fits many times. They open a block around it, and
the copies stay until the outermost block ends. Then they are dropped, and the memory that torch
caches on the device is given back, once.

A search opens none: with a store its later fits find the rows of the first, and no network goes to
the device for them.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .._locking import ForkSafeLock
from ._memory import release_cached

_CPU = torch.device("cpu")
_lock = ForkSafeLock()
_n_open = 0
# by the module and the device; the module too, so that its id is not given to another
_kept: dict[tuple[int, str], tuple[nn.Module, nn.Module]] = {}
_used: dict[str, torch.device] = {}  # by kind


@contextmanager
def device_call(device: torch.device = _CPU) -> Iterator[None]:
    """Keep copies on devices, and what torch caches there, until the outermost block ends.

    `device` is one that the block uses; those with copies are known.
    """
    global _n_open
    with _lock:
        _n_open += 1
        if device.type != "cpu":
            _used[device.type] = device
    try:
        yield
    finally:
        with _lock:
            _n_open -= 1
            devices = [] if _n_open else list(_used.values())
            if not _n_open:
                _kept.clear()
                _used.clear()
        for used in devices:
            release_cached(used)


def kept_copy(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module on a device: itself if it is there, or the copy of this call.

    Outside a `device_call` each call makes a copy.
    """
    if is_on(module, device):
        return module
    name = id(module), str(device)
    with _lock:
        known = _kept.get(name)
        if known is None:
            known = module, copy_on(module, device)
            if _n_open:
                _kept[name] = known
                _used[device.type] = device
        return known[1]


def is_on(module: nn.Module, device: torch.device) -> bool:
    """Tell whether all parameters and buffers of a module are on a device."""
    tensors = [*module.parameters(), *module.buffers()]
    return all(tensor.device == device for tensor in tensors)


def copy_on(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a module on a device; there is no second copy where it is now."""
    moved: dict[int, torch.Tensor] = {}
    for parameter in module.parameters():
        on_device = parameter.detach().to(device)
        moved[id(parameter)] = nn.Parameter(on_device, parameter.requires_grad)
    for buffer in module.buffers():
        moved[id(buffer)] = buffer.to(device)
    return copy.deepcopy(module, moved)  # which takes as copied what it finds there
