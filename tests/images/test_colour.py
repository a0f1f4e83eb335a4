import io
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sktransfer.images._decode import decode_bytes, decode_pil


def _srgb():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _swapped():
    """An sRGB profile whose red and green primaries have changed places."""
    profile = _srgb()
    return profile.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")


def _shown(image):
    """The colours of Pillow's own conversion of the embedded profile, in one step."""
    source = ImageCms.getOpenProfile(io.BytesIO(image.info["icc_profile"]))
    target = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(image, source, target, outputMode="RGB"))


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("TIFF", {}), ("JPEG", {}), ("WEBP", {"lossless": True})],
)
def test_an_embedded_profile_is_followed(format, options, picture, encode):
    data = encode(picture, format, icc_profile=_swapped(), **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = _shown(image)
    decoded = decode_bytes(data)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded[4, 4].argmax() == 1  # the red quarter is green


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_a_profile_is_followed_in_every_colour_mode(mode, encode):
    image = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    assert decode_bytes(encode(image, "PNG", icc_profile=_swapped()))[0, 0].argmax() == 1


def test_transparency_lies_on_white_whatever_the_profile(encode):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_bytes(encode(image, "PNG", icc_profile=_swapped())) == 255).all()


def test_an_srgb_profile_changes_no_pixel(encode):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_bytes(encode(pixels, "PNG", icc_profile=_srgb())), pixels)


@pytest.mark.parametrize(
    "profile",
    [b"x", b"\0" * 200, _srgb()[:300], _srgb()[:16] + b"CMYK" + _srgb()[20:]],
    ids=["short", "zeros", "cut", "of another colour space"],
)
def test_a_profile_that_can_not_be_used_leaves_the_colours(profile, picture, encode):
    data = encode(picture, "PNG", icc_profile=profile)
    np.testing.assert_array_equal(decode_bytes(data), picture)


def test_a_colour_profile_on_a_grey_picture_leaves_the_greys(encode):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    decoded = decode_bytes(encode(grey, "PNG", icc_profile=_swapped()))
    np.testing.assert_array_equal(decoded[..., 0], grey)


def test_lab_pictures_are_shown_in_srgb(encode):
    image = Image.new("LAB", (4, 4), (0, 128, 128))
    image.paste((255, 128, 128), (0, 0, 2, 4))
    for decoded in (decode_pil(image), decode_bytes(encode(image, "TIFF"))):
        assert decoded[0, 0].min() > 250
        assert decoded[0, 3].max() < 5


def test_a_profile_in_a_pillow_image_is_followed(tmp_path, encode):
    path = pathlib.Path(tmp_path, "a.png")
    path.write_bytes(encode(Image.new("RGB", (4, 4), "red"), "PNG", icc_profile=_swapped()))
    with Image.open(path) as image:
        np.testing.assert_array_equal(decode_pil(image), decode_bytes(path.read_bytes()))
        assert decode_pil(image)[0, 0].argmax() == 1
