import numpy as np
import pytest
from PIL import Image, ImageFilter

from sktransfer.images._collection import as_images
from sktransfer.monitoring._image_quality import MEASURES, quality_of


@pytest.fixture(scope="module")
def texture():
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 64), Image.Resampling.BILINEAR)


def measured(*images):
    values = quality_of(as_images(list(images)), None)
    return [dict(zip(MEASURES, row, strict=True)) for row in values.tolist()]


def test_darker_flatter_and_blurred_images_are_told_from_the_first(texture):
    darker = texture.point(lambda value: value // 2)
    blurred = texture.filter(ImageFilter.GaussianBlur(4))
    noisy = np.asarray(texture) ^ np.random.default_rng(1).integers(
        0, 32, (64, 96, 3), dtype=np.uint8
    )
    first, dark, soft, rough = measured(texture, darker, blurred, noisy)
    assert dark["brightness"] == pytest.approx(first["brightness"] / 2, rel=0.02)
    assert dark["contrast"] == pytest.approx(first["contrast"] / 2, rel=0.02)
    assert dark["sharpness"] == pytest.approx(first["sharpness"], rel=0.1)
    assert soft["sharpness"] < 0.5 * first["sharpness"]
    assert rough["sharpness"] > 1.5 * first["sharpness"]
    assert first["size"] == pytest.approx(np.sqrt(96 * 64))


def test_a_large_image_is_measured_at_the_size_that_networks_see(texture):
    large = texture.resize((960, 640), Image.Resampling.BICUBIC)
    huge = texture.resize((1920, 1280), Image.Resampling.BICUBIC)
    one, other = measured(large, huge)
    assert one["sharpness"] == pytest.approx(other["sharpness"], rel=0.1)


def test_an_even_image_has_no_sharpness_and_a_broken_one_no_measures():
    even, broken = measured(np.full((8, 8), 77, np.uint8), b"no image")
    assert even["contrast"] == even["sharpness"] == 0
    assert np.isnan(list(broken.values())).all()
