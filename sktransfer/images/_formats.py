"""Which formats are read, and what data is that is of none of them.

Pillow tries every format it knows on a file. Some of them run other programs (EPS
starts Ghostscript), some are decoded in slow Python, most are never in a data set.
So the first bytes choose from a short list, whatever the ending of the name says:

JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF where Pillow has it, and the PBM/PGM/PPM/PFM
family, in which older data sets come.
"""

import codecs
import io
from collections.abc import Callable
from typing import NamedTuple

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ._errors import DecodeError

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    AvifImagePlugin = None


class Format(NamedTuple):
    """One readable format: how files begin and end, and Pillow's class for it."""

    name: str
    begins: tuple[bytes, ...]
    endings: tuple[str, ...]
    open: Callable[[io.BytesIO], ImageFile.ImageFile] | None


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
           AvifImagePlugin.AvifImageFile
           if AvifImagePlugin and AvifImagePlugin.SUPPORTED else None),
    Format("PPM", (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"),
           (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), PpmImagePlugin.PpmImageFile),
)  # fmt: skip

ENDINGS = frozenset(ending for format in FORMATS if format.open for ending in format.endings)

# What stands in the place of images most often, and what to do about it.
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
    """Return the format of encoded data, or raise DecodeError that says what it is."""
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
