"""A depth is read as Python reads a slice."""

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.backbones._stages import Normalise, cut_into_stages, resolve_depth

STAGES = ("stem", "stage1", "stage2", "stage3")


@pytest.mark.parametrize("depth", [None, *range(-4, 5)])
def test_a_depth_keeps_the_stages_that_a_slice_keeps(depth):
    n_stages = resolve_depth(depth, STAGES, "depth")
    assert STAGES[:n_stages] == STAGES[:depth]


def test_a_depth_may_be_a_numpy_integer():
    n_stages = resolve_depth(np.int64(-1), STAGES, "depth")
    assert n_stages == 3
    assert type(n_stages) is int


@pytest.mark.parametrize("depth", [True, False, 1.0, np.float64(2), "2", (1,)])
def test_what_is_no_integer_is_refused_as_a_depth(depth):
    with pytest.raises(TypeError, match="freeze_depth must be an int, None or 'auto', got"):
        resolve_depth(depth, STAGES, "freeze_depth")


@pytest.mark.parametrize("depth", [-5, 5, 100])
def test_a_depth_out_of_range_names_parameter_value_stages_and_range(depth):
    with pytest.raises(ValueError, match="out of range") as caught:
        resolve_depth(depth, STAGES, "freeze_depth")
    message = str(caught.value)
    for part in (f"freeze_depth={depth}", "stem, stage1, stage2, stage3", "from -4 to 4"):
        assert part in message


def test_stages_share_the_submodules_of_the_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    stages = cut_into_stages(model, {"a": ("0", "1"), "b": ("2",)})
    assert list(stages) == ["a", "b"]
    assert stages["a"][0] is model[0]
    assert stages["b"][0] is model[2]


def test_a_step_may_make_a_module_from_the_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    stages = cut_into_stages(model, {"a": ("0", lambda network: nn.Flatten(network[0].groups))})
    assert isinstance(stages["a"][1], nn.Flatten)


def test_8_bit_images_are_normalised_as_by_hand():
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    by_hand = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(Normalise(mean, std)(images), by_hand, rtol=1e-5, atol=1e-5)
