"""References to single images that have not been read yet.

A reference is cheap: no file is opened and no pixel is copied until the image is
wanted. Each knows its digest, its pixels, and how to name itself in an error. They
hold nothing that changes, so threads may share them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from ..exceptions import DecodeError
from ._colour import PixelRange
from ._decode import decode_array, decode_bytes, decode_pil
from ._fingerprint import digest_bytes, digest_file, digest_pixels, file_version, read_file


class ImageReference(Protocol):
    """One image that has not been read yet."""

    def describe(self) -> str:
        """Return what an error calls this image: its path where it has one."""

    def digest(self) -> bytes:
        """Return the digest of the content; raise DecodeError when it can't be read."""

    def version(self) -> bytes | None:
        """Return what the digest may be kept by; None if the content must be looked at."""

    def read(self) -> np.ndarray:
        """Return uint8 pixels (H, W, 3), not to be written to; or raise DecodeError."""


@dataclass(frozen=True, slots=True)
class FileImage:
    path: str
    pixel_range: PixelRange | None = None

    def describe(self) -> str:
        return self.path

    def digest(self) -> bytes:
        return digest_file(self.path, self.pixel_range)

    def version(self) -> bytes | None:
        return file_version(self.path, self.pixel_range)

    def read(self) -> np.ndarray:
        return decode_bytes(read_file(self.path), self.pixel_range)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    data: bytes
    name: str | None = None
    pixel_range: PixelRange | None = None

    def describe(self) -> str:
        return self.name or f"bytes ({len(self.data):,})"

    def digest(self) -> bytes:
        return digest_bytes(self.data, self.pixel_range)

    def version(self) -> None:
        return None

    def read(self) -> np.ndarray:
        return decode_bytes(self.data, self.pixel_range)


@dataclass(frozen=True, slots=True)
class PillowImage:
    image: Image.Image
    pixel_range: PixelRange | None = None

    def describe(self) -> str:
        name = getattr(self.image, "filename", "")
        return str(name) or f"PIL image, mode {self.image.mode}, size {self.image.size}"

    def digest(self) -> bytes:
        # of the pixels as they are read: how they came to be so does not matter
        return digest_pixels(self.read(), "pil")

    def version(self) -> None:
        return None

    def read(self) -> np.ndarray:
        return decode_pil(self.image, self.pixel_range)


@dataclass(frozen=True, slots=True)
class ArrayImage:
    pixels: np.ndarray
    pixel_range: PixelRange | None = None

    def describe(self) -> str:
        return f"array of shape {self.pixels.shape}, {self.pixels.dtype}"

    def digest(self) -> bytes:
        return digest_pixels(self.pixels, str(self.pixel_range))

    def version(self) -> None:
        return None

    def read(self) -> np.ndarray:
        return decode_array(self.pixels, self.pixel_range)


@dataclass(frozen=True, slots=True)
class NoImage:
    """A cell that holds no image: a missing value, or something of another kind."""

    reason: str
    is_missing: bool = False

    def describe(self) -> str:
        return "no image"

    def digest(self) -> bytes:
        raise DecodeError(self.reason)

    def version(self) -> None:
        return None

    def read(self) -> np.ndarray:
        raise DecodeError(self.reason)
