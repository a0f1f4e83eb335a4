import numpy as np
import pytest
from PIL import Image, ImageFilter

from sktransfer.hygiene._hash import hash_image
from sktransfer.hygiene._reading import images_of
from sktransfer.inspection._pictures import read_pictures


@pytest.fixture(scope="module")
def scene():
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((160, 120), Image.Resampling.NEAREST)


def read(X, shown=()):
    return read_pictures(images_of(X, None, None), shown, 48, None)


def test_blurred_images_are_less_sharp_and_dark_ones_less_bright(scene):
    blurred = scene.filter(ImageFilter.GaussianBlur(3))
    dark = scene.point(lambda level: level // 3)
    first, second, third, flat = read([scene, blurred, dark, np.full((9, 9), 255, np.uint8)])
    assert second.sharpness < first.sharpness / 4
    assert third.brightness == pytest.approx(first.brightness / 3, abs=0.01)
    assert (flat.sharpness, flat.brightness) == (0.0, 1.0)
    assert (first.width, first.height, first.size) == (160, 120, 120)


def test_sharpness_does_not_depend_on_how_large_the_file_is(scene):
    large = scene.resize((1600, 1200), Image.Resampling.BICUBIC)
    larger = scene.resize((2400, 1800), Image.Resampling.BICUBIC)
    first, second = read([large, larger])
    assert second.sharpness == pytest.approx(first.sharpness, rel=0.1)


def test_thumbnails_are_made_of_those_that_are_shown(scene):
    X = [scene, scene.rotate(180), scene.rotate(90)]
    pictures = read(X, shown=[2, 0])
    assert [picture.thumbnail is not None for picture in pictures] == [True, False, True]
    assert pictures[0].thumbnail.width == 48
    np.testing.assert_array_equal(pictures[1].hash, hash_image(np.asarray(X[1].convert("RGB"))))


def test_an_image_that_can_not_be_read_is_none(scene):
    assert read([b"no image", scene], shown=[0])[0] is None


def test_an_image_of_a_pixel_has_a_quality():
    (picture,) = read([np.full((1, 1), 51, np.uint8)], shown=[0])
    assert (picture.sharpness, picture.brightness) == (0.0, pytest.approx(0.2))
