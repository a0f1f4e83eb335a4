"""Small pictures of images, as data URIs that a page can hold."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

_QUALITY = 60
# Of fewer pixels nothing is lost, and browsers draw them as squares
_TINY = 40


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture.

    Attributes
    ----------
    uri : str
        ``data:image/...;base64,...``.
    width, height : int
        Pixels.
    """

    uri: str
    width: int
    height: int

    @property
    def is_tiny(self) -> bool:
        """Whether it has so few pixels that they should be drawn as squares."""
        return max(self.width, self.height) <= _TINY


def thumbnail(pixels: np.ndarray, side: int) -> Thumbnail:
    """Return a picture whose longer side has at most `side` pixels.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, 3), uint8
    side : int
        An image that is smaller keeps its size.

    Notes
    -----
    WebP, or JPEG where Pillow was built without it. A photograph at 112 pixels is about
    3 kB. Tiny images are kept as they are, as PNG.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    made = io.BytesIO()
    if max(image.size) <= _TINY:
        kind = "png"
        image.save(made, "PNG", optimize=True)
    elif features.check("webp"):
        kind = "webp"
        image.save(made, "WEBP", quality=_QUALITY, method=4)
    else:
        kind = "jpeg"
        image.save(made, "JPEG", quality=_QUALITY, optimize=True)
    text = base64.b64encode(made.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{kind};base64,{text}", *image.size)
