"""The arithmetic in which a frozen network runs."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .._spec import BackboneSpec
from ..backbones._backbone import Backbone
from ..store._base import ActivationStore
from ..store._key import name_of
from ._fold import folded_stages

PRECISIONS = ("auto", "float32", "bfloat16")

# Least cosine of rows in bfloat16 and in float32 for "auto" to choose bfloat16. Networks
# with narrow layers, such as MobileNetV2, lose most to rounding (tests/test_main_job.py).
_LEAST_COSINE = 0.999
_N_TRIALS = 4

# Outcomes by name; strings only, so that no network stays in memory
_tried: dict[bytes, str] = {}
_TRIAL_VERSION = 1  # raise it where the same network would have another outcome
_BYTES = 16  # of an outcome in a store, which keeps it as the digest of a file


def resolve_precision(
    precision: str,
    device: torch.device,
    backbone: Backbone,
    size: int,
    open_store: Callable[[], ActivationStore | None] = lambda: None,
) -> str:
    """Return "float32" or "bfloat16"; called by `fit` alone.

    "auto" is bfloat16 where the hardware multiplies it and where, on a few drawn images,
    rows keep the direction that they have in float32. It does not depend on the depth, so
    that estimators share rows.

    Parameters
    ----------
    precision : one of PRECISIONS
    device : torch.device
    backbone : Backbone
        As it was loaded; it is tried once for each backbone.
    size : int
        Side of the network's input, in pixels.
    open_store : callable
        Returns the store that may have the outcome, with rows in the precision that it led to.
        It is asked, and nothing is written to it.
    """
    if precision != "auto":
        return precision
    if not _has_bfloat16(device):
        return "float32"
    name = _trial(backbone.spec, size, device)
    if name not in _tried:
        store = open_store()
        (known,) = [None] if store is None else store.get_digests([name])
        outcome = "" if known is None else known.rstrip(b"\0").decode("ascii", "replace")
        if outcome not in PRECISIONS:
            outcome = "bfloat16" if _is_accurate_in_bfloat16(backbone, size) else "float32"
        _tried[name] = outcome
    return _tried[name]


def outcomes_to_store(spec: BackboneSpec, size: int, device: torch.device) -> dict[bytes, bytes]:
    """Return what a store of rows is to hold of trials in this process: by name, 16 bytes each.

    Other processes, whose rows are stored, need no trial then.
    """
    name = _trial(spec, size, device)
    return {name: _tried[name].encode().ljust(_BYTES, b"\0")} if name in _tried else {}


def _trial(spec: BackboneSpec, size: int, device: torch.device) -> bytes:
    """Return a name of everything that the outcome depends on."""
    torch_version = ".".join(torch.__version__.split(".")[:2])
    what = ("precision", _TRIAL_VERSION, _LEAST_COSINE, _N_TRIALS, torch_version)
    return name_of(*what, spec.digest, spec.code, size, device.type)


def arithmetic(precision: str, device: torch.device) -> dict[str, str]:
    """Return what changes the digits of a row beside the network: an ingredient of its key.

    The same network in float32 gives other digits on another kind of device, and where
    products of float32 are rounded to TF32 or bfloat16.
    """
    return {"precision": precision, "device": device.type, "float32": _float32_products(device)}


def _float32_products(device: torch.device) -> str:
    """Return how torch is set to multiply float32 on a kind of device."""
    names = {
        "cpu": ("mkldnn.matmul", "mkldnn.conv"),
        "cuda": ("cuda.matmul", "cudnn.conv"),
    }.get(device.type, ())
    settings = [_setting(attrgetter(f"{name}.fp32_precision")) for name in names]
    # the older setting; newer versions of torch refuse to read both
    settings.append(_setting(lambda _: torch.get_float32_matmul_precision()))
    if device.type == "cuda":
        settings.append(str(_setting(attrgetter("cudnn.allow_tf32"))))
        # sums of products of bfloat16
        reduced = "cuda.matmul.allow_bf16_reduced_precision_reduction"
        settings.append(_setting(attrgetter(reduced)))
        # GPUs before Ampere have no TF32, whatever is allowed
        settings.append("tf32" if torch.cuda.get_device_capability(device) >= (8, 0) else "exact")
    return " ".join(settings)


def _setting(read: Callable[[Any], Any]) -> str:
    try:
        value = str(read(torch.backends))
        return "ieee" if value == "none" else value  # not set: full float32
    except (AttributeError, RuntimeError):  # not in this version of torch, or set in the newer way
        return "-"


@torch.inference_mode()
def _is_accurate_in_bfloat16(backbone: Backbone, size: int) -> bool:
    # on the CPU, wherever the network will run: bfloat16 rounds alike on all hardware
    images, pooling = _draw(size), backbone.pooling("auto")
    # small images may only pass the first stages
    n_stages = len(backbone.stages)
    while n_stages and not backbone.takes(size, n_stages, pooling):
        n_stages -= 1
    stages = folded_stages(backbone, n_stages, size)  # as in extraction
    pool = backbone.pool(pooling, n_stages)
    network = nn.Sequential(backbone.normalise(), *stages, pool)
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
    """Return whether the hardware multiplies bfloat16: AVX-512 BF16, AMX, or CUDA from 8.0."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # The public torch.cpu.get_capabilities() is newer than the lowest torch
        # that is supported.
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return bool(probe())
    return False
