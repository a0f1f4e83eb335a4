"""Thumbnails: small, of the right shape, and lossless where they have few pixels."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, features

from sktransfer.images._thumbnail import thumbnail


def opened(made):
    kind, data = made.uri.removeprefix("data:image/").split(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format.lower() == kind
    return image


@pytest.fixture
def photograph():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC))


def test_the_longer_side_is_as_asked_and_the_shape_is_kept(photograph):
    made = thumbnail(photograph, 100)
    assert (made.width, made.height) == opened(made).size == (100, 75)
    tall = thumbnail(photograph.swapaxes(0, 1), 100)
    assert (tall.width, tall.height) == (75, 100)


def test_it_shows_the_image(photograph):
    wanted = np.asarray(Image.fromarray(photograph).resize((100, 75)), dtype=float)
    found = np.asarray(opened(thumbnail(photograph, 100)).convert("RGB"), dtype=float)
    assert np.abs(found - wanted).mean() < 8


def test_a_tiny_image_keeps_each_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    made = thumbnail(pixels, 100)
    assert made.is_tiny
    np.testing.assert_array_equal(np.asarray(opened(made)), pixels)


def test_without_webp_it_is_a_jpeg(photograph, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    assert opened(thumbnail(photograph, 100)).format == "JPEG"


def test_an_array_that_may_not_be_written_to_is_not_changed(photograph):
    photograph.flags.writeable = False
    before = photograph.copy()
    thumbnail(photograph, 64)
    np.testing.assert_array_equal(photograph, before)
