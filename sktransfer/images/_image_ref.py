"""References to single images that have not been read yet.

A reference is cheap: no file is opened and no pixel is copied until the image is read. It
returns its digest, its pixels, and its name for errors. References are immutable, so
threads may share them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..exceptions import DecodeError
from ._colour import PixelRange
from ._decode import decode_array, decode_bytes, decode_pil
from ._fingerprint import (
    digest_bytes,
    digest_file,
    digest_pixels,
    file_version,
    read_file,
    remote_version,
)
from ._remote import current_tag, fetch, identity_of
from ._url import described


class Decode(Protocol):
    """A function for the pixels of an image whose content was read."""

    def __call__(self, reserve: Callable[[int], None], padded: bool = False) -> np.ndarray:
        """Return uint8 pixels (H, W, 3), or raise DecodeError.

        `reserve` is called with the bytes of memory before they are used. With `padded` pixels
        may have a fourth value without a meaning, (H, W, 4), which saves a copy.
        """


class LoadedImage(NamedTuple):
    """The content of one image, read once: its digest, and a function for its pixels.

    Pixels and digest are those of the same bytes, even if the file has changed since.
    """

    digest: bytes
    decode: Decode


class ImageReference(Protocol):
    """One image that has not been read yet."""

    is_file: ClassVar[bool]  # whether the content must be read from a file of this machine
    is_remote: ClassVar[bool]  # whether it must be read by URL

    def describe(self) -> str:
        """Return the name of this image in errors: its path or URL if it has one."""

    def digest(self) -> bytes:
        """Return the digest of the content; raise DecodeError when it can't be read."""

    def version(self) -> bytes | None:
        """Return the name under which the digest is stored; None if it must be computed."""

    def load(self, digest: bytes | None = None) -> LoadedImage:
        """Read the content, once; raise DecodeError when it can't be read.

        An image in memory whose `digest` is given, because nothing is stored under it, is
        neither digested again nor copied.
        """

    def read(self) -> np.ndarray:
        """Return uint8 pixels (H, W, 3), not to be written to; or raise DecodeError."""


@dataclass(frozen=True, slots=True)
class FileImage:
    path: str
    pixel_range: PixelRange | None = None
    is_file: ClassVar[bool] = True
    is_remote: ClassVar[bool] = False

    def describe(self) -> str:
        return self.path

    def digest(self) -> bytes:
        return digest_file(self.path, self.pixel_range)

    def version(self) -> bytes | None:
        return file_version(self.path, self.pixel_range)

    def load(self, digest: bytes | None = None) -> LoadedImage:
        return _loaded(read_file(self.path), self.pixel_range)

    def read(self) -> np.ndarray:
        return decode_bytes(read_file(self.path), self.pixel_range)


@dataclass(frozen=True, slots=True)
class RemoteImage:
    url: str = field(repr=False)  # which may hold a secret
    pixel_range: PixelRange | None = None
    is_file: ClassVar[bool] = False
    is_remote: ClassVar[bool] = True

    def describe(self) -> str:
        return described(self.url)

    def identity(self) -> str:
        """Return what distinguishes this image from others, without credentials."""
        return identity_of(self.url)

    def digest(self) -> bytes:
        return self.encoded().digest()

    def version(self) -> bytes | None:
        return self.version_of(current_tag(self.url))

    def version_of(self, tag: str | None) -> bytes | None:
        """Return the version of the content that the store gives this tag."""
        return None if tag is None else remote_version(self.identity(), tag, self.pixel_range)

    def load(self, digest: bytes | None = None) -> LoadedImage:
        return self.encoded().load()

    def read(self) -> np.ndarray:
        return self.encoded().read()

    def encoded(self, admit: Callable[[int], None] | None = None) -> "EncodedImage":
        """Read the content and return it as an image in memory, with the version that it is of.

        `admit` is called with its bytes before they are read; what it raises ends the request.
        """
        data, tag = fetch(self.url, admit)
        return EncodedImage(data, self.describe(), self.pixel_range, self.version_of(tag))


@dataclass(frozen=True, slots=True)
class EncodedImage:
    data: bytes
    name: str | None = None
    pixel_range: PixelRange | None = None
    read_version: bytes | None = None  # of the object that it was read from
    is_file: ClassVar[bool] = False
    is_remote: ClassVar[bool] = False

    def describe(self) -> str:
        return self.name or f"bytes ({len(self.data):,})"

    def digest(self) -> bytes:
        return digest_bytes(self.data, self.pixel_range)

    def version(self) -> bytes | None:
        return self.read_version

    def load(self, digest: bytes | None = None) -> LoadedImage:
        return _loaded(self.data, self.pixel_range, digest)

    def read(self) -> np.ndarray:
        return decode_bytes(self.data, self.pixel_range)


@dataclass(frozen=True, slots=True)
class PillowImage:
    image: Image.Image
    pixel_range: PixelRange | None = None
    is_file: ClassVar[bool] = False
    is_remote: ClassVar[bool] = False

    def describe(self) -> str:
        name = getattr(self.image, "filename", "")
        return str(name) or f"PIL image, mode {self.image.mode}, size {self.image.size}"

    def digest(self) -> bytes:
        # of the decoded pixels, whatever file they came from
        return digest_pixels(self.read(), "pil")

    def version(self) -> None:
        return None

    def load(self, digest: bytes | None = None) -> LoadedImage:
        pixels = self.read()
        digest = digest or digest_pixels(pixels, "pil")
        return LoadedImage(digest, lambda reserve, padded=False: pixels)

    def read(self) -> np.ndarray:
        return decode_pil(self.image, self.pixel_range)


@dataclass(frozen=True, slots=True)
class ArrayImage:
    pixels: np.ndarray
    pixel_range: PixelRange | None = None
    is_file: ClassVar[bool] = False
    is_remote: ClassVar[bool] = False

    def describe(self) -> str:
        return f"array of shape {self.pixels.shape}, {self.pixels.dtype}"

    def digest(self) -> bytes:
        return digest_pixels(self.pixels, "array", self.pixel_range)

    def version(self) -> None:
        return None

    def load(self, digest: bytes | None = None) -> LoadedImage:
        if digest is not None:
            return LoadedImage(digest, lambda reserve, padded=False: self.read())
        # what another thread writes meanwhile is in neither the digest nor the pixels
        copied = ArrayImage(self.pixels.copy(), self.pixel_range)
        return LoadedImage(copied.digest(), lambda reserve, padded=False: copied.read())

    def read(self) -> np.ndarray:
        return decode_array(self.pixels, self.pixel_range)


@dataclass(frozen=True, slots=True)
class NoImage:
    """A cell without an image: a missing value, or an object of another type."""

    reason: str
    is_missing: bool = False
    is_file: ClassVar[bool] = False
    is_remote: ClassVar[bool] = False

    def describe(self) -> str:
        return "no image"

    def digest(self) -> bytes:
        raise DecodeError(self.reason)

    def version(self) -> None:
        return None

    def load(self, digest: bytes | None = None) -> LoadedImage:
        raise DecodeError(self.reason)

    def read(self) -> np.ndarray:
        raise DecodeError(self.reason)


def _loaded(
    data: bytes, pixel_range: PixelRange | None, digest: bytes | None = None
) -> LoadedImage:
    return LoadedImage(
        digest or digest_bytes(data, pixel_range),
        lambda reserve, padded=False: decode_bytes(data, pixel_range, reserve, padded),
    )
