"""A text that tells one of torchvision's transforms from every other.

`repr` would not do: that of RandomApply and RandomChoice leaves the probabilities out,
others leave out tensors and dicts.
"""

import enum
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

_CONTAINERS = (nn.Sequential, nn.ModuleList)
_MAX_VALUES = 1000  # of a tensor that is written out
# What each module has, and says nothing about it unless somebody put something there.
_OF_EVERY_MODULE = vars(nn.Module())


class _NoName(Exception):
    """Something that no text tells from all others."""


def transform_name(transform: Any) -> str | None:
    """Return a text that states all of `transform`; None where that can't be told.

    It can be for torchvision's own transforms alone: code of others may do anything.
    The versions are part of it, as what is drawn may change with them.
    """
    try:
        return f"{_describe(transform)} {library_versions()}"
    except _NoName:
        return None


def library_versions() -> str:
    """Return which libraries drew; not the part of a version that names a device."""
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
