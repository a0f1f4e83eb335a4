"""One image, however it came, to 8-bit RGB pixels.

All decoding goes through Pillow at full size. torchvision's JPEG decoder gives the same
pixels about 1.3 times as fast (benchmarks/bench_decode.py); it knows no colour profiles
and would be a second decoder to trust with damaged files. Pillow's decoding at reduced
size (`Image.draft`) gives other pixels.
"""

import io

import numpy as np
from PIL import Image, ImageFile

from .._fork import ForkSafeLock
from ._colour import fill_rgb
from ._errors import DecodeError
from ._formats import identify
from ._limits import check_bytes, check_inner_size, check_size
from ._orientation import read_orientation, upright_array
from ._quiet import quiet_pillow
from ._values import PixelRange, check_values, default_range, scale_to_8_bit

# Loading an opened file moves its position, so two threads must not load one image.
# Images can't be weakly keyed, so they share these by their address.
_PIL_LOCKS = tuple(ForkSafeLock() for _ in range(64))
# Loading these starts another program, or hands the file to the system's drawing.
_LOADED_BY_OTHERS = frozenset(["EPS", "WMF"])


def decode_bytes(data: bytes, pixel_range: PixelRange | None = None) -> np.ndarray:
    """Decode an encoded image to uint8 (H, W, 3): upright, first frame, sRGB on white.

    `pixel_range` is for images of more than 8 bits; the others know their range.
    """
    check_bytes(len(data))
    format = identify(data)
    with quiet_pillow():
        try:
            with format.open(io.BytesIO(data)) as image:
                check_size(image.size, image.format)
                check_inner_size(image, data)
                image.load()
                return _to_pixels(image, pixel_range)
        except Exception as error:
            raise _as_decode_error(error, format.name) from None


def decode_pil(image: Image.Image, pixel_range: PixelRange | None = None) -> np.ndarray:
    """Convert a Pillow image to uint8 (H, W, 3): upright, its current frame, sRGB on white.

    The image is loaded where it was only opened; nothing else of it changes.
    """
    with quiet_pillow():
        try:
            with _PIL_LOCKS[id(image) // 64 % len(_PIL_LOCKS)]:
                if isinstance(image, ImageFile.ImageFile) and image.tile:
                    if image.format in _LOADED_BY_OTHERS:
                        raise DecodeError(f"{image.format}, opened but not loaded: call load()")
                    check_size(image.size, image.format)
                image.load()
                return _to_pixels(image, pixel_range)
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


def _to_pixels(image: Image.Image, pixel_range: PixelRange | None) -> np.ndarray:
    # after loading: TIFF files are turned by Pillow when they load
    upright, stored = upright_array(image.size, read_orientation(image))
    fill_rgb(image, stored, pixel_range)
    return upright


def _as_decode_error(error: Exception, what: str) -> DecodeError:
    """Return the plain cause of what Pillow raised.

    From damaged data Pillow raises OSError and SyntaxError as documented, and as well
    IndexError, KeyError, struct.error, OverflowError and others that are not.
    """
    if isinstance(error, DecodeError):
        return error
    if isinstance(error, MemoryError):
        return DecodeError("needs more memory than there is")
    cause = " ".join(str(error).split())[:200] or type(error).__name__
    return DecodeError(f"damaged {what} ({cause})")
