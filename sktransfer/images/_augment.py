"""Random views of an image, which are the same for the same seed."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn

from .._spec import InputSpec
from ._custom_transform import (
    CustomTransform,
    SeededDraws,
    check_transform,
    library_versions,
    transform_name,
)
from ._preprocess import preprocess, resize, resized_shape

# Crops of half the area to all of it are fastai's course's choice for small data
# (RandomResizedCrop(224, min_scale=0.5), github.com/fastai/fastbook, chapter 2): sides
# that differ by a factor of up to 2**0.5. torchvision's default of 0.08 to 1 shows
# objects larger in training than in evaluation, which costs accuracy (FixRes,
# arXiv 1906.06423). Here the same span lies about the scale of the evaluation: a side
# of its square divided or multiplied by up to 2**0.25.
_ZOOM = 2**0.25
# Width by height of a crop: torchvision's RandomResizedCrop, from Inception
# (arXiv 1409.4842, section 6).
_STRETCH = 4 / 3

# fastai's aug_transforms (docs.fast.ai/vision.augment.html): rotations of up to 10 degrees
# and a lighting of 0.2, each in three of four images, corners filled by reflection.
# Hue stays as it is: colour often tells classes apart.
_DEGREES = 10
_LIGHTING = 0.8
_OFTEN = 0.75


@cache
def _trivial() -> nn.Module:
    from torchvision.transforms import v2

    # torchvision's presets resample with what the network was trained with; its
    # default, the nearest pixel, makes jagged edges that no photograph has.
    return v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)


def crop(pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
    """Return a crop about the scale of the evaluation's."""
    rows, columns = pixels.shape[:2]
    top, left, height, width = draw_crop(rows, columns, spec, rng)
    cut = pixels[top : top + height, left : left + width]
    square = torch.from_numpy(resize(cut, [spec.size, spec.size], spec.interpolation))
    # a crop of the right size is not resampled, and would still be the user's array
    return square.clone() if height == width == spec.size else square


def light(pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
    """Return a crop about the scale of the evaluation's, in half of the cases mirrored."""
    square = crop(pixels, spec, rng)
    return _mirror(square) if rng.random() < 0.5 else square


def mirrored(pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
    """Return the square that is evaluated, mirrored left to right."""
    return _mirror(preprocess(pixels, spec))


def _mirror(square: torch.Tensor) -> torch.Tensor:
    from torchvision.transforms.v2 import functional as F

    return F.horizontal_flip(square)


def medium(pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
    """Return a light view, turned a little, its lighting and colours changed a little."""
    from torchvision.transforms.v2 import functional as F

    square = light(pixels, spec, rng)
    if rng.random() < _OFTEN:
        square = _turn(square, _DEGREES * _between_minus_one_and_one(rng))
    if rng.random() < _OFTEN:
        for adjust in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation):
            square = adjust(square, _LIGHTING ** _between_minus_one_and_one(rng))
    return square


def trivial(pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
    """Return a light view with one strong change at random, by TrivialAugmentWide."""
    square = light(pixels, spec, rng)
    with SeededDraws(int(rng.random() * 2**53)):
        return _trivial()(square)


def draw_crop(height: int, width: int, spec: InputSpec, rng: Random) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop of an image, in its pixels.

    It is drawn in the picture that the evaluation takes its middle square from, and
    carried over to the image, which is then resampled once. A crop too large for the
    picture is made smaller: nothing is shown that is not in the image.
    """
    rows, columns = resized_shape(height, width, spec)
    side = spec.size * _ZOOM ** _between_minus_one_and_one(rng)
    stretch = _STRETCH ** (_between_minus_one_and_one(rng) / 2)
    fit = min(1, rows / (side / stretch), columns / (side * stretch))
    crop_height, crop_width = fit * side / stretch, fit * side * stretch
    top = rng.random() * (rows - crop_height)
    left = rng.random() * (columns - crop_width)
    first_row, n_rows = _whole_pixels(top, crop_height, height / rows, height)
    first_column, n_columns = _whole_pixels(left, crop_width, width / columns, width)
    return first_row, first_column, n_rows, n_columns


def _whole_pixels(start: float, length: float, scale: float, n_pixels: int) -> tuple[int, int]:
    first = min(round(start * scale), n_pixels - 1)
    end = min(max(round((start + length) * scale), first + 1), n_pixels)
    return first, end - first


def _turn(square: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turn about the middle; what comes in at the corners is mirrored at the border."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    size = square.shape[-1]
    # half of what the square's bounding box grows by when it is turned
    angle = math.radians(_DEGREES)
    margin = min(size - 1, math.ceil(size * (math.cos(angle) + math.sin(angle) - 1) / 2))
    padded = F.pad(square, [margin], padding_mode="reflect")
    turned = F.rotate(padded, degrees, interpolation=InterpolationMode.BILINEAR)
    return F.center_crop(turned, [size, size])


def _between_minus_one_and_one(rng: Random) -> float:
    # random() alone is promised to give the same numbers in later versions of Python
    return 2 * rng.random() - 1


Draw = Callable[[np.ndarray, InputSpec, Random], torch.Tensor]

# Part of each name: raise it when the recipe gives other views.
# 2: views are resampled as the evaluation is, in fixed-point numbers.
_VERSION = 2
_RECIPES: dict[str, Draw] = {
    "crop": crop,
    "light": light,
    "medium": medium,
    "trivial": trivial,
}
_ALLOWED = (
    "'auto', None, 'crop', 'light', 'medium', 'trivial', or a transform: a callable that takes an "
    "image as a uint8 tensor (3, H, W), such as torchvision.transforms.v2 has"
)


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random.

    Attributes
    ----------
    name : str or None
        A text that identifies everything that changes a view, except the image, the
        number and the seed. None for a transform without such a text, whose views are
        not stored.
    draw : callable
        Takes uint8 pixels (H, W, 3), the preprocessing and a generator; returns a view.
    """

    name: str | None
    draw: Draw


# One view of each image: it tells whether images may be mirrored, and is predicted where they may.
MIRRORED = Augmentation(f"mirrored:{_VERSION}", mirrored)


@dataclass(frozen=True)
class AugmentedView:
    """The view with this number of any image.

    It depends only on the fields, the image, its digest and the preprocessing, and not on
    thread, process, order or global random states, which it does not change. Views of one
    number differ between images; those of equal images are equal.
    """

    augmentation: Augmentation
    number: int
    seed: int

    def key(self) -> str | None:
        """Return a text that identifies this view of an image; None if there is none."""
        name = self.augmentation.name
        return None if name is None else f"{name}|{int(self.number)}|{int(self.seed)}"

    def pixels(self, pixels: np.ndarray, spec: InputSpec, digest: bytes) -> torch.Tensor:
        """Return the view of uint8 pixels (H, W, 3) as uint8 (3, size, size)."""
        what = b"%d|%d|%b" % (self.number, self.seed, digest)
        rng = Random(int.from_bytes(hashlib.blake2b(what, digest_size=16).digest()))
        return self.augmentation.draw(pixels, spec, rng)


def make_augmentation(augment: Any) -> Augmentation | None:
    """Return the augmentation for the parameter `augment`; None for None.

    Raises
    ------
    ValueError
        When it is not an augmentation, or a transform that can't be used.
    """
    if augment is None:
        return None
    if isinstance(augment, str) and augment in _RECIPES:
        # torchvision turns and colours the views of "medium" and "trivial"
        return Augmentation(f"{augment}:{_VERSION} {library_versions()}", _RECIPES[augment])
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
    return Augmentation(name, CustomTransform(augment, draws_with_torch=name is not None))
