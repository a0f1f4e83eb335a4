"""Pictures that the tests of this folder draw themselves."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """Colour pixels (H, W, 3) whose four quarters differ; no side equals another's."""
    pixels = np.empty((20, 30, 3), dtype=np.uint8)
    pixels[:10, :15] = 250, 10, 20
    pixels[:10, 15:] = 15, 240, 30
    pixels[10:, :15] = 25, 35, 230
    pixels[10:, 15:] = 200, 180, 40
    return pixels


@pytest.fixture
def encode():
    """Encode a Pillow image or an array: encode(image, "PNG", ...) -> bytes."""

    def encode(image, format, **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    return encode
