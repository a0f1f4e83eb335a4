"""The supported image formats, and the limits on the memory and time of one image.

Limits are checked before any pixel is decoded. The header of a file may state any size, so it
is read first. With the limits one image needs less than 1 GB of memory and, unless the file was
made to be slow, a few seconds at most.
"""

import codecs
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..exceptions import DecodeError

# Pillow's own limit against decompression bombs: a quarter of a GiB at 3 bytes a pixel.
# Pillow holds 4 bytes a pixel and the result has 3, so this many take 0.6 GB.
MAX_PIXELS = 2**28 // 3
# These two decoders make further copies of the whole picture: 17 bytes a pixel in all.
MAX_PIXELS_OF = {"WEBP": 50_000_000, "AVIF": 50_000_000}
_BYTES_PER_PIXEL, _BYTES_PER_PIXEL_OF = 7, {"WEBP": 17, "AVIF": 17}
# The longest panoramas of phones and cameras are near 30,000 pixels.
MAX_SIDE = 2**15
# MAX_PIXELS without compression. A file is read whole.
MAX_BYTES = 2**28
# Encoders write about 10 scans, each over all pixels. A file of a few kB can hold
# thousands of empty ones, and each takes as long as a whole picture.
MAX_JPEG_SCANS = 100

_SMALL = 2**20  # pixels; decoding so few costs nothing
_ONE_BIT = 8  # pixels a byte without compression
_ZLIB = 1032 * _ONE_BIT  # its longest match, 258 bytes, takes 2 bits
_LZW = 4096 * _ONE_BIT  # one code stands for at most a full table


def check_size(size: tuple[int, int], format: str | None) -> None:
    """Raise DecodeError for a picture too large to decode."""
    width, height = size
    if width < 1 or height < 1:
        raise DecodeError(f"{width} x {height} pixels")
    if max(width, height) > MAX_SIDE:
        raise DecodeError(
            f"{width:,} x {height:,} pixels, a side longer than the {MAX_SIDE:,} allowed"
        )
    allowed = MAX_PIXELS_OF.get(format or "", MAX_PIXELS)
    if width * height > allowed:
        raise DecodeError(
            f"{width:,} x {height:,} pixels, more than the {allowed:,} allowed; make it "
            "smaller first"
        )


def decoding_bytes(size: tuple[int, int], format: str | None) -> int:
    """Return the bytes of memory that decoding a picture takes, its result included."""
    width, height = size
    return width * height * _BYTES_PER_PIXEL_OF.get(format or "", _BYTES_PER_PIXEL)


def check_bytes(n_bytes: int) -> None:
    """Raise DecodeError for a file that is empty, or too large to be read whole."""
    if n_bytes == 0:
        raise DecodeError("empty, 0 bytes")
    if n_bytes > MAX_BYTES:
        raise DecodeError(f"{n_bytes:,} bytes, more than the {MAX_BYTES:,} allowed")


def check_inner_size(image: Image.Image, data: bytes) -> None:
    """Raise DecodeError when a file is too small for its number of pixels.

    A damaged header of a file of 2 kB may state 80 million pixels. Pillow would allocate and
    clear them all before it finds the error, which takes seconds.
    """
    width, height = image.size
    if width * height > max(len(data) * _most_pixels_a_byte(image), _SMALL):
        raise DecodeError(
            f"damaged {image.format} ({width:,} x {height:,} pixels promised, more than "
            f"{len(data):,} bytes can hold)"
        )
    if image.format == "JPEG":
        n_scans = _count_scans(data)
        if n_scans > MAX_JPEG_SCANS:
            raise DecodeError(f"{n_scans:,} scans, more than the {MAX_JPEG_SCANS} allowed")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        across, down = image.tag_v2.get(322), image.tag_v2.get(323)  # TileWidth, TileLength
        if isinstance(across, int) and isinstance(down, int) and across * down > MAX_PIXELS:
            raise DecodeError(f"tiles of {across:,} x {down:,} pixels")


def _count_scans(data: bytes) -> int:
    """Return how often a scan of a JPEG file begins: in coded data 0xFF is followed by a zero.

    numpy compares without the interpreter's lock, which ``data.count`` holds.
    """
    marker = np.frombuffer(b"\xff\xda", np.uint16)
    return sum(
        int(np.count_nonzero(np.frombuffer(data, np.uint16, n_pairs, start) == marker))
        for start, n_pairs in ((0, len(data) // 2), (1, (len(data) - 1) // 2))
    )


def _most_pixels_a_byte(image: Image.Image) -> float:
    """Return how many pixels a byte of the file holds at most; infinite if unbounded."""
    compression = image.info.get("compression", "raw")
    if image.format == "PNG":
        return _ZLIB
    if image.format == "GIF":
        return _LZW
    if image.format == "JPEG":
        # a block of 8 x 8 takes a bit or more in Huffman codes, less in arithmetic ones
        return 64 * _ONE_BIT * 8
    if image.format == "PPM" or (image.format == "BMP" and not image.info.get("compression")):
        return _ONE_BIT
    if image.format == "TIFF" and compression in ("raw", "tiff_adobe_deflate", "tiff_lzw"):
        return {"raw": _ONE_BIT, "tiff_lzw": _LZW}.get(compression, _ZLIB)
    return float("inf")


class Format(NamedTuple):
    """One readable format: how files begin and end, and Pillow's class for it."""

    name: str
    begins: tuple[bytes, ...]
    endings: tuple[str, ...]
    open: Callable[[io.BytesIO], ImageFile.ImageFile] | None

    def opened(self, file: io.BytesIO) -> ImageFile.ImageFile:
        """Return the image in a file; its pixels are not decoded yet."""
        if self.open is None:
            raise DecodeError(f"{self.name}, which this Pillow was built without")
        return self.open(file)


# The classes are called in place of Image.open, which compares the size with a global
# of Pillow and warns; our own limits are checked instead.
FORMATS = (
    Format("JPEG", (b"\xff\xd8\xff",), (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
           JpegImagePlugin.JpegImageFile),
    Format("PNG", (b"\x89PNG\r\n\x1a\n",), (".png", ".apng"), PngImagePlugin.PngImageFile),
    Format("GIF", (b"GIF87a", b"GIF89a"), (".gif",), GifImagePlugin.GifImageFile),
    Format("WebP", (b"RIFF....WEBP",), (".webp",),
           WebPImagePlugin.WebPImageFile if WebPImagePlugin.SUPPORTED else None),
    Format("BMP", (b"BM",), (".bmp", ".dib"), BmpImagePlugin.BmpImageFile),
    Format("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), (".tif", ".tiff"),
           TiffImagePlugin.TiffImageFile),
    Format("AVIF", (b"....ftypavif", b"....ftypavis"), (".avif",),
           AvifImagePlugin.AvifImageFile if AvifImagePlugin.SUPPORTED else None),
    Format("PPM", (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"),
           (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), PpmImagePlugin.PpmImageFile),
)  # fmt: skip

ENDINGS = frozenset(ending for format in FORMATS if format.open for ending in format.endings)

# The most frequent files that are not images, and what to do about them.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the files with: git lfs pull"),
    (b"....ftypheic", "HEIC, which is not read; save it as JPEG or PNG"),
    (b"....ftypheix", "HEIC, which is not read; save it as JPEG or PNG"),
    (b"....ftypmif1", "HEIF, which is not read; save it as JPEG or PNG"),
    (b"....ftyp", "a film; take pictures from it first"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000, which is not read; save it as PNG or TIFF"),
    (b"%PDF", "a PDF document; draw its pages as PNG first"),
    (b"%!PS", "a PostScript document, which is not read; save it as PNG"),
    (b"8BPS", "a Photoshop document, which is not read; save it as PNG"),
    (b"\0\0\1\0", "an icon (ICO), which is not read; save it as PNG"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x93NUMPY", "a NumPy file; pass the array: numpy.load(path)"),
)


def identify(data: bytes) -> Format:
    """Return the format of encoded data, or raise DecodeError with what it is instead."""
    for format in FORMATS:
        if any(_begins(data, pattern) for pattern in format.begins):
            if format.open is None:
                raise DecodeError(f"{format.name}, which this Pillow was built without")
            return format
    if _begins(data, b"....ftypmif1") and b"avif" in data[16:64]:
        return identify(data[:8] + b"avif")  # the brand stands among the compatible ones
    for pattern, meaning in _OTHERS:
        if _begins(data, pattern):
            raise DecodeError(meaning)
    raise DecodeError(_describe_text(data[:1024]) or _unknown())


def _begins(data: bytes, pattern: bytes) -> bool:
    """Compare the first bytes; a dot stands for any, as no pattern has one itself."""
    if b"." not in pattern:
        return data.startswith(pattern)
    return len(data) >= len(pattern) and all(
        wanted in (byte, 0x2E) for wanted, byte in zip(pattern, data, strict=False)
    )


def _describe_text(start: bytes) -> str | None:
    try:
        # the incremental decoder, as the last letter may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return None
    if any(not (letter.isprintable() or letter.isspace()) for letter in text):
        return None
    text = text.lstrip("\ufeff \t\r\n").lower()
    if "<svg" in text:
        return "an SVG drawing, which is not read; draw it as PNG first"
    if text.startswith(("<!doctype html", "<html")):
        return "a web page, perhaps the error page of a failed download"
    return "text, not an image"


def _unknown() -> str:
    names = ", ".join(format.name for format in FORMATS if format.open)
    return f"not an image of a known format ({names})"
