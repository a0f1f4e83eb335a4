"""Which images of ``X`` can't be read, show nothing, or are unlike photographs."""

import io
import math
import numbers
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from .._text_table import Table
from ..images._collection import ImageReference
from ..images._decode import DecodeError, quiet_pillow, read_orientation
from ..images._fingerprint import read_file
from ..images._formats import identify
from ..images._image_ref import EncodedImage, FileImage, PillowImage
from ._reading import for_each, images_of

PROBLEMS = ("unreadable", "tiny", "blank", "odd_aspect", "rotated", "grey", "graphic")

# Pixels that are measured. A regular grid of them represents a large image, and copies of
# it are small.
_MEASURED = 2**16
# Pillow decodes a whole PNG file to find its orientation. A file that has one contains one
# of these words: the name of the chunk, or of the entry that older tools wrote.
_PNG_MAY_BE_TURNED = (b"eXIf", b"exif", b"Orientation")


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What was found in one image.

    Attributes
    ----------
    position : int
        Position of the image in `X`.
    source : str
        Its path, or a description of an image without a path.
    problems : tuple of str
        Of ``"unreadable"``, ``"tiny"``, ``"blank"``, ``"odd_aspect"``, ``"rotated"``,
        ``"grey"`` and ``"graphic"``, those that were found.
    width, height : int or None
        Pixels, upright. None where the image can't be read.
    contrast : float or None
        Largest standard deviation of a channel, in levels of 0 to 255.
    one_colour : float or None
        Share of the pixels that have the most frequent colour.
    reason : str or None
        Why the image can't be read.
    """

    position: int
    source: str
    problems: tuple[str, ...]
    width: int | None
    height: int | None
    contrast: float | None
    one_colour: float | None
    reason: str | None


class ImageChecks(Table[ImageCheck]):
    """The images in which something was found, in the order of ``X``.

    Attributes
    ----------
    n_images : int
        Images that were checked.
    counts : dict of str to int
        Number of images with each problem.
    """

    _record = ImageCheck

    def __init__(self, records: Sequence[ImageCheck], n_images: int):
        super().__init__(records)
        self.n_images = n_images
        found = Counter(problem for record in records for problem in record.problems)
        self.counts = {problem: found[problem] for problem in PROBLEMS}

    def having(self, *problems: str) -> "ImageChecks":
        """Return the images with at least one of `problems`.

        Raises
        ------
        ValueError
            When a name is not that of a problem.
        """
        for problem in problems:
            if problem not in PROBLEMS:
                raise ValueError(f"problems must be of {', '.join(PROBLEMS)}, got {problem!r}")
        chosen = [record for record in self if set(problems) & set(record.problems)]
        return ImageChecks(chosen, self.n_images)

    def _headline(self) -> str:
        found = ", ".join(f"{n} {problem}" for problem, n in self.counts.items() if n)
        return f"{len(self)} of {self.n_images} images: {found or 'nothing found'}"


@dataclass(frozen=True, slots=True)
class _Measures:
    """The measurements of one image, from which its problems follow."""

    width: int
    height: int
    turned: bool
    contrast: float
    colour: float  # difference of the channels that 1 % of the pixels exceed
    one_colour: float


@validate_params(
    {
        "min_side": [Interval(numbers.Integral, 0, None, closed="left")],
        "min_contrast": [Interval(numbers.Real, 0, 255, closed="both")],
        "max_aspect": [Interval(numbers.Real, 1, None, closed="left")],
        "min_colour": [Interval(numbers.Real, 0, 255, closed="both")],
        "max_one_colour": [Interval(numbers.Real, 0, 1, closed="both")],
        "image_shape": ["array-like", None],
        "pixel_range": [StrOptions({"fit"}), tuple, list, None],
        "n_jobs": [numbers.Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def check_images(
    X,
    *,
    min_side=32,
    min_contrast=5.0,
    max_aspect=4.0,
    min_colour=5.0,
    max_one_colour=0.6,
    image_shape=None,
    pixel_range=None,
    n_jobs=None,
):
    """Check every image and list those in which something is wrong or unusual.

    An image that can't be read is a row of the result, not an error.

    Parameters
    ----------
    X : sequence of images
        Any kind that the estimators take.
    min_side : int, default=32
        An image whose shorter side has fewer pixels is ``"tiny"``.
    min_contrast : float, default=5.0
        An image is ``"blank"`` when every channel has a standard deviation of less
        than this many of 255 levels.
    max_aspect : float, default=4.0
        An image whose longer side is more than this many times the shorter is of
        ``"odd_aspect"``. With more than 4 times, networks see the whole image,
        stretched, and not its middle square.
    min_colour : float, default=5.0
        An image is ``"grey"`` when in all but 1 % of its pixels the channels differ by
        less than this many levels.
    max_one_colour : float, default=0.6
        An image is a ``"graphic"`` and perhaps no photograph when a larger share of its
        pixels has one and the same colour: placeholders, logos, plots, cut-outs.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
    pixel_range : tuple of float or "fit", default=None
        The values of arrays that mean black and white, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.

    Returns
    -------
    checks : ImageChecks
        A sequence of :class:`ImageCheck`, one for each image in which something was
        found. It prints as a table; ``to_frame()`` is a pandas DataFrame.

    Raises
    ------
    TypeError, ValueError
        When the type or value of a parameter is not allowed, or `X` holds no images.

    See Also
    --------
    near_duplicates : Images that are in `X` more than once.

    Notes
    -----
    ``"rotated"`` is an image that its EXIF entry turns or mirrors. The estimators turn it
    upright; other programs may not, and boxes or masks drawn in them are then misplaced.
    ``"grey"`` is no fault either, but a model can learn it where one class has more such
    images.

    One image is in memory for each thread. Of an image of more than 65,536 pixels a
    regular grid of that many is measured.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.hygiene import check_images
    >>> noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    >>> X = [noise, np.zeros((48, 64), dtype=np.uint8), b"GIF8", noise[:8]]
    >>> checks = check_images(X)
    >>> for check in checks:
    ...     print(check.position, check.problems)
    1 ('blank', 'grey', 'graphic')
    2 ('unreadable',)
    3 ('tiny', 'odd_aspect')
    """
    images = images_of(X, image_shape, pixel_range)
    records = []
    for position, found in enumerate(for_each(images, range(len(images)), _measure, n_jobs)):
        if isinstance(found, DecodeError):
            problems, reason = ["unreadable"], str(found)
            sizes: tuple[Any, Any, Any, Any] = (None, None, None, None)
        else:
            sides = sorted((found.width, found.height))
            holds = {
                "tiny": sides[0] < min_side,
                "blank": found.contrast < min_contrast,
                "odd_aspect": sides[1] > max_aspect * sides[0],
                "rotated": found.turned,
                "grey": found.colour < min_colour,
                "graphic": found.one_colour > max_one_colour,
            }
            problems = [problem for problem, is_so in holds.items() if is_so]
            sizes = (found.width, found.height, found.contrast, found.one_colour)
            reason = None
        if problems:
            source = images[position].describe()
            records.append(ImageCheck(position, source, tuple(problems), *sizes, reason))
    return ImageChecks(records, len(images))


def _measure(image: ImageReference) -> _Measures:
    if isinstance(image, FileImage):  # read once, for the pixels and the orientation
        image = EncodedImage(read_file(image.path), image.path, image.pixel_range)
    pixels = image.read()
    height, width = pixels.shape[:2]
    step = math.ceil(math.sqrt(max(1, width * height / _MEASURED)))
    some = pixels[::step, ::step].reshape(-1, 3)
    red, green, blue = some.T.astype(np.int32)
    counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)[1]
    return _Measures(
        width=width,
        height=height,
        turned=_is_turned(image),
        contrast=float(some.std(axis=0).max()),
        colour=float(np.percentile(some.max(axis=1) - some.min(axis=1), 99)),
        one_colour=float(counts.max() / counts.sum()),
    )


def _is_turned(image: ImageReference) -> bool:
    """Tell whether a readable image has an EXIF orientation other than upright."""
    if isinstance(image, PillowImage):
        return read_orientation(image.image) != 1
    if not isinstance(image, EncodedImage):
        return False
    format = identify(image.data)
    if format.name == "PNG" and not any(word in image.data for word in _PNG_MAY_BE_TURNED):
        return False
    with quiet_pillow(), format.opened(io.BytesIO(image.data)) as opened:
        return read_orientation(opened) != 1  # of a TIFF before loading, which turns it
