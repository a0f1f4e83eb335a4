"""From the pixels of any Pillow mode, or the values of any array, to 8-bit sRGB on white.

Every step works pixel by pixel, so a large picture is converted in strips, without a second
copy of the whole picture.
"""

import io
import numbers
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from ..exceptions import DecodeError
from ._pixel_memory import pixel_memory


@dataclass(frozen=True)
class PixelRange:
    """Which values of an array, or of a file of more than 8 bits, mean black and white.

    With `clip`, values outside are cut off; without it they are an error.
    """

    low: float
    high: float
    clip: bool = False


def checked_range(pixel_range: Any, others: str) -> PixelRange:
    """Return the range that the user gave; `others` are the other values that are allowed."""
    values = tuple(pixel_range) if isinstance(pixel_range, Iterable) else ()
    if (
        len(values) != 2
        or not all(isinstance(value, numbers.Real) for value in values)
        or not values[0] < values[1]
    ):
        raise ValueError(
            f"pixel_range must be {others} or (low, high) with low < high, got {pixel_range!r}"
        )
    return PixelRange(float(values[0]), float(values[1]))


def default_range(dtype: np.dtype) -> PixelRange:
    """Return what black and white are in an array when the user doesn't say."""
    if dtype.kind in "fb":
        return PixelRange(0.0, 1.0)
    if dtype == np.uint16:
        # A dark 16-bit picture and an 8-bit one in wide numbers look the same.
        raise DecodeError(
            "16-bit values: white may be 255, 4095 or 65535; say which with "
            "pixel_range=(0, 65535), or pixel_range='fit'"
        )
    return PixelRange(0.0, 255.0)


def check_values(low: float, high: float, wanted: PixelRange) -> None:
    """Raise DecodeError when values from `low` to `high` can't be read as `wanted`."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DecodeError("has NaN or infinite values")
    if not wanted.clip and (low < wanted.low or high > wanted.high):
        raise DecodeError(
            f"values from {low:g} to {high:g} are outside {wanted.low:g} to "
            f"{wanted.high:g}; say which values mean black and white with "
            "pixel_range=(low, high), or pixel_range='fit'"
        )


def scale_to_8_bit(values: np.ndarray, wanted: PixelRange) -> np.ndarray:
    """Map `wanted` to 0 .. 255, rounding; what lies outside becomes black or white."""
    # Halves, so that the span of the largest doubles is still a number.
    span = wanted.high / 2 - wanted.low / 2
    if not span > 0:
        return np.zeros(values.shape, dtype=np.uint8)
    inside = np.clip(values.astype(np.float64), wanted.low, wanted.high)
    return np.rint((inside / 2 - wanted.low / 2) / span * 255).astype(np.uint8)


_STRIP_PIXELS = 2**22  # a few ten MB of intermediate copies
_ALPHA_MODES = frozenset(["LA", "La", "PA", "RGBA", "RGBa"])

# Colour space of a profile -> the modes it can describe, and the mode it is applied to.
_PROFILE_MODES = {
    "RGB": (frozenset(["RGB", "RGBA", "RGBX", "RGBa", "P", "PA"]), "RGB"),
    "GRAY": (frozenset(["1", "L", "LA", "La"]), "L"),
    "CMYK": (frozenset(["CMYK"]), "CMYK"),
}
# A profile that changes no colour by more than this is sRGB itself, which most files have.
# Copies of that profile differ by 2 of 255 levels, less than JPEG loses.
_SAME_COLOUR = 2
# The last colour is not kept in a transform, as threads share it.
_NO_CACHE = ImageCms.Flags.NOCACHE


def fill_rgb(
    image: Image.Image, rows: np.ndarray, pixel_range: PixelRange | None, *, is_ours: bool
) -> None:
    """Write a loaded image into `rows`, uint8 (H, W, 3).

    `is_ours` says whether it was opened here: how the memory of another was made is not known,
    so Pillow is asked for a copy of that.
    """
    if _is_deep(image):
        _fill_deep(image, rows, pixel_range)
        return
    mode, transform = _transform_to_srgb(image)
    for strip, target in _strips(image, rows):
        _write(_flat(strip, mode, transform), target, is_ours)


def padded_rgb(image: Image.Image) -> np.ndarray | None:
    """Return an image that was opened here as uint8 (H, W, 4), the fourth value without a meaning.

    Of an image that is RGB already it is Pillow's own memory. None where that would not be one
    piece: `fill_rgb` takes any image.
    """
    if _is_deep(image) or _n_rows_of_strip(image) < image.height:
        return None
    return pixel_memory(_flat(image, *_transform_to_srgb(image)))


def _is_deep(image: Image.Image) -> bool:
    """Tell whether an image has one channel with more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _flat(
    strip: Image.Image, mode: str, transform: ImageCms.ImageCmsTransform | None
) -> Image.Image:
    """Return an image as RGB, on white where it is transparent."""
    if strip.mode in _ALPHA_MODES or "transparency" in strip.info:
        strip = strip.convert("RGBA")
        alpha = strip.getchannel("A")
        flat = Image.new("RGB", strip.size, "white")
        flat.paste(_convert(strip, mode, transform), mask=alpha)
        return flat
    return _convert(strip, mode, transform)


def _write(image: Image.Image, rows: np.ndarray, is_ours: bool) -> None:
    memory = pixel_memory(image) if is_ours else None
    if memory is None:
        rows[...] = image
        return
    for channel in range(3):  # numpy takes four times as long for all three at once
        rows[..., channel] = memory[..., channel]


def _strips(image: Image.Image, rows: np.ndarray) -> Iterator[tuple[Image.Image, np.ndarray]]:
    width, height = image.size
    step = _n_rows_of_strip(image)
    if step >= height:
        yield image, rows
        return
    for top in range(0, height, step):
        bottom = min(height, top + step)
        yield image.crop((0, top, width, bottom)), rows[top:bottom]


def _n_rows_of_strip(image: Image.Image) -> int:
    return max(1, _STRIP_PIXELS // image.width)


def _fill_deep(image: Image.Image, rows: np.ndarray, pixel_range: PixelRange | None) -> None:
    """Write an image of one channel with more than 8 bits."""
    extremes = [
        (values.min(), values.max())
        for values in (np.asarray(strip) for strip, _ in _strips(image, rows))
    ]
    low, high = float(np.min(extremes)), float(np.max(extremes))  # NaN where any value is
    wanted = pixel_range or _deep_range(image, low, high)
    check_values(low, high, wanted)
    for strip, target in _strips(image, rows):
        target[...] = scale_to_8_bit(np.asarray(strip), wanted)[:, :, np.newaxis]


def _deep_range(image: Image.Image, low: float, high: float) -> PixelRange:
    """Return which values are black and white in a file of more than 8 bits.

    Unsigned samples of a known depth: all that the depth can hold. Two pictures of
    one set then stay comparable, a dark one stays darker, and noise on an empty one is
    not blown up, as it is when each is stretched to its own extremes. The price is that
    a 12-bit scan in a 16-bit file becomes dark; set `pixel_range` for such files.

    Floats within [0, 1] are read as floats in an array are. Nothing says what black
    and white are in signed, 32-bit and other float files, and the range of the type is
    useless there (a 32-bit one would leave all pictures black): these alone are
    stretched to their own extremes.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return PixelRange(0, 2 ** _bits(image) - 1)
    if image.mode == "F" and low >= 0 and high <= 1:
        return PixelRange(0, 1)
    return PixelRange(low, high)


def _bits(image: Image.Image) -> int:
    """Return the bits of a sample; TIFF files of 12 bits say so, and Pillow widens them."""
    bits = getattr(image, "tag_v2", {}).get(258, (16,))  # BitsPerSample
    return 12 if bits == (12,) else 16


def _convert(
    strip: Image.Image, mode: str, transform: ImageCms.ImageCmsTransform | None
) -> Image.Image:
    if transform is None:  # convert() copies even what is RGB already
        return strip if strip.mode == "RGB" else strip.convert("RGB")
    return transform.apply(strip.convert(mode))


def _transform_to_srgb(
    image: Image.Image,
) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode a transform is applied to, and the transform; None to do without."""
    if image.mode == "LAB":
        return "LAB", _build_transform(None, "LAB")
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and len(profile) >= 128:
        space = profile[16:20].decode("latin-1").strip()  # ICC.1, table 17
        modes, mode = _PROFILE_MODES.get(space, (frozenset(), "RGB"))
        if image.mode in modes:
            return mode, _build_transform(profile, mode)
    return "RGB", None


# A data set has few profiles, and reading one takes as long as a small picture.
@lru_cache(maxsize=16)
def _build_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of `mode` to sRGB; None when it changes nothing or is damaged.

    A picture whose profile can't be used is shown as if it had none, as browsers do.
    """
    try:
        if profile is None:
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.getOpenProfile(io.BytesIO(profile))
        transform = ImageCms.ImageCmsTransform(
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            flags=_NO_CACHE,
        )
        if mode in ("RGB", "L"):
            probe = _probe(mode)
            moved = np.abs(
                np.asarray(transform.apply(probe), dtype=int)
                - np.asarray(probe.convert("RGB"), dtype=int)
            )
            if moved.max() <= _SAME_COLOUR:
                return None
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        return None
    return transform


def _probe(mode: str) -> Image.Image:
    """Return an image of all greys, or of a grid over all colours."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(grid.reshape(1, -1, 3))
