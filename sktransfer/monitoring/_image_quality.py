"""Brightness, contrast, sharpness and size of images."""

import numpy as np
from PIL import Image
from scipy.ndimage import laplace

from ..hygiene._reading import for_each
from ..images._collection import ImageCollection, ImageReference
from ..images._decode import DecodeError

MEASURES = ("brightness", "contrast", "sharpness", "size")

# Pixels of the longer side that are measured: what is finer than that, networks do not see
_SIDE = 256


def quality_of(images: ImageCollection, n_jobs: int | None) -> np.ndarray:
    """Return the measures (n_images, n_measures) of images; NaN for those that can't be read.

    - brightness: mean of the grey image, from 0 to 1.
    - contrast: its standard deviation.
    - sharpness: standard deviation of its second differences, relative to the contrast. A
      blurred image has less of it, a noisy one more.
    - size: pixels, the root of width times height.
    """
    found = for_each(images, range(len(images)), _measure, n_jobs)
    nothing = np.full(len(MEASURES), np.nan)
    return np.stack([nothing if isinstance(one, DecodeError) else one for one in found])


def _measure(image: ImageReference) -> np.ndarray:
    pixels = image.read()
    height, width = pixels.shape[:2]
    grey = Image.fromarray(pixels).convert("L")
    if max(grey.size) > _SIDE:
        grey.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64) / 255
    contrast = values.std()
    sharpness = laplace(values).std() / contrast if contrast else 0.0
    return np.array([values.mean(), contrast, sharpness, np.sqrt(width * height)])
