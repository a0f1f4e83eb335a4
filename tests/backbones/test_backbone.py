"""A network in parts: what is frozen, what trains, and the image sizes that it takes."""

import pytest
import torch
from torch import nn

from sktransfer import backbone_info
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


@pytest.mark.parametrize("name", ["mini", "resnet18", "mobilenet_v2", "swin_t"])
def test_the_costs_of_the_stages_are_those_of_the_table(name):
    backbone = load_backbone(name, None, "default" if name == "mini" else None)
    macs = tuple(stage.n_macs for stage in backbone_info(name).stages)
    assert backbone.costs(backbone.spec.input) == macs
    half = backbone.costs(backbone.spec.input.at(backbone.spec.input.size // 2))
    assert sum(half) < sum(macs) / 3


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("expected scalar type Half but found Float")


def test_a_network_that_fails_at_its_own_size_says_why_and_does_not_advise_that_size():
    backbone = load_backbone("mini").fresh()
    backbone.stages["stage2"] = Broken()
    for size in (64, 32):
        with pytest.raises(ValueError, match=f"image_size={size} does not fit") as caught:
            backbone.width(5, "avg", backbone.spec.input.at(size))
        message = str(caught.value)
        assert "use image_size" not in message
        assert "expected scalar type Half but found Float" in message
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_refused_size_has_the_error_of_the_network_as_its_cause():
    backbone = load_backbone("squeezenet1_1", None, None)
    with pytest.raises(ValueError, match="takes 17 pixels or more") as caught:
        backbone.width(len(backbone.stages), "avg", backbone.spec.input.at(16))
    assert str(caught.value.__cause__) in str(caught.value)


def test_the_frozen_part_is_made_without_a_change_of_a_shared_module(monkeypatch):
    backbone = load_backbone("mini")
    shared = {id(module) for module in backbone.model.modules()}
    shared |= {id(module) for stage in backbone.stages.values() for module in stage.modules()}
    set_modes = nn.Module.train
    changed = []

    def train(self, mode=True):
        changed.append(self)
        return set_modes(self, mode)

    monkeypatch.setattr(nn.Module, "train", train)
    for depth, pooling in ((5, "avg"), (2, None), (0, None), (0, "avg")):
        frozen = backbone.frozen(depth, pooling)
        assert not any(module.training for module in frozen.modules())
    assert not shared & {id(module) for module in changed}


class Changing(dict):
    """A dict to which another thread adds while this one looks through it."""

    def _looked_through(self):
        raise RuntimeError("dictionary changed size during iteration")

    __iter__ = items = keys = values = __reduce_ex__ = _looked_through


def test_a_copy_is_made_while_another_thread_finds_a_width(monkeypatch):
    backbone = load_backbone("mini")
    monkeypatch.setattr(backbone, "_widths", Changing())
    copied = backbone.fresh(2)
    assert copied.width(5, "avg", backbone.spec.input) == 256


@pytest.fixture
def hidden():
    """Return a network with a hidden layer between its pooling and its last linear layer."""
    return load_backbone("mobilenet_v3_small", None, None)


def test_an_explicit_pooling_leaves_out_what_comes_after_the_pooling(hidden):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    n_stages = len(hidden.stages)
    with torch.inference_mode():
        rows = hidden.frozen(n_stages, "avg")(images)
        maps = hidden.frozen(n_stages, None)(images)
    torch.testing.assert_close(rows, maps.mean((2, 3)))


def test_before_the_last_stage_auto_is_the_pooling_alone(hidden):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        for depth in range(len(hidden.stages)):
            rows = hidden.frozen(depth, hidden.pooling("auto"))(images)
            assert torch.equal(rows, hidden.frozen(depth, "avg")(images))


def test_a_row_of_a_bfloat16_activation_is_pooled_in_float32(hidden):
    n_stages = len(hidden.stages)
    maps = torch.rand(2, 576, 3, 3).bfloat16()
    pool = hidden.pool("head", n_stages)
    with torch.inference_mode():
        assert torch.equal(pool(maps), pool(maps.float()))


def test_the_rest_ends_with_what_comes_after_the_pooling(hidden):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    n_stages = len(hidden.stages)
    with torch.inference_mode():
        rows = hidden.frozen(n_stages, "head")(images)
        for depth in range(n_stages + 1):
            activation = hidden.frozen(depth, None)(images)
            again = hidden.rest(depth, "head")(activation)
            torch.testing.assert_close(again, rows, rtol=1e-4, atol=1e-5)


def test_a_fresh_copy_may_train_it_unless_all_stages_are_frozen(hidden):
    n_stages = len(hidden.stages)
    before = list(hidden.pre_logits.parameters())
    for n_frozen in range(n_stages + 1):
        copied = list(hidden.fresh(n_frozen).pre_logits.parameters())
        is_frozen = n_frozen == n_stages
        for one, other in zip(before, copied, strict=True):
            assert (one is other) == is_frozen
            assert other.requires_grad == (not is_frozen)
    assert not any(parameter.requires_grad for parameter in before)
