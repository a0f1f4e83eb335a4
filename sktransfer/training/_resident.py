"""What lives on the device for a whole fit, and what is copied to it batch by batch."""

import torch

# Share of a device's free memory that data may take; the rest is for what a step needs.
_SHARE = 0.5


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
