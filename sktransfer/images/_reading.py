"""One image as the estimators see it, for those who run a network without them."""

from typing import Any

import numpy as np

from ..exceptions import DecodeError, ImageFailure, ImageReadError
from ._collection import as_images
from ._colour import checked_range


def read_image(image: Any, *, pixel_range: tuple[float, float] | None = None) -> np.ndarray:
    """Return the pixels of one image as the estimators see them, before the resizing.

    An encoded image is turned upright by its EXIF orientation, converted to sRGB by its
    embedded colour profile, and put on white where it is transparent; other pixels than these
    give other predictions. They are what a file of `to_onnx` takes.

    Parameters
    ----------
    image : path, bytes, PIL image, dict or array
        One image of any kind that ``X`` can hold.
    pixel_range : tuple of float, default=None
        As in the estimators: what black and white are in arrays, and in files of more than 8
        bits.

    Returns
    -------
    pixels : ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ImageReadError
        When the image can't be read.
    TypeError, ValueError
        When `image` is of no such kind, or several images; when `pixel_range` is no range.

    See Also
    --------
    FineTunedClassifier.to_onnx : Writes a file that takes these pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import read_image
    >>> grey = np.array([[0.0, 0.5], [0.5, 1.0]])
    >>> read_image(grey)[..., 0]
    array([[  0, 128],
           [128, 255]], dtype=uint8)
    """
    values = None if pixel_range is None else checked_range(pixel_range, "None")
    reference = as_images([image], pixel_range=values)[0]
    try:
        return reference.read()
    except DecodeError as error:
        raise ImageReadError([ImageFailure(0, reference.describe(), str(error))], 1) from None
