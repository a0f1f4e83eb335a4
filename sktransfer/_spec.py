"""Records of backbones and fitted plans: plain values, without a network."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes the input of a network.

    The image is resized so that its shorter side has `resize` pixels, and the
    middle square of `size` pixels is taken. With `crop` "squash" both sides are
    resized, so that the image is shown whole and not in its proportions. Its values
    in [0, 1] have `mean` subtracted and are divided by `std`, per channel.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    crop: str = "center"

    def at(self, size: int | None) -> "InputSpec":
        """Return the same preprocessing for another square of `size` pixels."""
        if size is None or size == self.size:
            return self
        return replace(self, size=size, resize=round(self.resize * size / self.size))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "InputSpec":
        """Read the numbers of a backbone file."""
        return cls(
            size=int(values["size"]),
            resize=int(values["resize"]),
            mean=_of_channels("mean", values["mean"]),
            std=_of_channels("std", values["std"]),
            interpolation=str(values["interpolation"]),
            crop=str(values.get("crop", "center")),
        )


def _of_channels(name: str, values: Any) -> tuple[float, float, float]:
    if not hasattr(values, "__len__") or len(values) != 3:
        raise ValueError(
            f"input[{name!r}] must hold three numbers, one each for red, green and blue, "
            f"got {values!r}"
        )
    red, green, blue = values
    return float(red), float(green), float(blue)


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone is: architecture, weights, preprocessing and stages.

    `digest` is computed from the architecture and the values of its weights, so two
    files with the same content are one backbone, and a changed file is another.
    `code` is a digest of what the network computes with them, and of where each stage
    ends: two versions of a library may cut one architecture at different places.
    """

    name: str
    architecture: str
    params: tuple[tuple[str, Any], ...]
    weights: str | None
    digest: str
    input: InputSpec
    stages: tuple[str, ...]
    source: str
    licence: str
    code: str = ""


@dataclass(frozen=True)
class FittedPlan:
    """What `fit` decided about the frozen stages; later calls read it and decide nothing.

    Attributes
    ----------
    backbone : BackboneSpec
    input : InputSpec
        The preprocessing, for the size of image that is used.
    depths : tuple of int
        The numbers of stages after which an activation is taken; rows are side by side.
    pooling : str or None
        How an activation becomes a row; None where it is used as it is.
    precision : str
        "float32" or "bfloat16".
    """

    backbone: BackboneSpec
    input: InputSpec
    depths: tuple[int, ...]
    pooling: str | None
    precision: str


@dataclass(frozen=True)
class WeightsOffer:
    """Weights on offer for an architecture, as their source describes them.

    Attributes
    ----------
    name : str
        What ``weights=`` takes.
    location : str
        Their address or path.
    input : InputSpec
        The preprocessing that they were trained with.
    licence : str
        As their source states it.
    top1 : float or None
        ImageNet-1k accuracy in percent; None where the source publishes none.
    n_bytes : int or None
        Size of the file; None where it is not known without asking the source.
    params : tuple of (str, object)
        What the architecture's constructor needs for them, such as an image size.
    """

    name: str
    location: str
    input: InputSpec
    licence: str
    top1: float | None = None
    n_bytes: int | None = None
    params: tuple[tuple[str, Any], ...] = ()
