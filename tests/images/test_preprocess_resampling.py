import numpy as np
import pytest
import torch

from sktransfer._spec import InputSpec
from sktransfer.images._preprocess import Resampling, preprocess

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
SHAPES = [
    (60, 60),
    (40, 90),
    (91, 47),
    (20, 20),
    (32, 33),
    (36, 36),
    (36, 37),
    (1, 1),
    (1, 500),
    (500, 1),
    (3, 2),
    (100, 400),
    (100, 401),
    (401, 100),
    (333, 500),
]


@pytest.mark.parametrize("crop", ["center", "squash"])
@pytest.mark.parametrize("resize", [36, 32, 24, 73])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_equal_those_of_preprocess(interpolation, resize, crop):
    spec = InputSpec(32, resize, interpolation=interpolation, crop=crop, **PLAIN)
    resampling = Resampling(spec)
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        result = resampling(torch.from_numpy(pixels)[None])
        assert result.dtype == torch.uint8
        assert torch.equal(result[0], preprocess(pixels, spec)), shape


def test_images_of_a_batch_do_not_depend_on_each_other():
    resampling = Resampling(InputSpec(32, 36, **PLAIN))
    images = torch.randint(0, 256, (3, 40, 50, 3), dtype=torch.uint8)
    alone = torch.cat([resampling(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(resampling(images), alone, rtol=0, atol=0)


def test_another_interpolation_is_refused():
    with pytest.raises(ValueError, match=r"interpolation='nearest' can't be exported; 'bilinear'"):
        Resampling(InputSpec(32, 36, interpolation="nearest", **PLAIN))
