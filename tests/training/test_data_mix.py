import pytest
import torch

from sktransfer.training._data import mix_batch


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def batch(n=6):
    """Return images whose every value is their number, one-hot targets, weights of one."""
    images = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 2, 8, 8)
    return images.contiguous(), torch.eye(n), torch.ones(n)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_targets_are_mixed_as_the_images_are(mix):
    images, targets, weights = batch()
    mixed, mixed_targets, mixed_weights = mix_batch(images, targets, weights, mix, 1.0)
    assert not mixed.equal(images)
    # the mean of an image's values is the same mixture of numbers as its target's
    numbers = mixed_targets @ torch.arange(6.0)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), numbers)
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(6))
    torch.testing.assert_close(mixed_weights, weights)


def test_cutmix_takes_whole_rectangles():
    images, targets, weights = batch()
    mixed, _, _ = mix_batch(images, targets, weights, "cutmix", 1.0)
    for image, own in zip(mixed, images, strict=True):
        strange = image[0] != own[0]
        rows, columns = strange.any(1), strange.any(0)
        assert strange.sum() == rows.sum() * columns.sum()


def test_an_image_of_weight_zero_adds_nothing_to_a_target():
    images, targets, _ = batch()
    weights = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    _, mixed_targets, mixed_weights = mix_batch(images, targets, weights, "mixup", 1.0)
    assert mixed_targets[mixed_weights > 0][:, :3].abs().max() == 0
    assert mixed_weights.sum() == pytest.approx(weights.sum().item())


def test_images_in_8_bits_are_mixed_as_numbers():
    images, targets, weights = batch()
    mixed, _, _ = mix_batch((images * 40).to(torch.uint8), targets, weights, "mixup", 1.0)
    assert mixed.is_floating_point()
    assert mixed.max() <= 200


def test_a_batch_is_not_changed_in_place():
    images, targets, weights = batch()
    before = images.clone()
    mix_batch(images, targets, weights, "cutmix", 1.0)
    assert images.equal(before)
