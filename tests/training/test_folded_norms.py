"""Convolutions that do the work of frozen norms: the same numbers, the same modules afterwards."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sktransfer.backbones._registry import load_backbone
from sktransfer.training._folded_norms import folded_norms

MANY = 2**20  # images of a batch whose activations are large beside any weights


def tail(name, depth, size):
    """Return the last stages of a network, with norms that are not as they were made."""
    backbone = load_backbone(name, None, "default" if name == "mini" else None).fresh(depth)
    frozen, stages = backbone.frozen(depth, None), backbone.rest(depth, "avg").eval()
    generator = torch.Generator().manual_seed(0)
    for norm in stages.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight.data, norm.bias.data, norm.running_mean):
                values.add_(0.1 * torch.randn(values.shape, generator=generator))
            norm.running_var.add_(torch.rand(norm.running_var.shape, generator=generator))
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        return stages, frozen(images)


def rows_and_gradients(stages, x):
    stages.zero_grad()
    rows = stages(x)
    rows.square().sum().backward()
    return rows.detach(), {name: p.grad.clone() for name, p in stages.named_parameters()}


@pytest.mark.parametrize(
    ("name", "depth", "size"),
    [("mini", 2, 32), ("mini", 0, 32), ("mobilenet_v2", 3, 64), ("densenet121", 3, 64)],
)
def test_rows_and_gradients_are_those_of_the_norms(name, depth, size):
    stages, x = tail(name, depth, size)
    rows, gradients = rows_and_gradients(stages, x)
    with folded_norms(stages, x[:1], MANY):
        folded_rows, folded = rows_and_gradients(stages, x)
    torch.testing.assert_close(folded_rows, rows, rtol=1e-4, atol=1e-5)
    assert folded.keys() == gradients.keys()
    for parameter, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(folded[parameter], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_the_norms_of_a_residual_network_are_not_computed():
    stages, x = tail("mini", 2, 32)
    computed = []
    with folded_norms(stages, x[:1], MANY):
        for norm in stages.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.register_forward_hook(lambda _, args, out: computed.append(out is not args[0]))
        stages(x)
    assert len(computed) == 13
    assert not any(computed)


def test_modules_and_states_are_afterwards_what_they_were_whatever_happens():
    stages, x = tail("mini", 3, 32)
    before, kinds = copy.deepcopy(stages.state_dict()), [type(m) for m in stages.modules()]

    def interrupted():
        with folded_norms(stages, x[:1], MANY):
            assert stages.state_dict().keys() == before.keys()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [type(module) for module in stages.modules()] == kinds
    assert all(value.equal(before[name]) for name, value in stages.state_dict().items())
    assert all("norm" not in vars(module) for module in stages.modules())
    pickle.dumps(stages)


def test_only_norms_of_activations_that_are_not_smaller_than_the_weights_are_folded():
    wide, deep = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 512, 8, stride=8)
    network = nn.Sequential(wide, nn.BatchNorm2d(8), deep, nn.BatchNorm2d(512)).eval()
    probe = torch.randn(1, 4, 64, 64)
    # both give 32,768 values an image; `deep` has 262,144 weights
    for batch_size, expected in [
        (3, [False, False]),
        (4, [True, False]),  # 2**17 values
        (7, [True, False]),
        (8, [True, True]),  # and as many as weights
        (3, [False, False]),
    ]:
        with folded_norms(network, probe, batch_size):
            assert [type(conv) is not nn.Conv2d for conv in (wide, deep)] == expected


class Twice(nn.Module):
    """A network that uses the output of a convolution beside its norm as well."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, x):
        before = self.conv(x)
        return self.norm(before) + before


def test_a_convolution_whose_output_is_used_twice_keeps_its_norm():
    network, x = Twice().eval(), torch.randn(2, 3, 4, 4)
    expected = network(x)
    with folded_norms(network, x[:1], MANY):
        assert type(network.conv) is nn.Conv2d
        torch.testing.assert_close(network(x), expected)


def test_norms_without_scales_stay():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)).eval()
    with folded_norms(network, torch.randn(1, 3, 4, 4), MANY):
        assert type(network[1]) is nn.BatchNorm2d
