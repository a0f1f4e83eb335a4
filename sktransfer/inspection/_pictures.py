"""Each image, read once: its thumbnail, its quality, and what tells duplicates."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..exceptions import DecodeError, ImageFailure
from ..hygiene._hash import hash_image
from ..hygiene._reading import for_each
from ..images._collection import ImageReference
from ..images._thumbnail import Thumbnail, thumbnail

# Sharpness is measured at this size, so that it can be compared over images. Smaller ones
# are not enlarged.
_MEASURED_SIDE = 256
_SMALLEST = 3  # pixels of a side that has a second difference


@dataclass(frozen=True, slots=True)
class Picture:
    """What was read of one image.

    Attributes
    ----------
    width, height : int
        Pixels, upright.
    brightness : float
        Mean grey level, 0 is black and 1 is white.
    sharpness : float
        Standard deviation of the Laplacian of the grey image, in levels of 0 to 255.
    digest : bytes
        Of its content.
    hash : ndarray of shape (64,), int8
        The perceptual hash.
    thumbnail : Thumbnail or None
        None where none was asked for.
    """

    width: int
    height: int
    brightness: float
    sharpness: float
    digest: bytes
    hash: np.ndarray
    thumbnail: Thumbnail | None

    @property
    def size(self) -> int:
        """Pixels of the shorter side."""
        return min(self.width, self.height)


def read_pictures(
    images: Sequence[ImageReference], shown: Collection[int], side: int, n_jobs: int | None
) -> list[Picture | None]:
    """Return what is read of each image; None where it can't be read.

    Parameters
    ----------
    images : sequence of ImageReference
    shown : collection of int
        Positions of the images that get a thumbnail.
    side : int
        Pixels of the longer side of thumbnails.
    n_jobs : int or None
        Threads that read images. None is one for each core.
    """
    pictures: list[Picture | None] = [None] * len(images)
    shown = set(shown)
    for part, wanted in (
        (sorted(shown), side),
        ([i for i in range(len(images)) if i not in shown], None),
    ):

        def read(image: ImageReference, wanted: int | None = wanted) -> Picture:
            return _read(image, wanted)

        for position, found in zip(part, for_each(images, part, read, n_jobs), strict=True):
            pictures[position] = None if isinstance(found, DecodeError) else found
    return pictures


def failures_in(images: Sequence[ImageReference]) -> list[ImageFailure]:
    """Return every image that can't be read."""
    found = for_each(images, range(len(images)), _can_be_read, None)
    return [
        ImageFailure(position, images[position].describe(), str(error))
        for position, error in enumerate(found)
        if isinstance(error, DecodeError)
    ]


def _can_be_read(image: ImageReference) -> bool:
    image.read()
    return True


def _read(image: ImageReference, side: int | None) -> Picture:
    loaded = image.load()
    pixels = loaded.decode(lambda reserved: None)
    grey = Image.fromarray(pixels).convert("L")
    grey.thumbnail((_MEASURED_SIDE, _MEASURED_SIDE), Image.Resampling.BOX)
    levels = np.asarray(grey, dtype=np.float32)
    return Picture(
        width=pixels.shape[1],
        height=pixels.shape[0],
        brightness=float(levels.mean()) / 255,
        sharpness=_sharpness(levels),
        digest=loaded.digest,
        hash=hash_image(pixels),
        thumbnail=None if side is None else thumbnail(pixels, side),
    )


def _sharpness(levels: np.ndarray) -> float:
    if min(levels.shape) < _SMALLEST:
        return 0.0
    middle = levels[1:-1, 1:-1]
    around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    return float((around - 4 * middle).std())
