"""The user's own transform: its input, its output, and its name.

torchvision's transforms draw from torch's global generator. It can't be seeded and restored:
views are drawn in threads while the main thread trains, and dropout there draws from the same
generator. So each draw gets a generator of its own, in this thread only.
"""

import enum
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.overrides import TorchFunctionMode

from .._locking import ForkSafeLock
from .._spec import InputSpec
from ._preprocess import preprocess

# The functions and tensor methods of torch that take `generator`.
_TAKES_GENERATOR = frozenset(
    ["rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"]
    + ["binomial", "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "geometric_"]
    + ["cauchy_", "log_normal_", "_sample_dirichlet", "_standard_gamma"]
)
# Those that take none in every supported version, by those that do.
_LIKE: dict[str, Callable] = {
    "rand_like": torch.Tensor.uniform_,
    "randn_like": torch.Tensor.normal_,
    "randint_like": torch.Tensor.random_,
}
_TAKES_NONE = frozenset(
    ["dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "rrelu", "rrelu_"]
    + ["alpha_dropout", "alpha_dropout_", "feature_dropout", "feature_dropout_"]
    + ["feature_alpha_dropout", "feature_alpha_dropout_", "gumbel_softmax"]
    + ["fractional_max_pool2d", "fractional_max_pool3d"]
)

# One thread at a time has Python's and NumPy's global generators to itself.
_global_states = ForkSafeLock(threading.RLock)


class SeededDraws(TorchFunctionMode):
    """Within the block, what this thread draws with torch comes from `seed` alone."""

    def __init__(self, seed: int):
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _TAKES_NONE:
            raise TypeError(f"{name} draws random numbers that can't be seeded; use torch.rand")
        if kwargs.get("generator") is None:
            if name in _LIKE:
                kwargs.pop("generator", None)
                # what stands before and after the first argument: the bounds of integers
                bounds = [kwargs.pop(bound) for bound in ("low", "high") if bound in kwargs]
                first = args[:1] or (kwargs.pop("input"),)
                empty = torch.empty_like(*first, **kwargs)
                return _LIKE[name](empty, *args[1:], *bounds, generator=self._generator)
            if name in _TAKES_GENERATOR:
                kwargs["generator"] = self._generator
        return func(*args, **kwargs)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators inside the block, and put them back.

    All threads share these generators: one block runs at a time, and another thread that
    draws from them meanwhile changes its numbers.
    """
    with _global_states:
        python, numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


_CONTAINERS = (nn.Sequential, nn.ModuleList)
_MAX_VALUES = 1000  # of a tensor that is written out
# Attributes of every module, which are left out of a name while they are empty.
_OF_EVERY_MODULE = vars(nn.Module())


class _NoName(Exception):
    """Raised for a value that no text identifies."""


def transform_name(transform: Any) -> str | None:
    """Return a text that identifies `transform`; None where there is none.

    Only torchvision's own transforms have one, because other code may do anything. The
    versions of the libraries are part of it, because views may change with them.
    """
    try:
        return f"{_describe(transform)} {library_versions()}"
    except _NoName:
        return None


def library_versions() -> str:
    """Return the versions of the libraries, without the part that names a device."""
    import torchvision

    versions = {"torchvision": torchvision.__version__, "torch": torch.__version__}
    return " ".join(f"{name} {str(text).split('+')[0]}" for name, text in versions.items())


def _describe(value: Any) -> str:
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value) in (list, tuple):
        return f"[{', '.join(map(_describe, value))}]"
    if type(value) is dict:
        items = [f"{_describe(key)}: {_describe(item)}" for key, item in value.items()]
        return f"{{{', '.join(items)}}}"
    if type(value) is torch.Tensor and value.numel() <= _MAX_VALUES:
        return f"{value.dtype}{value.tolist()}"
    if isinstance(value, nn.Module) and _is_torchvision_s(value):
        return _describe_module(value)
    raise _NoName


def _is_torchvision_s(module: nn.Module) -> bool:
    from torchvision.transforms import v2

    kind = type(module)
    return kind in _CONTAINERS or getattr(v2, kind.__name__, None) is kind


def _describe_module(module: nn.Module) -> str:
    own = {}
    for name, value in vars(module).items():
        if name not in _OF_EVERY_MODULE or (name == "_modules" and value):
            own[name] = value
        elif name != "training" and value != _OF_EVERY_MODULE[name]:
            raise _NoName  # hooks, parameters, buffers
    parts = [f"{name}={_describe(value)}" for name, value in sorted(own.items())]
    return f"{type(module).__name__}({', '.join(parts)})"


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
class CustomTransform:
    """Calls `transform` on the whole image, and checks and prepares what it returns.

    `draws_with_torch` means that it draws with torch only, as torchvision's own transforms
    do, so that threads need not wait for each other.
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
    """Raise ValueError when a part of a transform shows that it can't be used."""
    from torchvision import transforms as v1
    from torchvision.transforms import v2

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
