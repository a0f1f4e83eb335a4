"""From what the user names to a backbone."""

import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file as save_contiguous
from torch import nn

from sktransfer.backbones import _registry
from sktransfer.backbones._catalogue import list_backbones
from sktransfer.backbones._registry import _drop_head, load_backbone, reload_backbone
from sktransfer.exceptions import WeightsError

NAME, PARAMS = "mobilenet_v2", {"width_mult": 0.1}


def save_file(state, path):
    """Write weights; a loaded network has those of convolutions with channels last."""
    save_contiguous({name: value.contiguous() for name, value in state.items()}, path)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(_registry, "_kept", type(_registry._kept)())


def _state_of(backbone):
    """Return the weights in the order of memory that a file has."""
    return {name: value.contiguous() for name, value in backbone.model.state_dict().items()}


def _same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def test_random_weights_are_the_same_every_time():
    first = load_backbone(NAME, PARAMS, None)
    _registry._kept.clear()
    second = load_backbone(NAME, PARAMS, None)
    assert first is not second
    assert _same(first.model.state_dict(), second.model.state_dict())
    assert first.spec == second.spec


def test_random_weights_leave_the_random_state_of_torch_as_it_was():
    torch.manual_seed(42)
    expected = torch.rand(4)
    torch.manual_seed(42)
    load_backbone(NAME, PARAMS, None)
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


def test_random_weights_do_not_depend_on_the_random_state_of_torch():
    torch.manual_seed(1)
    first = load_backbone(NAME, PARAMS, None).spec.digest
    _registry._kept.clear()
    torch.manual_seed(2)
    assert load_backbone(NAME, PARAMS, None).spec.digest == first


def test_a_backbone_in_use_is_not_loaded_again():
    assert load_backbone(NAME, PARAMS, None) is load_backbone(NAME, dict(PARAMS), None)


def test_no_more_than_two_backbones_are_kept():
    for width in (0.1, 0.2, 0.3, 0.4):
        load_backbone(NAME, {"width_mult": width}, None)
        assert len(_registry._kept) <= 2


def test_the_backbone_used_last_is_kept():
    first = load_backbone(NAME, {"width_mult": 0.1}, None)
    load_backbone(NAME, {"width_mult": 0.2}, None)
    load_backbone(NAME, {"width_mult": 0.1}, None)
    load_backbone(NAME, {"width_mult": 0.3}, None)
    assert load_backbone(NAME, {"width_mult": 0.1}, None) is first


def test_a_changed_file_is_read_again(tmp_path):
    state = load_backbone(NAME, PARAMS, None).model.state_dict()
    path = str(tmp_path / "weights.pth")
    torch.save(state, path)
    before = load_backbone(NAME, PARAMS, path)
    torch.save(
        {**state, "classifier.1.bias": torch.zeros(5), "features.0.1.bias": torch.ones(8)}, path
    )
    after = load_backbone(NAME, PARAMS, path)
    assert before.spec.digest != after.spec.digest


def test_a_backbone_is_found_again_by_its_spec():
    backbone = load_backbone(NAME, PARAMS, None)
    assert reload_backbone(backbone.spec) is backbone


def test_weights_that_changed_since_are_refused(tmp_path):
    state = _state_of(load_backbone(NAME, PARAMS, None))
    path = str(tmp_path / "weights.safetensors")
    save_file(state, path)
    spec = load_backbone(NAME, PARAMS, path).spec
    save_file({**state, "features.0.1.bias": torch.ones(8)}, path)
    with pytest.raises(WeightsError, match="are not those that this estimator was fitted with"):
        reload_backbone(spec)


def test_stages_that_are_cut_elsewhere_are_named():
    spec = load_backbone(NAME, PARAMS, None).spec
    fitted = replace(spec, stages=("a", "b"))
    with pytest.raises(WeightsError, match="was cut into the stages a, b, and here it is cut into"):
        reload_backbone(fitted)


def test_the_stage_that_computes_other_than_when_it_was_fitted_is_named():
    spec = load_backbone(NAME, PARAMS, None).spec
    code = spec.code.split(",")
    code[2] = "0" * 16
    fitted = replace(spec, code=",".join(code))
    with pytest.raises(WeightsError, match=f"the code of stage '{spec.stages[2]}' has changed"):
        reload_backbone(fitted)


def test_an_estimator_saved_before_there_was_a_code_is_loaded_by_its_stages():
    spec = load_backbone(NAME, PARAMS, None).spec
    assert reload_backbone(replace(spec, code="")).spec == spec


def test_every_stage_has_a_code():
    spec = load_backbone(NAME, PARAMS, None).spec
    codes = spec.code.split(",")
    assert len(set(codes)) == len(spec.stages)
    assert all(len(code) == 16 for code in codes)


def test_weights_do_not_change_the_code(tmp_path):
    state = _state_of(load_backbone(NAME, PARAMS, None))
    path = str(tmp_path / "weights.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, path)
    other, spec = load_backbone(NAME, PARAMS, path).spec, load_backbone(NAME, PARAMS, None).spec
    assert other.code == spec.code
    assert other.digest != spec.digest


def test_the_code_of_a_network_is_the_same_in_another_process_after_others():
    wanted = [("mini", None), (NAME, PARAMS)]
    expected = {name: load_backbone(name, params, None).spec.code for name, params in wanted}
    script = (
        "import json\nfrom sktransfer.backbones._registry import load_backbone\n"
        f"wanted = {wanted[::-1]!r}\n"
        "print(json.dumps({n: load_backbone(n, p, None).spec.code for n, p in wanted}))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert json.loads(found.stdout) == expected


def test_a_loaded_network_lies_in_memory_as_convolutions_read_it():
    backbone = load_backbone(NAME, PARAMS, None)
    weights = [value for value in backbone.model.parameters() if value.ndim == 4]
    assert weights
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in weights)


def test_an_unknown_backbone_says_what_is_allowed():
    with pytest.raises(ValueError, match="backbone='resnet19' is unknown") as caught:
        load_backbone("resnet19")
    assert "resnet18" in str(caught.value)
    assert ".safetensors" in str(caught.value)


@pytest.mark.parametrize("backbone", [None, 18, b"resnet18", ["resnet18"]])
def test_a_backbone_is_a_name_or_a_path(backbone):
    with pytest.raises(TypeError, match="backbone must be a name or a path, got"):
        load_backbone(backbone)


def test_weights_are_a_name_or_a_path():
    with pytest.raises(TypeError, match="weights must be a name or a path, got 3"):
        load_backbone("resnet18", None, 3)


def test_backbone_params_are_a_dict():
    with pytest.raises(TypeError, match="backbone_params must be a dict or None, got"):
        load_backbone("resnet18", [("width_mult", 0.1)], None)


@pytest.mark.parametrize("params", [{"width": 0.1}, {"width_mult": "wide"}])
def test_backbone_params_that_the_architecture_does_not_take_are_named(params):
    with pytest.raises(ValueError, match="is not what 'mobilenet_v2' takes") as caught:
        load_backbone("mobilenet_v2", params, None)
    assert f"backbone_params={params!r}" in str(caught.value)


def test_the_network_is_in_evaluation_mode():
    model = load_backbone(NAME, PARAMS, None).model
    assert not any(module.training for module in model.modules())


def test_a_fresh_copy_shares_nothing_with_the_kept_one():
    backbone = load_backbone(NAME, PARAMS, None)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    fresh = backbone.fresh()
    with torch.no_grad():
        for parameter in fresh.model.parameters():
            parameter.zero_()
    assert _same(backbone.model.state_dict(), before)


def test_the_stages_of_a_fresh_copy_are_those_of_its_network():
    fresh = load_backbone(NAME, PARAMS, None).fresh()
    of_model = {id(parameter) for parameter in fresh.model.parameters()}
    of_stages = {id(p) for stage in fresh.stages.values() for p in stage.parameters()}
    assert of_stages == of_model


def test_the_embedded_backbone_can_have_random_weights():
    backbone = load_backbone("mini", None, None)
    assert backbone.spec.input.size == 64
    assert backbone.width(len(backbone.stages), "avg", backbone.spec.input) == 256


def test_names_come_in_alphabetical_order():
    names = list_backbones()
    assert names == sorted(names)
    assert {"mini", "resnet18", "vit_b_16"} <= set(names)


def test_weights_without_the_layers_after_the_pooling_say_what_to_do(tmp_path):
    # as save_backbone wrote them while rows left these layers out
    state = load_backbone("mobilenet_v3_small", None, None).model.state_dict()
    old = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    path = str(tmp_path / "old.safetensors")
    save_file(old, path)
    with pytest.raises(WeightsError, match="lacks 2 keys") as caught:
        load_backbone("mobilenet_v3_small", None, path)
    for part in ("classifier.0.weight", "last linear layer", "save with this version"):
        assert part in str(caught.value)


def test_weights_need_no_last_layer(tmp_path):
    spec = load_backbone("mobilenet_v3_small", None, None).spec
    state = load_backbone("mobilenet_v3_small", {"num_classes": 7}, None).model.state_dict()
    assert not any(name.startswith("classifier.3.") for name in state)
    path = str(tmp_path / "headless.safetensors")
    save_file(state, path)
    assert load_backbone("mobilenet_v3_small", None, path).spec.stages == spec.stages


def test_layers_after_the_pooling_are_part_of_the_digest(tmp_path):
    state = load_backbone("mobilenet_v3_small", None, None).model.state_dict()
    digests = set()
    for i in range(2):
        path = str(tmp_path / f"{i}.safetensors")
        save_file({**state, "classifier.0.bias": torch.full((1024,), float(i))}, path)
        digests.add(load_backbone("mobilenet_v3_small", None, path).spec.digest)
    assert len(digests) == 2


def test_a_head_is_dropped_where_it_has_parameters_and_its_pooling_stays():
    head = nn.Sequential()
    head.add_module("pool", nn.AdaptiveAvgPool2d(1))
    head.add_module("attention", nn.MultiheadAttention(4, 2))
    head.add_module("fc", nn.Linear(4, 2))
    model = nn.Sequential()
    model.add_module("body", nn.Conv2d(3, 4, 1))
    model.add_module("head", head)
    _drop_head(model, ("head.",))
    assert isinstance(model.head.pool, nn.AdaptiveAvgPool2d)
    assert isinstance(model.head.attention, nn.Identity)
    assert isinstance(model.head.fc, nn.Identity)
    assert [name for name, _ in model.named_parameters()] == ["body.weight", "body.bias"]


@pytest.mark.parametrize("name", ["mine.pth", "runs/best.pt", "pytorch_model.bin", "last.ckpt"])
def test_a_file_of_weights_as_backbone_is_answered_with_weights(name):
    with pytest.raises(ValueError, match="is a file of weights") as caught:
        load_backbone(name)
    assert f"weights={name!r}" in str(caught.value)


def test_a_name_of_timm_is_answered_with_its_prefix():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="timm:convnext_nano and others"):
        load_backbone("convnext_nano")


def test_a_worker_that_does_not_know_a_backbone_says_how_it_would(monkeypatch):
    with pytest.raises(ValueError, match="is unknown") as caught:
        load_backbone("mine")
    assert "worker" not in str(caught.value)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-1")
    with pytest.raises(ValueError, match=r"register_backbone too, .*loky', initializer=function"):
        load_backbone("mine")
