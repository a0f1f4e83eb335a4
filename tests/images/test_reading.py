"""`read_image` gives the pixels that an estimator sees."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from sktransfer import PretrainedFeatureTransformer, read_image
from sktransfer.exceptions import ImageReadError


def encoded(**options):
    """Return the bytes of a drawn image whose sides and corners differ."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    pixels[:20, :20] = (255, 0, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(exif=exif)


def with_profile():
    """Return an image in the colours of sRGB with red and green exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"tmp!"), (b"gXYZ", b"rXYZ"), (b"tmp!", b"gXYZ")):
        profile = profile.replace(old, new)
    return encoded(icc_profile=profile)


@pytest.mark.parametrize("make", [encoded, turned, with_profile])
def test_its_pixels_give_the_row_of_the_file(make):
    data = make()
    transformer = PretrainedFeatureTransformer("mini", depth=2, feature_cache=None).fit([data])
    np.testing.assert_array_equal(
        transformer.transform([read_image(data)]), transformer.transform([data])
    )


def test_an_image_is_turned_upright():
    assert read_image(encoded()).shape == (40, 60, 3)
    assert read_image(turned()).shape == (60, 40, 3)
    assert read_image(turned()).dtype == np.uint8


def test_a_colour_profile_is_followed():
    assert read_image(encoded())[5, 5].argmax() == 0
    assert read_image(with_profile())[5, 5].argmax() == 1


def test_the_values_of_arrays_are_those_of_pixel_range():
    grey = np.array([[0, 8], [16, 4]])
    np.testing.assert_array_equal(
        read_image(grey, pixel_range=(0, 16))[..., 2], [[0, 128], [255, 64]]
    )


def test_an_image_that_cannot_be_read_is_an_error_with_its_path(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"broken\.png") as caught:
        read_image(path)
    assert caught.value.failures[0].source == str(path)
    assert caught.value.__cause__ is None


def test_what_is_no_image_is_an_error():
    with pytest.raises(TypeError, match="no cell of X is an image"):
        read_image(3.5)


@pytest.mark.parametrize("pixel_range", ["fit", 5, (0, 1, 2), (1, 0), (1, 1), (0, float("nan"))])
def test_what_is_no_range_is_refused(pixel_range):
    with pytest.raises(ValueError, match=r"pixel_range must be None or \(low, high\)"):
        read_image(np.zeros((2, 2)), pixel_range=pixel_range)
