"""Views of an image: it, changed at random, the same again whenever it is asked for."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch

from .._spec import InputSpec
from ._own_transform import OwnTransform, check_transform
from ._recipes import light, medium, trivial
from ._transform_name import library_versions, transform_name

Draw = Callable[[np.ndarray, InputSpec, Random], torch.Tensor]

# Part of each name: raise it when the recipe gives other views. What torchvision draws
# may change with its version, what is drawn here does not.
_VERSION = 1
_RECIPES: dict[str, Draw] = {"light": light, "medium": medium, "trivial": trivial}
_ALLOWED = (
    "None, 'light', 'medium', 'trivial', or a transform: a callable that takes an image "
    "as a uint8 tensor (3, H, W), such as torchvision.transforms.v2 has"
)


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random.

    Attributes
    ----------
    name : str or None
        States all that changes a view, beside the image, the number and the seed.
        None for a transform that nothing tells from another: its views can't be kept
        for another run.
    draw : callable
        From uint8 pixels (H, W, 3), the preprocessing and random numbers to a view.
    """

    name: str | None
    draw: Draw


@dataclass(frozen=True)
class View:
    """The view with this number of any image.

    It depends on the fields, on the image and its digest and on the preprocessing
    alone: not on thread, process, order or global random states, and it leaves these
    as they were. Views of one number differ from image to image; those of equal images
    are equal.
    """

    augmentation: Augmentation
    number: int
    seed: int

    def key(self) -> str | None:
        """Return what tells this view of an image from all others; None if nothing can."""
        name = self.augmentation.name
        return None if name is None else f"{name}|{int(self.number)}|{int(self.seed)}"

    def pixels(self, pixels: np.ndarray, spec: InputSpec, digest: bytes) -> torch.Tensor:
        """Return the view of uint8 pixels (H, W, 3) as uint8 (3, size, size)."""
        what = b"%d|%d|%b" % (self.number, self.seed, digest)
        rng = Random(int.from_bytes(hashlib.blake2b(what, digest_size=16).digest()))
        return self.augmentation.draw(pixels, spec, rng)


def make_augmentation(augment: Any) -> Augmentation | None:
    """Return what the parameter `augment` says; None is none.

    Raises
    ------
    ValueError
        When it is nothing that augments, or a transform that can't be used.
    """
    if augment is None:
        return None
    if isinstance(augment, str) and augment in _RECIPES:
        name = f"{augment}:{_VERSION}"
        if augment == "trivial":
            name = f"{name} {library_versions()}"
        return Augmentation(name, _RECIPES[augment])
    if isinstance(augment, type) and callable(augment):
        raise ValueError(
            f"augment must be {_ALLOWED}; got the class {augment.__name__}, "
            f"pass {augment.__name__}(...)"
        )
    if isinstance(augment, (list, tuple)):
        raise ValueError(
            f"augment must be {_ALLOWED}; got a {type(augment).__name__}, "
            "pass v2.Compose([...]) of it"
        )
    if not callable(augment):
        raise ValueError(f"augment must be {_ALLOWED}; got {augment!r}")
    check_transform(augment)
    name = transform_name(augment)
    return Augmentation(name, OwnTransform(augment, draws_with_torch=name is not None))
