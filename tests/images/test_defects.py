"""What is wrong with files: each defect is a plain error, at once and without a warning."""

import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, features

from sktransfer.images import _formats
from sktransfer.images._collection import as_images
from sktransfer.images._decode import DecodeError, decode_bytes, decode_pil


def _png(width, height, data=b""):
    """A PNG file that promises a size."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _bomb():
    """The beginning of a picture of 400 million black pixels, which zlib makes small."""
    return _png(20_000, 20_000, zlib.compress(bytes(10**7)))


def _vp8x(width, height):
    content = b"\0\0\0\0" + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(width, height):
    return (
        b"GIF89a"
        + struct.pack("<HH", width, height)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", width, height)
        + b"\0\x02\x02\x4c\x01\0;"
    )


def _bmp(width, height):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def _tiff(width, height, **tags):
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    entries |= {int(tag.removeprefix("tag")): value for tag, value in tags.items()}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + b"\0\0\0\0"


CONTENTS = {
    # name: (content, words of the cause)
    "zero bytes": (b"", "empty, 0 bytes"),
    "one byte": (b"\xff", "not an image of a known format \\(JPEG, PNG"),
    "noise": (bytes(range(128, 256)) * 5, "not an image of a known format"),
    "text": (b"Not Found\n", "text, not an image"),
    "text in German": ("Größe".encode() * 999, "text, not an image"),
    "text of another script": (("画像" * 999).encode(), "text, not an image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
    "SVG with header": (b"<?xml version='1.0'?>\n<!-- a -->\n<svg/>", "SVG drawing"),
    "web page": (b"\n<!DOCTYPE HTML><html>404</html>", "web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "PDF": (b"%PDF-1.7", "PDF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
    "Photoshop": (b"8BPS\0\1", "Photoshop"),
    "icon": (b"\0\0\1\0\1\0", "ICO"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "film": (b"\0\0\0\x18ftypisom\0\0\0\0", "film"),
    "zip": (b"PK\x03\x04", "zip"),
    "NumPy": (b"\x93NUMPY\1\0", "numpy.load"),
    "bomb": (_bomb(), "20,000 x 20,000 pixels, more than the"),
    "largest PNG": (_png(2**31 - 1, 2**31 - 1), "pixels"),
    "side of 50,000": (_png(50_000, 4), "50,000 x 4 pixels, a side longer"),
    "height of 50,000": (_png(4, 50_000), "4 x 50,000 pixels, a side longer"),
    "BMP of 50,000": (_bmp(50_000, 50_000), "a side longer"),
    "GIF of 60,000": (_gif(60_000, 60_000), "a side longer"),
    "TIFF of 50,000": (_tiff(50_000, 50_000), "a side longer"),
    "TIFF of large tiles": (
        _tiff(8, 8, tag322=60_000, tag323=60_000, tag324=8, tag325=64),
        "tiles of 60,000 x 60,000",
    ),
    "TIFF of nothing": (b"II*\0", "damaged TIFF"),
    "TIFF whose pixels are missing": (_tiff(99, 99), "damaged TIFF"),
    "PPM of 50,000": (b"P6 50000 50000 255\n", "a side longer"),
    "PNG of 80 million pixels in 67 bytes": (_png(8000, 10_000), "promised, more than 57 bytes"),
    "GIF of 80 million pixels": (_gif(8000, 10_000), "pixels promised"),
    "BMP of 80 million pixels": (_bmp(8000, 10_000), "pixels promised"),
    "TIFF of 80 million pixels": (_tiff(8000, 10_000), "pixels promised"),
    "PPM of 80 million pixels": (b"P6 8000 10000 255\n", "pixels promised"),
    "PNG of no pixels": (_png(0, 0), "PNG"),
    "header alone": (b"\x89PNG\r\n\x1a\n", "damaged PNG"),
    "JPEG header alone": (b"\xff\xd8\xff", "damaged JPEG"),
    "WebP of 2**24": (_vp8x(2**24, 2**24), "WebP"),
}


@pytest.mark.parametrize("defect", CONTENTS)
@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_a_defect_is_an_error_with_its_cause(defect, kind, tmp_path):
    content, cause = CONTENTS[defect]
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    (image,) = as_images([path if kind == "path" else content])
    start = time.monotonic()
    with pytest.raises(DecodeError, match=cause):
        image.read()
    assert time.monotonic() - start < 5  # a busy machine; not one of them decodes


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("WEBP", {}),
        ("PPM", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        pytest.param(
            "AVIF", {}, marks=pytest.mark.skipif(not features.check("avif"), reason="no AVIF")
        ),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_an_error(format, options, share, encode):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(pixels, format, **options)
    assert decode_bytes(data).shape == pixels.shape
    with pytest.raises(DecodeError, match="damaged"):
        decode_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("PNG", "1", {"optimize": True}),
        ("PNG", "RGB", {}),
        ("GIF", "P", {}),
        ("JPEG", "L", {"optimize": True, "quality": 1}),
        ("JPEG", "RGB", {"progressive": True, "quality": 1}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "1", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "1", {}),
        ("TIFF", "L", {"compression": "packbits"}),
        ("BMP", "1", {}),
        ("PPM", "1", {}),
        ("WEBP", "RGB", {"lossless": True, "method": 0}),
    ],
)
def test_no_empty_picture_is_taken_for_more_than_its_bytes_can_hold(format, mode, options, encode):
    image = Image.new(mode, (2048, 1024))
    assert decode_bytes(encode(image, format, **options)).shape == (1024, 2048, 3)


def _make_directory(path):
    path.mkdir()


def _make_loop(path):
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def _make_dangling_link(path):
    path.symlink_to(path.with_name("missing"))


def _make_huge(path):
    with open(path, "wb") as file:
        file.truncate(_formats.MAX_BYTES + 1)


PLACES = {
    "nothing": (lambda path: None, "no such file"),
    "directory": (_make_directory, "a directory"),
    "FIFO": (os.mkfifo, "not a regular file"),
    "link to a FIFO": (
        lambda path: (os.mkfifo(path.with_name("f")), path.symlink_to(path.with_name("f"))),
        "not a regular file",
    ),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "loop of links": (_make_loop, "can't be opened \\(.*links"),
    "dangling link": (_make_dangling_link, "no such file"),
    "file of 257 MiB": (_make_huge, "268,435,457 bytes, more than"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["read", "digest"])
def test_what_is_no_file_is_an_error_and_never_waits(place, method, tmp_path):
    make, cause = PLACES[place]
    path = tmp_path / "photo.jpg"
    make(path)
    (image,) = as_images([str(path)])
    assert image.describe() == str(path)
    with pytest.raises(DecodeError, match=cause):
        getattr(image, method)()


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("a\0b.jpg", "can't be opened"),
        ("x" * 5000, "can't be opened"),
        ("file:///a.jpg", "pass the path of the file itself"),
    ],
)
def test_a_name_that_can_be_no_file_is_an_error(path, cause):
    (image,) = as_images([path])
    with pytest.raises(DecodeError, match=cause):
        image.read()


def test_a_fifo_that_takes_the_place_of_a_file_does_not_block(tmp_path, monkeypatch, encode):
    """Between the look at a path and its opening, another may put a FIFO there."""
    path = tmp_path / "photo.png"
    path.write_bytes(encode(Image.new("L", (2, 2)), "PNG"))
    monkeypatch.setattr("sktransfer.images._fingerprint.file_status", lambda path: os.stat(path))
    path.unlink()
    os.mkfifo(path)
    errors = []

    def read():
        try:
            as_images([path])[0].read()
        except DecodeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert errors == ["not a regular file, expected an image file"]


@pytest.mark.parametrize("size", [(20_000, 20_000), (50_000, 2)])
def test_an_opened_image_is_not_loaded_when_it_is_too_large(size, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # what a user does to open it
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(*size))
    with Image.open(path) as image:
        monkeypatch.setattr(type(image), "load", lambda self: pytest.fail("was loaded"))
        with pytest.raises(DecodeError, match="allowed"):
            decode_pil(image)


def test_a_jpeg_of_too_many_scans_is_an_error(encode):
    """Each scan of a progressive file passes over all pixels, and may be nearly empty."""
    data = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    few = data[:start] + scan * 5 + data[-2:]
    assert decode_bytes(few).shape == (64, 64, 3)
    many = data[:start] + scan * 500 + data[-2:]
    with pytest.raises(DecodeError, match="scans"):
        decode_bytes(many)


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 4, 5, 1000, 1001])
def test_scans_are_counted_wherever_they_begin(n_bytes):
    values = np.random.default_rng(n_bytes).choice([0xFF, 0xDA, 0x00], n_bytes)
    data = values.astype(np.uint8).tobytes()
    assert _formats._count_scans(data) == data.count(b"\xff\xda")


def test_a_user_s_lower_limit_in_pillow_warns_of_nothing(monkeypatch, encode):
    data = encode(Image.new("RGB", (64, 64)), "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert decode_bytes(data).shape == (64, 64, 3)


def test_the_largest_sizes_allowed_are_allowed():
    _formats.check_size((_formats.MAX_SIDE, 1), "PNG")
    _formats.check_size((9459, 9459), "PNG")
    with pytest.raises(DecodeError, match="89,478,485"):
        _formats.check_size((9460, 9460), "PNG")
    with pytest.raises(DecodeError, match="50,000,000"):
        _formats.check_size((9000, 9000), "WEBP")
