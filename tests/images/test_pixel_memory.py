"""Pixels are read in Pillow's own memory, and are those that Pillow gives away."""

import ctypes
import gc

import numpy as np
import pytest
from PIL import Image

from sktransfer.exceptions import DecodeError
from sktransfer.images import _colour
from sktransfer.images._decode import decode_bytes, decode_pil
from sktransfer.images._pixel_memory import pixel_memory


def noise(height, width):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 33)])
def test_the_memory_holds_the_pixels_and_a_fourth_value(shape):
    image = noise(*shape)
    memory = pixel_memory(image)
    assert memory.shape == (*shape, 4)
    np.testing.assert_array_equal(memory[..., :3], np.asarray(image))


def test_the_memory_lives_as_long_as_its_array():
    image = noise(300, 200)
    expected = np.asarray(image).copy()
    memory = pixel_memory(image)[..., :3]
    del image
    gc.collect()
    others = [Image.new("RGB", (200, 300), "white") for _ in range(20)]
    np.testing.assert_array_equal(memory, expected)
    del others


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I", "F", "P"])
def test_other_modes_are_not_lent(mode):
    assert pixel_memory(Image.new(mode, (4, 4))) is None


def test_memory_in_several_parts_is_not_lent_and_is_read_all_the_same():
    image = noise(2100, 2100)
    assert pixel_memory(image) is None
    rows = np.empty((2100, 2100, 3), dtype=np.uint8)
    _colour.fill_rgb(image, rows, None, is_ours=True)
    np.testing.assert_array_equal(rows, np.asarray(image))


def test_rows_that_are_aligned_are_not_lent():
    before = Image.core.get_alignment()
    Image.core.set_alignment(64)
    try:
        assert pixel_memory(noise(3, 7)) is None
        # no gap between rows, but Pillow before 13 lends what is before the first
        assert pixel_memory(noise(3, 16)) is None
    finally:
        Image.core.set_alignment(before)


def test_types_that_another_library_sets_change_nothing(monkeypatch):
    monkeypatch.setattr(ctypes.pythonapi.PyCapsule_GetPointer, "argtypes", [ctypes.c_int])
    assert pixel_memory(noise(3, 7)).shape == (3, 7, 4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_memory_of_a_user_s_image_is_not_lent(mode, monkeypatch):
    image = noise(21, 34).convert(mode)
    monkeypatch.setattr(_colour, "pixel_memory", None)  # which can't be called
    np.testing.assert_array_equal(decode_pil(image), np.asarray(image.convert("RGB")))


def test_a_user_s_image_made_of_another_s_memory_is_read():
    lender = noise(21, 34)
    image = Image.fromarrow(lender, "RGB", lender.size)  # Pillow before 13 can't lend that
    np.testing.assert_array_equal(decode_pil(image), np.asarray(lender))


@pytest.mark.parametrize("size", [(0, 0), (5, 0), (0, 5)])
def test_a_user_s_image_without_pixels_is_an_error(size):
    with pytest.raises(DecodeError, match=r"no pixels, size \(\d, \d\)"):
        decode_pil(Image.new("RGB", size))


MODES = ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr"]
FORMATS = {"CMYK": "JPEG", "YCbCr": "JPEG"}


@pytest.mark.parametrize("mode", MODES)
def test_padded_pixels_are_the_same(mode, encode):
    data = encode(noise(21, 34).convert(mode), FORMATS.get(mode, "PNG"))
    padded = decode_bytes(data, padded=True)
    assert padded.shape == (21, 34, 4)
    np.testing.assert_array_equal(padded[..., :3], decode_bytes(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_padded_pixels_are_upright(orientation, encode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(noise(21, 34), "JPEG", exif=exif)
    padded = decode_bytes(data, padded=True)
    assert padded.shape[2] == (4 if orientation == 1 else 3)
    np.testing.assert_array_equal(padded[..., :3], decode_bytes(data))


def test_images_of_more_than_8_bits_are_not_padded(encode):
    deep = Image.fromarray(np.arange(0, 60_000, 100, dtype=np.uint16).reshape(20, 30))
    data = encode(deep, "PNG")
    np.testing.assert_array_equal(decode_bytes(data, padded=True), decode_bytes(data))


def test_an_image_of_several_strips_is_not_padded(monkeypatch, encode):
    data = encode(noise(21, 34), "PNG")
    whole = decode_bytes(data)
    monkeypatch.setattr(_colour, "_STRIP_PIXELS", 34 * 5)
    np.testing.assert_array_equal(decode_bytes(data, padded=True), whole)


def test_pixels_that_pillow_does_not_lend_are_the_same(monkeypatch, encode):
    data = encode(noise(21, 34), "JPEG")
    lent = decode_bytes(data)
    monkeypatch.setattr(_colour, "pixel_memory", lambda image: None)
    np.testing.assert_array_equal(decode_bytes(data), lent)
    np.testing.assert_array_equal(decode_bytes(data, padded=True), lent)
