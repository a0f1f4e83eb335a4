"""The user's own transform: what it is given, and what it may return."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from .._spec import InputSpec
from ._preprocess import preprocess
from ._seeded_draws import SeededDraws, seeded_globals

_WANTED = "an image: a tensor (3, H, W) of uint8, or of floats in [0, 1]"
_NO_NORMALIZE = (
    "leave v2.Normalize out of augment, each backbone's own mean and std are applied after it"
)
# Bicubic resizing of floats goes beyond [0, 1]. torch's weights (a = -0.75) half way
# between two pixels are -3/32, 19/32, 19/32, -3/32: where the positive ones meet white and
# the others black, in two dimensions, (38/32)**2 + (6/32)**2 = 1.45. Normalised images go
# to -1 and beyond.
_OVERSHOOT = 0.5


@dataclass(frozen=True)
class OwnTransform:
    """Calls `transform` on the whole image, and checks and prepares what it returns.

    `draws_with_torch` says that all its draws are torch's, as in torchvision's own
    transforms, so that threads need not wait for each other.
    """

    transform: Callable[[torch.Tensor], torch.Tensor]
    draws_with_torch: bool

    def __call__(self, pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
        # A copy in one piece: the transform may write to it, or take views of it.
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
        seed = int(rng.random() * 2**53)
        others = nullcontext() if self.draws_with_torch else seeded_globals(seed)
        try:
            with others, SeededDraws(seed), torch.no_grad():
                result = self.transform(image)
        except Exception as error:
            raise ValueError(
                f"augment failed on an image of shape {(3, *pixels.shape[:2])}, a uint8 "
                f"tensor: {type(error).__name__}: {error}"
            ) from error
        result = _as_8_bit(result)
        if result.shape[1:] == (spec.size, spec.size):
            return result
        return preprocess(result.permute(1, 2, 0).numpy(), spec)


def check_transform(transform: Any) -> None:
    """Raise ValueError when a transform can't be used, as far as its parts tell."""
    for part in _parts(transform):
        if isinstance(part, (v2.Normalize, v1.Normalize)):
            raise ValueError(_NO_NORMALIZE)
        if isinstance(part, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            raise ValueError(
                "what a scripted transform draws can't be seeded; pass augment as it was "
                "before torch.jit.script"
            )


def _parts(transform: Any) -> Iterator[Any]:
    """Yield a transform and those inside it; Compose keeps its own in a plain list."""
    yield transform
    inner = getattr(transform, "transforms", None)
    children = list(transform.children()) if isinstance(transform, nn.Module) else []
    for part in (*(inner if isinstance(inner, (list, tuple)) else ()), *children):
        yield from _parts(part)


def _as_8_bit(result: Any) -> torch.Tensor:
    """Return what a transform returned as uint8 (3, H, W)."""
    if isinstance(result, Image.Image):
        raise ValueError(f"augment must return {_WANTED}; got a PIL image, add v2.PILToTensor()")
    if not isinstance(result, torch.Tensor):
        raise ValueError(f"augment must return {_WANTED}; got {type(result).__name__}")
    result = result.detach().as_subclass(torch.Tensor).cpu()
    if result.ndim != 3 or result.shape[0] != 3 or result.numel() == 0:
        raise ValueError(f"augment must return {_WANTED}; got shape {tuple(result.shape)}")
    if result.dtype == torch.uint8:
        return result
    if not result.is_floating_point():
        raise ValueError(f"augment must return {_WANTED}; got {result.dtype}")
    low, high = result.min().item(), result.max().item()
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # NaN is neither
        raise ValueError(
            f"augment must return {_WANTED}; got floats from {low:.3g} to {high:.3g}. Scale "
            f"them with v2.ToDtype(torch.float32, scale=True), and {_NO_NORMALIZE}"
        )
    return result.float().clamp(0, 1).mul(255).round().to(torch.uint8)
