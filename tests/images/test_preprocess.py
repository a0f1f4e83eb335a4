import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from sktransfer._spec import InputSpec
from sktransfer.images import _preprocess
from sktransfer.images._decode import decode_bytes
from sktransfer.images._preprocess import preprocess

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def _noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(60, 60), (40, 90), (91, 47), (20, 20), (32, 33)])
def test_pixels_equal_those_of_torchvision_s_preset(shape, interpolation):
    spec = InputSpec(size=32, resize=36, interpolation=interpolation, **PLAIN)
    pixels = _noise(*shape)
    preset = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(36, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(32),
        ]
    )
    result = preprocess(pixels, spec)
    assert result.dtype == torch.uint8
    # torchvision 0.21 resizes in floats on processors with AVX-512, and rounds otherwise
    most = 1 if torchvision.__version__.startswith("0.21.") else 0
    np.testing.assert_allclose(result.numpy(), preset(pixels).numpy(), rtol=0, atol=most)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2), (400, 90), (90, 400)])
@pytest.mark.parametrize("spec", [InputSpec(32, 36, **PLAIN), InputSpec(32, 24, **PLAIN)])
def test_any_shape_becomes_the_square_in_bounded_memory(shape, spec):
    assert preprocess(_noise(*shape), spec).shape == (3, 32, 32)


def test_an_image_of_the_right_size_is_not_resampled():
    pixels = _noise(32, 32)
    result = preprocess(pixels, InputSpec(32, 32, **PLAIN))
    np.testing.assert_array_equal(result.permute(1, 2, 0).numpy(), pixels)


def test_a_very_long_image_is_shown_whole():
    pixels = np.zeros((10, 1000, 3), dtype=np.uint8)
    pixels[:, 500:] = 255
    result = preprocess(pixels, InputSpec(32, 36, **PLAIN))
    assert result[:, :, :15].max() == 0
    assert result[:, :, 17:].min() == 255


@pytest.mark.parametrize("shape", [(40, 50), (32, 32), (32, 40)])
def test_writing_to_the_result_does_not_change_the_user_s_pixels(shape):
    pixels = _noise(*shape)
    before = pixels.copy()
    preprocess(pixels, InputSpec(32, 32, **PLAIN)).zero_()
    np.testing.assert_array_equal(pixels, before)


def test_a_turned_photograph_goes_through(encode):
    exif = Image.Exif()
    exif[0x0112] = 7
    pixels = decode_bytes(encode(_noise(40, 50), "PNG", exif=exif))
    assert preprocess(pixels, InputSpec(32, 36, **PLAIN)).shape == (3, 32, 32)


@pytest.mark.parametrize("shape", [(60, 60), (40, 90), (20, 200)])
def test_squash_shows_an_image_whole_and_not_in_its_proportions(shape):
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    pixels[:, shape[1] // 2 :] = 255
    square = preprocess(pixels, InputSpec(size=32, resize=32, crop="squash", **PLAIN))
    assert square.shape == (3, 32, 32)
    assert square[:, :, :14].max() == 0
    assert square[:, :, 18:].min() == 255


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("shape", [(60, 60), (36, 36), (32, 32), (40, 90), (91, 47), (9, 90)])
@pytest.mark.parametrize("has_kernel_of_four", [True, False])
def test_a_fourth_value_changes_nothing(shape, interpolation, has_kernel_of_four, monkeypatch):
    monkeypatch.setattr(_preprocess, "_resizes_four_channels", lambda: has_kernel_of_four)
    spec = InputSpec(size=32, resize=36, interpolation=interpolation, **PLAIN)
    pixels = _noise(*shape)
    padded = np.concatenate([pixels, _noise(*shape)[..., :1]], axis=2)
    expected, result = preprocess(pixels, spec), preprocess(padded, spec)
    assert torch.equal(result, expected)
    # the order of a batch in memory decides which kernels compute the network
    assert torch.stack([result] * 2).stride() == torch.stack([expected] * 2).stride()
