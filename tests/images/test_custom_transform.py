import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from sktransfer._spec import InputSpec
from sktransfer.images._augment import AugmentedView, make_augmentation
from sktransfer.images._preprocess import preprocess

SPEC = InputSpec(32, 36, mean=(0, 0, 0), std=(1, 1, 1))
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def _view(transform, pixels=PIXELS):
    return AugmentedView(make_augmentation(transform), 0, 0).pixels(pixels, SPEC, b"digest")


class OwnFlip(v2.RandomHorizontalFlip):
    pass


def test_a_transform_is_given_the_whole_image():
    seen = []
    _view(lambda image: seen.append(image.clone()) or image)
    assert seen[0].dtype == torch.uint8
    assert seen[0].is_contiguous()
    np.testing.assert_array_equal(seen[0].permute(1, 2, 0).numpy(), PIXELS)


def test_what_it_returns_is_preprocessed_like_any_image():
    assert torch.equal(_view(nn.Identity()), preprocess(PIXELS, SPEC))
    crop = preprocess(np.ascontiguousarray(PIXELS[:50, :40]), SPEC)
    assert torch.equal(_view(lambda image: image[:, :50, :40]), crop)


def test_what_has_the_network_s_size_already_is_left_as_it_is():
    square = v2.Resize((32, 32))(torch.from_numpy(PIXELS).permute(2, 0, 1))
    assert torch.equal(_view(v2.Resize((32, 32))), square)


def test_floats_between_0_and_1_are_taken():
    floats = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    assert torch.equal(_view(v2.Compose(floats)), preprocess(PIXELS, SPEC))
    half = _view(lambda image: image.to(torch.float64) / 510)
    assert half.dtype == torch.uint8
    assert half.float().mean() == pytest.approx(PIXELS.mean() / 2, abs=2)


def test_bicubic_overshoot_is_cut_off():
    # the signs of bicubic weights at the middle of four pixels: the worst that can be
    signs = np.array([-1, 1, 1, -1])
    worst = np.kron(np.ones((8, 8)), np.where(np.outer(signs, signs) > 0, 255, 0))
    pixels = np.repeat(worst.astype(np.uint8)[..., None], 3, axis=2)
    resize = v2.Resize(96, interpolation=v2.InterpolationMode.BICUBIC, antialias=False)
    floats = v2.Compose([v2.ToDtype(torch.float32, scale=True), resize])
    raw = floats(torch.from_numpy(pixels).permute(2, 0, 1))
    assert raw.max() > 1.35
    assert raw.min() < -0.25
    assert _view(floats, pixels).shape == (3, 32, 32)


def test_writing_to_the_image_does_not_change_the_user_s_pixels():
    pixels = PIXELS.copy()
    assert _view(lambda image: image.zero_(), pixels).max() == 0
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda image: image.numpy(), "got ndarray"),
        (lambda image: None, "got NoneType"),
        (lambda image: Image.new("RGB", (40, 40)), "got a PIL image, add v2.PILToTensor"),
        (v2.Grayscale(1), r"got shape \(1, 60, 80\)"),
        (lambda image: image[None], r"got shape \(1, 3, 60, 80\)"),
        (lambda image: image[:, :0], r"got shape \(3, 0, 80\)"),
        (lambda image: image.long(), "got torch.int64"),
        (lambda image: image > 9, "got torch.bool"),
        (v2.ToDtype(torch.float32, scale=False), "got floats from 0 to 255"),
        (lambda image: image / 255 * 2 - 1, "got floats from -1 to 1"),
        (lambda image: image * float("nan"), "got floats from nan to nan"),
    ],
)
def test_a_wrong_result_says_what_came_and_what_is_allowed(transform, said):
    with pytest.raises(ValueError, match=rf"^augment must return an image.*{said}"):
        _view(transform)


def test_an_error_inside_names_the_parameter_and_the_image():
    with pytest.raises(ValueError, match=r"^augment failed on .* \(3, 60, 80\).*: Required crop"):
        _view(v2.RandomCrop(500))
    with pytest.raises(ValueError, match=r"^augment failed .* TypeError: pic should be"):
        _view(v1.ToTensor())
    with pytest.raises(ValueError, match=r"^augment failed .* dropout draws"):
        _view(lambda image: nn.functional.dropout(image / 255))


@pytest.mark.parametrize("where", [v2.Compose, v1.Compose, lambda parts: nn.Sequential(*parts)])
@pytest.mark.parametrize("kind", [v1.Normalize, v2.Normalize])
def test_normalisation_is_refused_before_any_image_is_read(where, kind):
    inner = v2.RandomApply([kind([0.5] * 3, [0.5] * 3)], p=0.1)
    with pytest.raises(ValueError, match=r"leave v2\.Normalize out of augment"):
        make_augmentation(where([v2.RandomHorizontalFlip(), inner]))


def test_a_scripted_transform_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch say it is deprecated
        scripted = torch.jit.script(nn.Identity())
    with pytest.raises(ValueError, match=r"before torch\.jit\.script"):
        make_augmentation(v2.Compose([scripted]))


def _name(transform):
    return make_augmentation(transform).name


def test_torchvision_s_transforms_have_a_name_that_states_all_of_them():
    flip = [v2.RandomHorizontalFlip()]
    kinds = [
        v2.RandomHorizontalFlip(0.1),
        v2.RandomHorizontalFlip(0.2),
        v2.RandomApply(flip, 0.1),
        v2.RandomApply(flip, 0.2),
        v2.RandomChoice([*flip, v2.RandomVerticalFlip()], p=[0.1, 0.9]),
        v2.RandomChoice([*flip, v2.RandomVerticalFlip()], p=[0.2, 0.8]),
        nn.Sequential(*flip),
        nn.Sequential(*flip, *flip),
        v2.RandomAffine(10, fill=0),
        v2.RandomAffine(10, fill={torch.Tensor: 5}),
        v2.RandomAffine(10, fill={torch.Tensor: 6}),
        v2.LinearTransformation(torch.eye(3), torch.zeros(3)),
        v2.LinearTransformation(torch.eye(3), torch.ones(3)),
        v2.ToDtype(torch.float32, scale=True),
        v2.ToDtype(torch.float64, scale=True),
        v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
        v2.AutoAugment(v2.AutoAugmentPolicy.SVHN),
        v2.TrivialAugmentWide(),
        v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR),
    ]
    names = [_name(kind) for kind in kinds]
    assert None not in names
    assert len(set(names)) == len(kinds)


def test_equal_transforms_have_equal_names():
    make = [
        lambda: v2.Compose([v2.RandomResizedCrop(32), v2.ColorJitter(0.1), v2.RandAugment()])
    ] * 2
    first, second = (_name(build()) for build in make)
    assert first == second
    assert "torchvision" in first


def test_code_of_others_has_no_name():
    hooked = v2.RandomHorizontalFlip()
    hooked.register_forward_hook(lambda *args: None)
    for transform in (
        lambda image: image,
        v2.Lambda(lambda image: image),
        v2.Compose([v2.Lambda(lambda image: image)]),
        OwnFlip(),
        nn.Sequential(OwnFlip()),
        v1.RandomHorizontalFlip(),
        nn.Conv2d(3, 3, 1),
        hooked,
    ):
        assert _name(transform) is None
