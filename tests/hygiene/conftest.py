"""Images that the tests of hygiene share."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def scene():
    """Return a function that draws another coarse coloured picture for each seed."""

    def draw(seed, size=(96, 64)):
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)

    return draw


@pytest.fixture
def encode():
    """Return a function that writes an image into bytes."""

    def write(image, format="PNG", **options):
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    return write
