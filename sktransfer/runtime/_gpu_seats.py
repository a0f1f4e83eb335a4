"""A GPU for each worker process: the one that fewest of the user's other workers have.

A worker of a search holds a lock on a file, a seat at its GPU, until it ends. It takes a seat of
the lowest row in which one is free: no GPU has two workers before each has one. It needs to know
neither how many workers there are nor who started them.
"""

from functools import cache
from itertools import count

import torch

from .._locking import ForkSafeLock
from ._gpu_lock import close_lock_file, gpu_name, is_locked_now, open_lock_file, own_folder

_choosing = ForkSafeLock()


def own_gpu() -> torch.device:
    """Return the GPU of this process, chosen when it is first asked for."""
    with _choosing:  # threads that ask at the same time would take a seat each
        return _chosen()


@cache  # for the life of the process
def _chosen() -> torch.device:
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    folder, names = own_folder(), [gpu_name(device) for device in devices]
    for row in count():
        for device, name in zip(devices, names, strict=True):
            file = open_lock_file(folder / f"{name}-seat-{row}.lock")
            if is_locked_now(file):  # it stays open
                return device
            close_lock_file(file)
    raise AssertionError("rows of seats have no end")
