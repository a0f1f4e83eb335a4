"""Images whose pixels stay in memory once they are decoded, for a fit that reads them again."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._collection import ChosenImages
from ._image_ref import EncodedImage, FileImage, ImageReference, LoadedImage

# Pixels that are kept: those of about 900 photographs of 500 x 375.
_KEPT_BYTES = 2**29


class _Pixels:
    """Pixels by the digests of their images, as many as there is room for."""

    def __init__(self, n_bytes: int):
        self._n_left = n_bytes
        self._kept: dict[bytes, np.ndarray] = {}
        self._lock = threading.Lock()

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


@dataclass(frozen=True, slots=True)
class _RememberedImage:
    """An encoded image. Its bytes are read each time: kept pixels are those of their digest."""

    image: FileImage | EncodedImage
    pixels: _Pixels
    is_file: ClassVar[bool] = False

    def describe(self) -> str:
        return self.image.describe()

    def digest(self) -> bytes:
        return self.image.digest()

    def version(self) -> bytes | None:
        return self.image.version()

    def load(self, digest: bytes | None = None) -> LoadedImage:
        content = self.image.load(digest)
        return LoadedImage(content.digest, lambda reserve: self.pixels.of(content, reserve))

    def read(self) -> np.ndarray:
        return self.image.read()


class _RememberedFile(_RememberedImage):
    is_file: ClassVar[bool] = True


class RememberedImages(Sequence):
    """A collection of images that are decoded once, as long as there is room for their pixels.

    Parameters
    ----------
    images : sequence of ImageReference
    n_bytes : int
        Most bytes of pixels that are kept. Images beyond them are decoded each time.
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
        return image  # in memory, and decoded already

    def take(self, positions: Sequence[int]) -> "RememberedImages":
        """Return some of the images, which share the pixels that are kept."""
        chosen = RememberedImages(ChosenImages(self._images, positions))
        chosen._pixels = self._pixels
        return chosen

    def forget(self) -> None:
        """Drop all pixels; images that are read again are decoded again."""
        self._pixels.clear()
