"""In which arithmetic a frozen network runs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ._fold import fold_batch_norms

PRECISIONS = ("auto", "float32", "bfloat16")

# Rows that turn further than this from those in float32 are other rows. Narrow layers,
# such as MobileNetV2's, lose most to rounding (tests/test_main_job.py).
_LEAST_COSINE = 0.999
_N_TRIALS = 4

# Outcomes by digest, size and kind of device; strings only, so no network is kept alive
_tried: dict[tuple[str, int, str], str] = {}


def resolve_precision(
    precision: str, device: torch.device, backbone: str, size: int, rows: Callable[[], nn.Module]
) -> str:
    """Return "float32" or "bfloat16".

    "auto" is bfloat16 where the hardware multiplies it and rows keep their direction: on a
    few drawn images its rows keep the direction that they have in float32.

    Parameters
    ----------
    precision : one of PRECISIONS
    device : torch.device
    backbone : str
        Digest of the backbone; the trial is made once for each.
    size : int
        Side of the network's input, in pixels.
    rows : callable
        Returns the module from 8-bit images to rows.
    """
    if precision != "auto":
        return precision
    if not _has_bfloat16(device):
        return "float32"
    key = (backbone, size, device.type)
    if key not in _tried:
        _tried[key] = "bfloat16" if _is_accurate_in_bfloat16(rows().eval(), size) else "float32"
    return _tried[key]


@torch.inference_mode()
def _is_accurate_in_bfloat16(network: nn.Module, size: int) -> bool:
    # on the CPU, wherever the network will run: bfloat16 rounds alike on all hardware
    images = _draw(size)
    network = fold_batch_norms(network, size)  # as it will run
    exact = network(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(images)
    cosine = F.cosine_similarity(rough.float(), exact, dim=1)
    return bool((cosine > _LEAST_COSINE).all())


def _draw(size: int) -> torch.Tensor:
    """Return 8-bit images (n, 3, size, size) of random blots, coarse ones strongest."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(_N_TRIALS, 3, size, size)
    for n_blots in (2, 4, 8, 16, 32, 64):
        blots = torch.rand(_N_TRIALS, 3, n_blots, n_blots, generator=generator) - 0.5
        images += F.interpolate(blots, size=(size, size), mode="bilinear") / n_blots**0.5
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return ((images - low) / (high - low) * 255).round().to(torch.uint8)


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16: AVX-512 BF16, AMX, or CUDA from 8.0."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # The public torch.cpu.get_capabilities() is newer than the lowest torch
        # that is supported.
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return bool(probe())
    return False
