import pytest
from torch import nn

from sktransfer.training._head import TrainablePart
from sktransfer.training._optim import parameter_groups

RATES = {"lr": 0.1, "backbone_lr_scale": 0.5, "layer_decay": 0.25, "weight_decay": 0.3}


@pytest.fixture
def part():
    first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    last = nn.Sequential(nn.Conv2d(4, 4, 1))
    return TrainablePart(nn.Sequential(first, last, nn.Flatten()), nn.Linear(4, 2))


def group_of(groups, parameter):
    return next(g for g in groups if any(parameter is p for p in g["params"]))


def test_weights_decay_and_biases_and_norms_do_not(part):
    groups = parameter_groups(part, **RATES)
    convolution, norm = part.stages[0]
    assert group_of(groups, convolution.weight)["weight_decay"] == 0.3
    assert group_of(groups, part.head.weight)["weight_decay"] == 0.3
    for plain in (convolution.bias, norm.weight, part.head.bias):
        assert group_of(groups, plain)["weight_decay"] == 0


def test_rates_fall_from_the_head_to_the_cut(part):
    groups = parameter_groups(part, **RATES)
    assert group_of(groups, part.head.weight)["lr"] == 0.1
    assert group_of(groups, part.stages[1][0].weight)["lr"] == 0.05
    assert group_of(groups, part.stages[0][0].weight)["lr"] == 0.0125
    assert all(group["initial_lr"] == group["lr"] for group in groups)


def test_every_parameter_is_in_one_group(part):
    held = [id(p) for group in parameter_groups(part, **RATES) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in part.parameters())


def test_stages_of_one_rate_share_their_groups(part):
    groups = parameter_groups(part, **{**RATES, "layer_decay": 1.0})
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (0.1, 0.3),
        (0.1, 0.0),
        (0.05, 0.3),
        (0.05, 0.0),
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(part.parameters()))


def test_a_parameter_that_parts_share_trains_at_one_rate(part):
    shared = part.stages[1][0].weight
    part.stages[0].append(nn.Conv2d(4, 4, 1))
    part.stages[0][2].weight = shared
    for layer_decay in (1.0, 0.25):
        groups = parameter_groups(part, **{**RATES, "layer_decay": layer_decay})
        held = [p for group in groups for p in group["params"]]
        assert sum(p is shared for p in held) == 1
        assert group_of(groups, shared)["lr"] == 0.05
