import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, features

from sktransfer.images._colour import PixelRange
from sktransfer.images._decode import DecodeError, decode_bytes, decode_pil

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def _repeat(grey):
    return np.repeat(np.asarray(grey, dtype=np.uint8)[:, :, np.newaxis], 3, axis=2)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
    ],
)
def test_a_lossless_format_gives_every_pixel_back(format, options, picture, encode):
    np.testing.assert_array_equal(decode_bytes(encode(picture, format, **options)), picture)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("MPO", {}),
        ("GIF", {}),
        ("WEBP", {}),
        pytest.param("AVIF", {}, marks=needs_avif),
    ],
)
def test_a_lossy_format_gives_the_pixels_of_pillow(format, options, picture, encode):
    data = encode(picture, format, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_bytes(data), expected)
    assert np.abs(expected[3:7, 4:9].astype(int) - picture[3:7, 4:9]).max() < 40


MODES = {
    # mode: pixels of a Pillow image, the RGB that they mean
    "1": (np.array([[True, False]]), [[255] * 3, [0] * 3]),
    "L": (np.array([[7, 200]], dtype=np.uint8), [[7] * 3, [200] * 3]),
    "LA": (np.array([[[7, 255], [7, 0]]], dtype=np.uint8), [[7] * 3, [255] * 3]),
    "RGB": (np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8), [[1, 2, 3], [4, 5, 6]]),
    "RGBA": (
        np.array([[[1, 2, 3, 255], [4, 5, 6, 0], [100, 0, 0, 51]]], dtype=np.uint8),
        [[1, 2, 3], [255] * 3, [224, 204, 204]],
    ),
    "CMYK": (
        np.array([[[0, 0, 0, 0], [0, 255, 255, 0]]], dtype=np.uint8),
        [[255] * 3, [255, 0, 0]],
    ),
    "I;16": (np.array([[0, 65535, 32768]], dtype=np.uint16), [[0] * 3, [255] * 3, [128] * 3]),
    "F": (np.array([[0, 1, 0.5]], dtype=np.float32), [[0] * 3, [255] * 3, [128] * 3]),
    "I": (np.array([[-7, 13, 3]], dtype=np.int32), [[0] * 3, [255] * 3, [128] * 3]),
}
HOLDERS = [
    *[("TIFF", mode) for mode in MODES],
    *[("PNG", mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "I;16")],
    *[("BMP", mode) for mode in ("1", "L", "RGB")],
    *[("PPM", mode) for mode in ("1", "L", "RGB")],
    *[("WEBP", mode) for mode in ("RGB", "RGBA")],
    *[("", mode) for mode in MODES],
]


@pytest.mark.parametrize(("format", "mode"), HOLDERS)
def test_every_mode_means_the_same_colours_in_every_format(format, mode, encode):
    pixels, expected = MODES[mode]
    if mode == "CMYK":  # four channels, which an array alone does not tell from RGBA
        image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    else:
        image = Image.fromarray(pixels)
    assert image.mode == mode
    if format:
        options = {"lossless": True, "exact": True} if format == "WEBP" else {}
        decoded = decode_bytes(encode(image, format, **options))
    else:
        decoded = decode_pil(image)
    np.testing.assert_array_equal(decoded[0], expected)


def test_jpeg_in_cmyk_has_the_colours_that_pillow_shows(encode):
    image = Image.new("CMYK", (16, 16), (0, 200, 30, 10))
    data = encode(image, "JPEG", quality=100)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "CMYK"
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(decode_bytes(data), expected)


@pytest.mark.parametrize(
    ("format", "transparency"), [("GIF", 1), ("PNG", 1), ("PNG", bytes([255, 0, 255]))]
)
def test_transparent_entries_of_a_palette_lie_on_white(format, transparency, encode):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    decoded = decode_bytes(encode(image, format, transparency=transparency))
    assert decoded.tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


@pytest.mark.parametrize(
    ("pixels", "transparency", "expected"),
    [
        (np.array([[7, 8]], dtype=np.uint8), 8, [[7] * 3, [255] * 3]),
        (np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8), (4, 5, 6), [[1, 2, 3], [255] * 3]),
    ],
)
def test_a_colour_that_stands_for_transparency_becomes_white(
    pixels, transparency, expected, encode
):
    assert decode_bytes(encode(pixels, "PNG", transparency=transparency))[0].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "format", ["PNG", "TIFF", "WEBP", "JPEG", pytest.param("AVIF", marks=needs_avif)]
)
def test_a_picture_stands_upright_however_it_is_stored(format, orientation, picture, encode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(picture, format, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(decode_bytes(data), expected)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_pil(image), expected)
    if orientation == 6:  # the stored left column is the upper row
        assert expected.shape == (30, 20, 3)
        assert np.abs(expected[5, 15].astype(int) - picture[5, 5]).max() < 40


def test_a_picture_that_was_turned_already_is_not_turned_again(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(encode(picture, "PNG", exif=exif))) as image:
        upright = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(decode_pil(upright), np.asarray(upright))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0"])
def test_damaged_exif_leaves_the_picture_as_it_is_stored(exif, picture, encode):
    data = encode(picture, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_bytes(data), picture)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("GIF", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, marks=needs_avif),
    ],
)
def test_an_animated_file_gives_its_first_frame(format, options, encode):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    distance = np.abs(decode_bytes(data).astype(int) - [255, 0, 0])
    assert distance.max() <= (3 if format == "AVIF" else 0)


@pytest.mark.parametrize("values", [[0, 4095], [100, 200], [0, 0]])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_pictures_stay_comparable(format, values, encode):
    """One scale for all: a picture is not stretched to its own darkest and brightest."""
    pixels = np.array([values], dtype=np.uint16)
    decoded = decode_bytes(encode(pixels, format))
    np.testing.assert_array_equal(decoded[0, :, 0], np.rint(pixels[0] / 257))


def test_pixel_range_says_what_white_is_in_a_12_bit_scan(encode):
    data = encode(np.array([[0, 4095]], dtype=np.uint16), "TIFF")
    assert decode_bytes(data, PixelRange(0, 4095))[0, :, 0].tolist() == [0, 255]
    with pytest.raises(DecodeError, match="values from 0 to 4095 are outside 0 to 1000"):
        decode_bytes(data, PixelRange(0, 1000))
    clipped = decode_bytes(data, PixelRange(0, 1000, clip=True))
    assert clipped[0, :, 0].tolist() == [0, 255]


def test_pixel_range_does_not_change_8_bit_files(picture, encode):
    data = encode(picture, "PNG")
    np.testing.assert_array_equal(decode_bytes(data, PixelRange(0, 16)), picture)


@pytest.mark.parametrize("maximum", [300, 4095, 65535])
def test_a_pgm_file_says_its_own_maximum(maximum):
    data = b"P5 2 1 %d\n" % maximum + np.array([0, maximum], dtype=">u2").tobytes()
    assert decode_bytes(data)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_picture_with_nan_or_infinity_is_an_error(value, encode):
    pixels = np.array([[0.5, value, 0.25]], dtype=np.float32)
    with pytest.raises(DecodeError, match="NaN or infinite"):
        decode_bytes(encode(pixels, "TIFF"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_in_strips_equals_the_whole(mode, orientation, monkeypatch, encode):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(pixels[..., 0] / np.float32(255))
    else:
        image = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, "TIFF" if mode == "F" else "PNG", exif=exif)
    whole = decode_bytes(data)
    monkeypatch.setattr("sktransfer.images._colour._STRIP_PIXELS", 100)
    np.testing.assert_array_equal(decode_bytes(data), whole)
    assert whole.shape == ((37, 23, 3) if orientation == 1 else (23, 37, 3))


def test_threads_may_read_one_opened_image_at_once(encode):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = encode(pixels, "PNG")
    for _ in range(5):
        start = threading.Barrier(4)

        def read(image, start=start):
            start.wait()
            return decode_pil(image)

        with Image.open(io.BytesIO(data)) as image, ThreadPoolExecutor(4) as pool:
            for decoded in pool.map(read, [image] * 4):
                np.testing.assert_array_equal(decoded, pixels)


def test_a_user_s_image_keeps_its_mode_size_and_frame(encode):
    frames = [Image.new("L", (8, 8), grey) for grey in (10, 20, 30)]
    data = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        assert decode_pil(image)[0, 0, 0] == 20
        assert (image.mode, image.size, image.tell()) == ("L", (8, 8), 1)


def test_a_closed_image_is_an_error(picture, encode):
    image = Image.open(io.BytesIO(encode(picture, "PNG")))
    image.close()
    with pytest.raises(DecodeError):
        decode_pil(image)


def test_an_opened_image_that_another_program_would_draw_is_refused(monkeypatch):
    def start_ghostscript(*args, **kwargs):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", start_ghostscript)
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "EPS"
        with pytest.raises(DecodeError, match="EPS, opened but not loaded"):
            decode_pil(image)
    with pytest.raises(DecodeError, match="PostScript"):
        decode_bytes(data)


def test_pillow_s_globals_stay_as_they_are(picture, encode):
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decode_bytes(encode(picture, "JPEG"))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
