"""Image sizes that a network takes, and those it does not."""

import pytest

from sktransfer.backbones._registry import load_backbone


def refusal(backbone, size, depth=None):
    n_stages = backbone.depth(depth, "depth")
    with pytest.raises(ValueError, match=f"image_size={size} does not fit backbone=") as caught:
        backbone.width(n_stages, "avg", backbone.spec.input.at(size))
    return str(caught.value)


def test_a_network_of_one_image_size_names_it_and_how_to_have_another():
    backbone = load_backbone("vit_b_32", {"image_size": 64}, None)
    assert backbone.spec.input.size == 64
    for size in (32, 96, 63, 224):
        message = refusal(backbone, size)
        assert "use image_size=64 or None" in message
        assert "backbone_params={'image_size': ...}" in message


def test_a_network_of_one_image_size_refuses_another_at_every_depth():
    backbone = load_backbone("vit_b_32", {"image_size": 64}, None)
    for depth in range(len(backbone.stages) + 1):
        assert "takes no other size" in refusal(backbone, 96, depth)


@pytest.mark.parametrize(
    ("name", "smallest"), [("inception_v3", 75), ("squeezenet1_1", 17), ("vgg11_bn", 32)]
)
def test_an_image_that_is_too_small_is_told_the_smallest_size(name, smallest):
    # 75 and 32 are torchvision's own min_size; its 17 for SqueezeNet likewise
    backbone = load_backbone(name, None, None)
    message = refusal(backbone, smallest - 1)
    assert f"takes {smallest} pixels or more" in message
    spec = backbone.spec.input.at(smallest)
    assert backbone.width(len(backbone.stages), "avg", spec) > 3


def test_any_size_goes_at_a_depth_that_takes_it():
    backbone = load_backbone("vgg11_bn", None, None)
    assert backbone.width(1, "avg", backbone.spec.input.at(2)) == 64


def test_a_flattened_row_has_the_width_of_its_image_size():
    backbone = load_backbone("vgg11_bn", None, None)
    assert backbone.width(5, "flatten", backbone.spec.input.at(64)) == 512 * 2 * 2
    assert backbone.width(0, "flatten", backbone.spec.input.at(10)) == 3 * 10 * 10
