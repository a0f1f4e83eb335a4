"""Drawn images of two kinds: as they are, and darker with less contrast."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def blobs():
    """Return 24 images (24, 32, 32, 3) of bright squares at random places."""
    rng = np.random.default_rng(0)
    images = rng.integers(60, 120, (24, 32, 32, 3))
    for image in images:
        top, left = rng.integers(0, 20, 2)
        image[top : top + 10, left : left + 10] += rng.integers(60, 130, 3)
    return images.astype(np.uint8)


@pytest.fixture(scope="session")
def dark_blobs(blobs):
    """Return the same with a third of the contrast."""
    return (blobs // 3).astype(np.uint8)
