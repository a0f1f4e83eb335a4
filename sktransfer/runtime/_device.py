"""On which device the frozen part runs, and in which arithmetic."""

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")


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


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16".

    "auto" is bfloat16 where the hardware multiplies it: on a CPU with AVX-512 BF16
    or AMX, on an NVIDIA GPU from compute capability 8.0; float32 elsewhere.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if _has_bfloat16(device) else "float32"


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # The public torch.cpu.get_capabilities() is newer than the lowest torch
        # that is supported.
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return bool(probe())
    return False
