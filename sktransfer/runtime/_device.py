"""The devices on which networks run."""

import multiprocessing

import torch

from ._gpu_seats import own_gpu


def resolve_device(device: str) -> torch.device:
    """Return the device that a parameter's value stands for.

    "auto" is the first available one of CUDA, Apple's MPS and the CPU. A process that was
    forked from one that uses a GPU has no CUDA. CUDA without a number stands for all GPUs that
    the process sees; in a worker process, for one that it shares with as few as can be.
    """
    lost_by_fork = torch.cuda._is_in_bad_fork()  # CUDA itself would say it only at first use
    if device == "auto":
        if torch.cuda.is_available() and not lost_by_fork:
            return _of_this_process()
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps', got {device!r}"
        ) from None
    if resolved.type == "cuda" and lost_by_fork:
        raise ValueError(
            f"device={device!r} can't be used in a process that was forked from one at work on a "
            "GPU; start processes afresh, as joblib's backend 'loky' and dask do, or use "
            "device='cpu'"
        )
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available()
        and (resolved.index is None or resolved.index < torch.cuda.device_count()),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(resolved.type, False):
        raise ValueError(
            f"device={device!r} is not on this machine; use device='auto', or one of "
            f"{', '.join(repr(kind) for kind, is_there in there.items() if is_there)}"
        )
    if resolved.type == "cuda" and resolved.index is None:
        return _of_this_process()
    return resolved


def _of_this_process() -> torch.device:
    """Return the GPU of a worker process; of others, the device without a number."""
    is_worker = multiprocessing.parent_process() is not None
    if is_worker and torch.cuda.device_count() > 1:
        return own_gpu()
    return torch.device("cuda")


def extraction_devices(device: torch.device) -> list[torch.device]:
    """Return the devices that divide the images of an extraction.

    CUDA without a number is the current GPU and all others of its model: another model rounds
    otherwise, and a row must not depend on which of them computed it.
    """
    if device.type != "cuda" or device.index is not None:
        return [device]
    current = torch.cuda.current_device()
    model = torch.cuda.get_device_name(current)
    same = [i for i in range(torch.cuda.device_count()) if torch.cuda.get_device_name(i) == model]
    return [torch.device("cuda", i) for i in sorted(same, key=lambda i: (i != current, i))]


def one_device(device: torch.device) -> torch.device:
    """Return the device that trains and predicts: of several GPUs, the current one."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())
