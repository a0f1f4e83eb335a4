"""The augmentations that have a name: light, medium and trivial."""

import math
from random import Random

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .._spec import InputSpec
from ._preprocess import as_tensor, resized_shape
from ._seeded_draws import SeededDraws

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

# fastai's aug_transforms (docs.fast.ai/vision.augment.html): turns of up to 10 degrees
# and a lighting of 0.2, each in three of four images, corners filled by reflection.
# Hue stays as it is: colour often tells classes apart.
_DEGREES = 10
_LIGHTING = 0.8
_OFTEN = 0.75

# torchvision's presets resample with what the network was trained with; its
# default, the nearest pixel, makes jagged edges that no photograph has.
_TRIVIAL = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)


def light(pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
    """Return a crop about the scale of the evaluation's, in half of the cases mirrored."""
    image = as_tensor(pixels)
    top, left, height, width = draw_crop(*image.shape[1:], spec, rng)
    square = F.resized_crop(
        image,
        top,
        left,
        height,
        width,
        [spec.size, spec.size],
        interpolation=InterpolationMode(spec.interpolation),
        antialias=True,
    )
    if rng.random() < 0.5:
        return F.horizontal_flip(square)
    # a crop of the right size is not resampled, and would still be the user's array
    return square.clone() if height == width == spec.size else square


def medium(pixels: np.ndarray, spec: InputSpec, rng: Random) -> torch.Tensor:
    """Return a light view, turned a little, its lighting and colours changed a little."""
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
        return _TRIVIAL(square)


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
