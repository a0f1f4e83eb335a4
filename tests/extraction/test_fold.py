import copy
import gc
import weakref

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from sktransfer.extraction._fold import fold_batch_norms, in_bfloat16


class Float(nn.Module):
    def forward(self, images):
        return images.float() / 255


def norm(n_channels):
    """Return a batch norm in evaluation mode that changes every channel."""
    return draw_statistics(nn.BatchNorm2d(n_channels)).eval()


def draw_statistics(norm):
    """Let a new batch norm, which does nothing, do something."""
    for value in (norm.weight, norm.running_var):
        nn.init.uniform_(value, 0.5, 2)
    for value in (norm.bias, norm.running_mean):
        nn.init.normal_(value, std=0.3)
    return norm


def images(n, size=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def norms_in(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def assert_same(network, folded, size=16):
    with torch.no_grad():
        expected, actual = network(images(3, size)), folded(images(3, size))
    scale = float(expected.abs().max())
    np.testing.assert_allclose(actual, expected, atol=1e-5 * scale)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_after_a_convolution_is_gone_and_values_stay(bias):
    network = nn.Sequential(Float(), nn.Conv2d(3, 4, 3, bias=bias), norm(4), nn.ReLU())
    folded = fold_batch_norms(network, 16)
    assert not norms_in(folded)
    assert_same(network, folded)


def test_the_network_itself_is_untouched_and_the_rest_is_shared():
    network = nn.Sequential(Float(), nn.Conv2d(3, 4, 3), norm(4), nn.Conv2d(4, 5, 3)).eval()
    before, hooks = copy.deepcopy(network.state_dict()), network[1]._forward_hooks.copy()
    folded = fold_batch_norms(network, 16)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()
    assert network[1]._forward_hooks == hooks
    assert isinstance(network[2], nn.BatchNorm2d)
    assert folded[3].weight is network[3].weight
    assert not any(parameter.requires_grad for parameter in folded[1].parameters())


class Twice(nn.Module):
    """One batch norm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)])
        self.norm = norm(4)

    def forward(self, images):
        return self.norm(self.convs[0](images)) + self.norm(self.convs[1](images))


class Around(nn.Module):
    """A batch norm of an activation that is used a second time as it is."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), norm(4)

    def forward(self, images):
        values = self.conv(images)
        return values + self.norm(values)


class Between(nn.Module):
    """A batch norm that follows something done in place."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), norm(4)

    def forward(self, images):
        return self.norm(self.conv(images).relu_())


class OwnConvolution(nn.Conv2d):
    def forward(self, images):
        return super().forward(images) * 2


@pytest.mark.parametrize(
    "part",
    [
        Twice,
        Around,
        Between,
        lambda: nn.Sequential(norm(3), nn.ReLU(), nn.Conv2d(3, 4, 3)),
        lambda: nn.Sequential(OwnConvolution(3, 4, 3), norm(4)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).train()),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        lambda: nn.Conv2d(3, 4, 3),
    ],
    ids=["shared", "used twice", "in place", "first", "own", "training", "no statistics", "none"],
)
def test_what_cannot_be_folded_is_left_as_it_is(part):
    network = nn.Sequential(Float(), part())
    assert fold_batch_norms(network, 16) is network


def test_it_folds_within_inference_mode():
    network = nn.Sequential(Float(), nn.Conv2d(3, 4, 3), norm(4))
    with torch.inference_mode():
        folded = fold_batch_norms(network, 16)
    assert not norms_in(folded)
    assert_same(network, folded)


@pytest.mark.parametrize(
    ("build", "size", "n_left"),
    [
        (lambda: torchvision.models.mobilenet_v2(width_mult=0.35), 64, 0),
        (lambda: torchvision.models.densenet121(), 64, 62),
        (lambda: timm.create_model("test_resnet", num_classes=0), 64, 0),
        (lambda: timm.create_model("test_efficientnet", num_classes=0), 64, 0),
    ],
    ids=["mobilenet_v2", "densenet121", "timm test_resnet", "timm test_efficientnet"],
)
def test_networks_of_torchvision_and_timm_fold(build, size, n_left):
    network = nn.Sequential(Float(), build()).eval()
    for module in norms_in(network):
        draw_statistics(module)
    folded = fold_batch_norms(network, size)
    assert len(norms_in(folded)) == n_left
    assert_same(network, folded, size)


def test_weights_in_bfloat16_are_those_of_autocast_to_the_last_bit():
    stage = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.LayerNorm(8 * 196))
    stage = nn.Sequential(Float(), stage, nn.Linear(8 * 196, 5)).eval()
    (cast,) = in_bfloat16([stage])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cast(images(4)), stage(images(4)))
    assert {value.dtype for value in stage.parameters()} == {torch.float32}
    assert in_bfloat16([stage])[0] is cast
    assert cast[1][3].weight is stage[1][3].weight  # a norm computes in float32


def test_stages_in_bfloat16_are_not_kept_beyond_their_backbone():
    stage = nn.Sequential(nn.Conv2d(3, 8, 3))
    in_bfloat16([stage])
    layer = weakref.ref(stage[0])
    del stage
    gc.collect()
    assert layer() is None


def test_subclasses_of_layers_and_stages_without_layers_stay_in_float32():
    stages = [nn.Sequential(OwnConvolution(3, 4, 3)), nn.Sequential(nn.ReLU())]
    assert in_bfloat16(stages) == stages


def test_a_layer_whose_weight_is_made_of_others_stays_in_float32():
    layer = nn.Conv2d(3, 4, 3)
    layer.register_parameter("gain", nn.Parameter(torch.ones(4)))
    assert in_bfloat16([nn.Sequential(layer)])[0][0] is layer
