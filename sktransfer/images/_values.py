"""Which values mean black and white, and from there to 8 bits."""

from dataclasses import dataclass

import numpy as np

from ._errors import DecodeError


@dataclass(frozen=True)
class PixelRange:
    """Which values of an array, or of a file of more than 8 bits, mean black and white.

    `clip` tells what happens to values outside: cut off, or an error.
    """

    low: float
    high: float
    clip: bool = False


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
