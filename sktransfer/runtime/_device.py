"""On which device the frozen part runs."""

import torch


def resolve_device(device: str) -> torch.device:
    """Return the device that a parameter's value stands for.

    "auto" is the first of CUDA, Apple's MPS and the CPU that is there.
    """
    if device == "auto":
        if torch.cuda.is_available():
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
