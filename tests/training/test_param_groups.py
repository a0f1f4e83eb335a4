import pytest
from torch import nn

from sktransfer.training._freeze import TrainablePart
from sktransfer.training._param_groups import parameter_groups


@pytest.fixture
def part():
    stages = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
    return TrainablePart(stages, nn.Linear(4, 2))


def group_of(groups, parameter):
    return next(g for g in groups if any(parameter is p for p in g["params"]))


def test_weights_decay_and_biases_and_norms_do_not(part):
    groups = parameter_groups(part, lr=0.1, backbone_lr_scale=0.5, weight_decay=0.3)
    assert group_of(groups, part.stages[0].weight)["weight_decay"] == 0.3
    assert group_of(groups, part.head.weight)["weight_decay"] == 0.3
    for plain in (part.stages[0].bias, part.stages[1].weight, part.head.bias):
        assert group_of(groups, plain)["weight_decay"] == 0


def test_every_parameter_is_in_one_group(part):
    groups = parameter_groups(part, lr=0.1, backbone_lr_scale=0.5, weight_decay=0.3)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in part.parameters())


def test_what_needs_no_gradient_is_in_no_group(part):
    part.stages.requires_grad_(False)
    groups = parameter_groups(part, lr=0.1, backbone_lr_scale=0.5, weight_decay=0.3)
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in part.head.parameters()}
