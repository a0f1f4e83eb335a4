"""What one image may cost, checked before any pixel is decoded.

The header of a file may promise any size, so it is looked at first. The limits keep
one image below 1 GB of memory and, from honest files, within a few seconds.
"""

from PIL import Image

from ._errors import DecodeError

# Pillow's own line between a picture and a bomb: a quarter of a GiB at 3 bytes each.
# Pillow holds 4 bytes a pixel and the result has 3, so this many take 0.6 GB.
MAX_PIXELS = 2**28 // 3
# These two decoders keep further copies of the whole picture: 17 bytes a pixel in all.
MAX_PIXELS_OF = {"WEBP": 50_000_000, "AVIF": 50_000_000}
# The longest panoramas of phones and cameras are near 30,000 pixels.
MAX_SIDE = 2**15
# MAX_PIXELS without compression. A file is read whole.
MAX_BYTES = 2**28
# Encoders write about 10 scans, each over all pixels. A file of a few kB can hold
# thousands of empty ones, and each takes as long as a whole picture.
MAX_JPEG_SCANS = 100


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


def check_bytes(n_bytes: int) -> None:
    """Raise DecodeError for a file that is empty, or too large to be read whole."""
    if n_bytes == 0:
        raise DecodeError("empty, 0 bytes")
    if n_bytes > MAX_BYTES:
        raise DecodeError(f"{n_bytes:,} bytes, more than the {MAX_BYTES:,} allowed")


def check_inner_size(image: Image.Image, data: bytes) -> None:
    """Raise DecodeError for a small picture whose inside asks for much work."""
    if image.format == "JPEG":
        n_scans = data.count(b"\xff\xda")  # in coded data 0xFF is followed by a zero
        if n_scans > MAX_JPEG_SCANS:
            raise DecodeError(f"{n_scans:,} scans, more than the {MAX_JPEG_SCANS} allowed")
    if image.format == "TIFF":
        tile = image.tag_v2.get(322), image.tag_v2.get(323)  # TileWidth, TileLength
        if all(isinstance(side, int) for side in tile) and tile[0] * tile[1] > MAX_PIXELS:
            raise DecodeError(f"tiles of {tile[0]:,} x {tile[1]:,} pixels")
