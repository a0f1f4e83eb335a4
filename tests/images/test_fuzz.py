"""Damaged files: each is an error or a picture. benchmarks/fuzz_decode.py does more of them."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from sktransfer.images._colour import PixelRange
from sktransfer.images._decode import DecodeError, decode_bytes


def _draw_files():
    noise = np.random.default_rng(0).integers(0, 256, (24, 31, 4), dtype=np.uint8)
    noise[8:] = 40  # and a plain part
    colour, alpha = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds = [
        (colour, "JPEG", {"exif": exif, "icc_profile": profile}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (alpha, "PNG", {"exif": exif, "icc_profile": profile}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour, "PNG", {"save_all": True, "append_images": [colour.rotate(90)]}),
        (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(180)]}),
        (alpha, "WEBP", {"exif": exif, "icc_profile": profile}),
        (colour, "WEBP", {"lossless": True}),
        (colour, "BMP", {}),
        (colour, "TIFF", {"exif": exif}),
        (colour, "TIFF", {"compression": "tiff_lzw", "icc_profile": profile}),
        (colour, "TIFF", {"compression": "jpeg"}),
        (colour.convert("1"), "TIFF", {"compression": "group4"}),
        (Image.fromarray(noise[..., 0].astype(np.uint16)), "TIFF", {}),
        (Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF", {}),
        (colour, "PPM", {}),
    ]
    if features.check("avif"):
        kinds.append((alpha, "AVIF", {"exif": exif}))
    files = []
    for image, format, options in kinds:
        file = io.BytesIO()
        image.save(file, format, **options)
        files.append(file.getvalue())
    return files


FILES = _draw_files()

# Most fields that decide anything stand in the first bytes.
places = st.one_of(st.integers(0, 200), st.integers(0, 10_000))
edits = st.one_of(
    st.tuples(st.just("set"), places, st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])),
    st.tuples(st.just("flip"), places, st.integers(0, 7)),
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("remove"), places, st.integers(1, 40)),
    st.tuples(st.just("cut"), places, st.none()),
    st.tuples(st.just("header of"), st.integers(4, 64), st.sampled_from(FILES)),
)


def _apply(data, edit):
    kind, place, value = edit
    data = bytearray(data)
    if kind == "header of":
        data[:place] = value[:place]
    elif data:
        place %= len(data)
        if kind == "set":
            data[place] = value
        elif kind == "flip":
            data[place] ^= 1 << value
        elif kind == "insert":
            data[place:place] = value
        elif kind == "remove":
            del data[place : place + value]
        else:
            del data[place:]
    return bytes(data)


def _picture_or_cause(data):
    """Return "picture" or the cause of the error; anything else is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            pixels = decode_bytes(data)
        except DecodeError as error:
            cause = str(error)
            pixels = None
    if pixels is None:
        assert cause
        assert "\n" not in cause
        return cause
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size > 0
    return "picture"


@pytest.mark.parametrize("data", FILES)
def test_the_files_that_are_damaged_below_are_whole(data):
    assert decode_bytes(data, PixelRange(0, 255)).size > 0


@settings(
    max_examples=1500,
    deadline=5000,  # milliseconds, on a busy machine
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
@given(st.sampled_from(FILES), st.lists(edits, min_size=1, max_size=4))
def test_a_damaged_file_is_an_error_or_a_picture(data, changes):
    for change in changes:
        data = _apply(data, change)
    _picture_or_cause(data)


@settings(max_examples=300, derandomize=True, database=None)
@given(st.sampled_from([data[:12] for data in FILES] + [b"P3 ", b"BM"]), st.binary(max_size=200))
def test_a_true_beginning_and_any_bytes_are_an_error_or_a_picture(start, rest):
    _picture_or_cause(start + rest)


@pytest.mark.parametrize("data", FILES)
def test_every_cut_of_a_file_is_an_error_or_a_picture(data):
    step = max(1, len(data) // 60)
    outcomes = [_picture_or_cause(data[:end]) for end in range(0, len(data), step)]
    assert outcomes[0] == "empty, 0 bytes"
    assert sum(outcome != "picture" for outcome in outcomes) > len(outcomes) / 2
