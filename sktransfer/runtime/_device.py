"""The device on which networks run."""

import torch


def resolve_device(device: str) -> torch.device:
    """Return the device that a parameter's value stands for.

    "auto" is the first available one of CUDA, Apple's MPS and the CPU. A process that was
    forked from one that uses a GPU has no CUDA.
    """
    lost_by_fork = torch.cuda._is_in_bad_fork()  # CUDA itself would say it only at first use
    if device == "auto":
        if torch.cuda.is_available() and not lost_by_fork:
            return torch.device("cuda")
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
    return resolved
