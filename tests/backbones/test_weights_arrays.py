"""Weights to arrays and back, and a backbone from its metadata and arrays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.backbones import _registry
from sktransfer.backbones._registration import register_backbone
from sktransfer.backbones._registry import load_backbone, rebuild_backbone
from sktransfer.backbones._weights import arrays_of, load_arrays
from sktransfer.backbones.sources import _registered
from sktransfer.exceptions import WeightsError, WeightsNotFoundError

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)


def _rows(backbone):
    with torch.inference_mode():
        return backbone.frozen(len(backbone.stages), backbone.pooling("auto"))(IMAGES)


@pytest.mark.parametrize(
    ("name", "params", "weights"),
    [
        ("mini", None, "default"),
        ("mobilenet_v2", {"width_mult": 0.1}, None),
        ("shufflenet_v2_x0_5", None, None),
        ("regnet_y_400mf", None, None),
        ("timm:test_vit", {"img_size": 64}, None),
        ("timm:test_resnet", None, None),
    ],
)
def test_a_rebuilt_backbone_is_the_same(name, params, weights):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    backbone = load_backbone(name, params, weights)
    rebuilt = rebuild_backbone(backbone.spec, arrays_of(backbone.model))
    assert rebuilt.spec == backbone.spec
    assert list(rebuilt.stages) == list(backbone.stages)
    torch.testing.assert_close(_rows(rebuilt), _rows(backbone))
    assert not any(p.requires_grad for p in rebuilt.model.parameters())


def test_a_rebuilt_backbone_needs_no_file(tmp_path, mini_file):
    path = tmp_path / "own.safetensors"
    path.write_bytes(Path(mini_file).read_bytes())
    backbone = load_backbone(path)
    arrays = arrays_of(backbone.model)
    path.unlink()
    rebuilt = rebuild_backbone(backbone.spec, arrays)
    torch.testing.assert_close(_rows(rebuilt), _rows(backbone), rtol=0, atol=0)


def test_arrays_are_copies_and_so_is_what_is_made_of_them():
    backbone = load_backbone("mini")
    arrays = arrays_of(backbone.model)
    for value in arrays.values():
        value.flags.writeable = False  # as when they are mapped from a file
    rebuilt = rebuild_backbone(backbone.spec, arrays)
    before = _rows(backbone)
    with torch.no_grad():
        for parameter in rebuilt.model.parameters():
            parameter.zero_()
    torch.testing.assert_close(_rows(backbone), before, rtol=0, atol=0)
    assert arrays["stem.0.weight"].any()


def test_arrays_that_lack_a_weight_are_refused():
    backbone = load_backbone("mini")
    arrays = arrays_of(backbone.model)
    del arrays["stem.0.weight"]
    with pytest.raises(WeightsError, match=r"network of this estimator, backbone='mini'.*missing"):
        rebuild_backbone(backbone.spec, arrays)


def test_an_architecture_that_is_cut_otherwise_is_refused():
    backbone = load_backbone("mini")
    spec = replace(backbone.spec, stages=("stem", "body"))
    with pytest.raises(WeightsError, match=r"cut into the stages stem, body, and here it is"):
        rebuild_backbone(spec, arrays_of(backbone.model))


def test_an_architecture_that_is_not_registered_is_named(monkeypatch):
    monkeypatch.setattr(_registered, "registered", {})
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())
    numbers = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    register_backbone("own", lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), {"all": ("0",)}, numbers)
    backbone = load_backbone("own")
    arrays = arrays_of(backbone.model)
    assert rebuild_backbone(backbone.spec, arrays).spec == backbone.spec
    _registered.registered.clear()
    with pytest.raises(WeightsNotFoundError, match=r"'own' is unknown here.*register_backbone"):
        rebuild_backbone(backbone.spec, arrays)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_gets_its_arrays_back_in_their_precision(dtype):
    saved = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(dtype)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_arrays(module, arrays_of(saved), "the head")
    for name, value in saved.state_dict().items():
        assert module.state_dict()[name].dtype == value.dtype
        np.testing.assert_array_equal(module.state_dict()[name], value)


def test_a_module_of_another_shape_is_an_error_that_names_it():
    arrays = arrays_of(nn.Linear(3, 4))
    with pytest.raises(WeightsError, match=r"saved of the head does not fit it.*\s.*weight"):
        load_arrays(nn.Linear(3, 5), arrays, "the head")
