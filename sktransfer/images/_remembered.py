"""Images whose pixels stay in memory once they are decoded, for a fit that reads them again."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._collection import ChosenImages
from ._image_ref import EncodedImage, FileImage, ImageReference, LoadedImage, RemoteImage

# Pixels that are kept: those of about 900 photographs of 500 x 375. And as many bytes of images
# that came by URL, which are those of about 5,000.
_KEPT_BYTES = 2**29


class _Pixels:
    """Pixels by the digests of their images, as many as there is room for.

    What came by URL is kept beside them as it came, as long as there is room for it.
    """

    def __init__(self, n_bytes: int):
        self._n_left = self._n_left_of_encoded = n_bytes
        self._kept: dict[bytes, np.ndarray] = {}
        self._encoded: dict[str, EncodedImage] = {}  # by URL
        self._lock = threading.Lock()

    def encoded(
        self, image: RemoteImage, admit: Callable[[int], None] | None = None
    ) -> EncodedImage:
        """Return an image by URL in memory, read unless it is kept."""
        kept = self._encoded.get(image.url)
        if kept is not None:
            return kept
        encoded = image.encoded(admit)
        n_bytes = len(encoded.data)
        with self._lock:
            if image.url not in self._encoded and n_bytes <= self._n_left_of_encoded:
                self._n_left_of_encoded -= n_bytes
                self._encoded[image.url] = encoded
        return encoded

    def of(self, content: LoadedImage, reserve: Callable[[int], None]) -> np.ndarray:
        """Return the pixels of a loaded image, decoded unless they are kept."""
        kept = self._kept.get(content.digest)
        if kept is not None:
            return kept
        pixels = content.decode(reserve)
        with self._lock:
            if content.digest not in self._kept and pixels.nbytes <= self._n_left:
                self._n_left -= pixels.nbytes
                self._kept[content.digest] = pixels
        return pixels

    def clear(self) -> None:
        """Drop all of them."""
        with self._lock:
            self._n_left += sum(pixels.nbytes for pixels in self._kept.values())
            self._kept.clear()
            self._n_left_of_encoded += sum(len(image.data) for image in self._encoded.values())
            self._encoded.clear()


@dataclass(frozen=True, slots=True)
class _RememberedImage:
    """An encoded image. Its bytes are read each time: kept pixels are those of their digest."""

    image: FileImage | EncodedImage
    pixels: _Pixels
    is_file: ClassVar[bool] = False
    is_remote: ClassVar[bool] = False

    def describe(self) -> str:
        return self.image.describe()

    def digest(self) -> bytes:
        return self.image.digest()

    def version(self) -> bytes | None:
        return self.image.version()

    def load(self, digest: bytes | None = None) -> LoadedImage:
        content = self.image.load(digest)
        # of three values a pixel: those of four would leave room for fewer images
        return LoadedImage(
            content.digest, lambda reserve, padded=False: self.pixels.of(content, reserve)
        )

    def read(self) -> np.ndarray:
        return self.image.read()


class _RememberedFile(_RememberedImage):
    is_file: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class _RememberedRemote(RemoteImage):
    """An image by URL that is read once, while there is room for it."""

    pixels: _Pixels | None = None

    def encoded(  # type: ignore[override]  # it decodes once as well
        self, admit: Callable[[int], None] | None = None
    ) -> _RememberedImage:
        assert self.pixels is not None
        plain = RemoteImage(self.url, self.pixel_range)
        return _RememberedImage(self.pixels.encoded(plain, admit), self.pixels)


class RememberedImages(Sequence):
    """A collection of images that are decoded once, as long as there is room for their pixels.

    Parameters
    ----------
    images : sequence of ImageReference
    n_bytes : int
        Most bytes of pixels that are kept. Images beyond them are decoded each time. As many
        are kept of images by URL; those beyond are read each time.
    """

    def __init__(self, images: Sequence, n_bytes: int = _KEPT_BYTES):
        self._images = images
        self._pixels = _Pixels(n_bytes)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(  # type: ignore[override]  # nothing asks for slices
        self, index: int
    ) -> ImageReference:
        image = self._images[index]
        if isinstance(image, FileImage):
            return _RememberedFile(image, self._pixels)
        if isinstance(image, EncodedImage):
            return _RememberedImage(image, self._pixels)
        if isinstance(image, RemoteImage):
            return _RememberedRemote(image.url, image.pixel_range, self._pixels)
        return image  # in memory, and decoded already

    def take(self, positions: Sequence[int]) -> "RememberedImages":
        """Return some of the images, which share the pixels that are kept."""
        chosen = RememberedImages(ChosenImages(self._images, positions))
        chosen._pixels = self._pixels
        return chosen

    def forget(self) -> None:
        """Drop all pixels; images that are read again are decoded again."""
        self._pixels.clear()
