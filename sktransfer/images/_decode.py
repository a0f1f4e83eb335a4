"""From the bytes of a file, a PIL image or an array to upright 8-bit RGB pixels.

Pillow's warnings are not shown while an image is decoded: each image is either read or reported
as an error. `warnings.catch_warnings` does not work with several threads: the last one to end
may restore the filters of another. Instead one filter of our own is in the list while any
thread decodes.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import cast

import numpy as np
import PIL
from PIL import Image, ImageFile, features

from .._locking import ForkSafeLock
from ..exceptions import DecodeError
from ._colour import (
    PixelRange,
    check_values,
    default_range,
    fill_rgb,
    padded_rgb,
    scale_to_8_bit,
)
from ._formats import check_bytes, check_inner_size, check_size, decoding_bytes, identify

# An ingredient of every key: raise it when the same bytes would give other pixels.
DECODING_VERSION = 1

_lock = ForkSafeLock()
_n_inside = 0
_MODULE = r"PIL(\.|$)"


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that Pillow's modules issue inside the block, in any thread."""
    global _n_inside
    with _lock:
        _n_inside += 1
        if not any(_is_ours(entry) for entry in warnings.filters):
            warnings.filterwarnings("ignore", module=_MODULE)
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0:
                # all of them: a catch_warnings elsewhere may have put back an old one
                filters = cast(list, warnings.filters)
                filters[:] = [entry for entry in filters if not _is_ours(entry)]


def _is_ours(entry: tuple) -> bool:
    module = entry[3]
    return entry[0] == "ignore" and getattr(module, "pattern", module) == _MODULE


_TAG = 0x0112  # EXIF Orientation

# How the stored picture becomes upright: swap rows and columns, then reverse the order
# of the rows, then of the columns. Table of EXIF 2.32, section 4.6.5.
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 to 8."""
    try:
        value = image.getexif().get(_TAG, 1)
        return value if value in _STEPS else 1
    except Exception:
        # Damaged EXIF makes Pillow raise nearly anything. The picture is still there.
        return 1


def upright_array(size: tuple[int, int], orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an empty upright array, and a view of it in the orientation of the file.

    Pixels that are written to the view are upright in the array, so a large picture is
    turned without another copy.
    """
    swap, reverse_rows, reverse_columns = _STEPS[orientation]
    width, height = size
    shape = (width, height, 3) if swap else (height, width, 3)
    upright = np.empty(shape, dtype=np.uint8)
    stored = upright[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1]
    return upright, stored.swapaxes(0, 1) if swap else stored


# Loading an opened file moves its position, so two threads must not load one image.
# Images can't be weakly keyed, so they share these by their address.
_PIL_LOCKS = tuple(ForkSafeLock() for _ in range(64))
# Loading these starts another program, or hands the file to the system's drawing.
_LOADED_BY_OTHERS = frozenset(["EPS", "WMF"])


@cache
def decoder_versions() -> dict[str, str]:
    """Return the versions of Pillow and its decoders; pixels may differ between versions."""
    codecs = {name: features.version(name) for name in ("jpg", "webp", "avif")}
    pillow = ".".join(PIL.__version__.split(".")[:2])
    turbo = features.version("libjpeg_turbo")
    return {"pillow": pillow, "libjpeg_turbo": str(turbo), **{k: str(v) for k, v in codecs.items()}}


def decode_bytes(
    data: bytes,
    pixel_range: PixelRange | None = None,
    reserve: Callable[[int], None] | None = None,
    padded: bool = False,
) -> np.ndarray:
    """Decode an encoded image to uint8 (H, W, 3): upright, first frame, sRGB on white.

    `pixel_range` is for images of more than 8 bits; the others know their range. `reserve`
    is called with the bytes of memory that decoding needs, before they are used; it may wait.
    With `padded` pixels may have a fourth value without a meaning, (H, W, 4), which saves a copy.
    """
    check_bytes(len(data))
    format = identify(data)
    with quiet_pillow():
        try:
            with format.opened(io.BytesIO(data)) as image:
                check_size(image.size, image.format)
                check_inner_size(image, data)
                if reserve is not None:
                    reserve(decoding_bytes(image.size, image.format))
                image.load()
                return _to_pixels(image, pixel_range, padded, is_ours=True)
        except Exception as error:
            raise _as_decode_error(error, format.name) from None


def decode_pil(image: Image.Image, pixel_range: PixelRange | None = None) -> np.ndarray:
    """Convert a Pillow image to uint8 (H, W, 3): upright, its current frame, sRGB on white.

    An image that was only opened is loaded; it is not changed otherwise.
    """
    with quiet_pillow():
        try:
            with _PIL_LOCKS[id(image) // 64 % len(_PIL_LOCKS)]:
                if isinstance(image, ImageFile.ImageFile) and image.tile:
                    if image.format in _LOADED_BY_OTHERS:
                        raise DecodeError(f"{image.format}, opened but not loaded: call load()")
                    check_size(image.size, image.format)
                if not image.width or not image.height:
                    raise DecodeError(f"no pixels, size {image.size}")
                image.load()
                return _to_pixels(image, pixel_range, is_ours=False)
        except Exception as error:
            raise _as_decode_error(error, "image") from None


def decode_array(pixels: np.ndarray, pixel_range: PixelRange | None = None) -> np.ndarray:
    """Convert an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to uint8 (H, W, 3)."""
    if pixels.size == 0:
        raise DecodeError(f"no pixels, shape {pixels.shape}")
    if pixels.dtype != np.uint8 or pixel_range is not None:
        wanted = pixel_range or default_range(pixels.dtype)
        check_values(float(pixels.min()), float(pixels.max()), wanted)
        pixels = scale_to_8_bit(pixels, wanted)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.shape[2] == 4:
        return decode_pil(Image.fromarray(np.ascontiguousarray(pixels)))
    return np.ascontiguousarray(pixels)


def _to_pixels(
    image: Image.Image, pixel_range: PixelRange | None, padded: bool = False, *, is_ours: bool
) -> np.ndarray:
    # after loading: TIFF files are turned by Pillow when they load
    orientation = read_orientation(image)
    if padded and orientation == 1:
        pixels = padded_rgb(image)
        if pixels is not None:
            return pixels
    upright, stored = upright_array(image.size, orientation)
    fill_rgb(image, stored, pixel_range, is_ours=is_ours)
    return upright


def _as_decode_error(error: Exception, what: str) -> DecodeError:
    """Return the plain cause of an error of Pillow.

    For damaged data Pillow raises OSError and SyntaxError, which are documented, but also
    IndexError, KeyError, struct.error, OverflowError and others.
    """
    if isinstance(error, DecodeError):
        return error
    if isinstance(error, MemoryError):
        return DecodeError("needs more memory than there is")
    cause = " ".join(str(error).split())[:200] or type(error).__name__
    return DecodeError(f"damaged {what} ({cause})")
