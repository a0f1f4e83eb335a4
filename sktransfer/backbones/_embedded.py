"""The backbone that ships with the package."""

import os
from importlib.resources import files
from typing import Any

from torch import nn

from .._spec import InputSpec, WeightsOffer
from ._architecture import Anatomy, Architecture
from ._file import read_passport, read_tensors
from ._weights import load_strictly
from .embedded._mini import MiniNet

_FILE = files(__package__).joinpath("embedded", "mini.safetensors")
# ImageNet's mean and deviation, as benchmarks/train_mini.py has them
_INPUT = InputSpec(
    size=64,
    resize=64,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
_ANATOMY = Anatomy(
    stages={name: (name,) for name in ("stem", "stage1", "stage2", "stage3", "stage4")},
    head=("fc.",),
)


def names() -> tuple[str, ...]:
    return ("mini",)


def architecture(name: str) -> Architecture | None:
    """Return the embedded architecture of that name, None where there is none."""
    if name not in names():
        return None
    return Architecture(
        name=name,
        source="embedded",
        build=MiniNet,
        anatomy=lambda model: _ANATOMY,
        input=lambda: _offer().input if _FILE.is_file() else _INPUT,
        offers=lambda: {"CIFAR10": _offer()} if _FILE.is_file() else {},
        pretrained=_pretrained,
    )


def _offer() -> WeightsOffer:
    path = os.fspath(_FILE)
    passport = read_passport(path)
    return WeightsOffer(
        name="CIFAR10",
        location=path,
        input=InputSpec.from_mapping(passport["input"]),
        licence=passport["licence"],
        n_bytes=0,  # to download
    )


def _pretrained(
    architecture: Architecture, offer: WeightsOffer, params: dict[str, Any]
) -> nn.Module:
    model = architecture.empty(params)
    load_strictly(
        model, read_tensors(offer.location), _ANATOMY.head, f"backbone={architecture.name!r}"
    )
    return model
