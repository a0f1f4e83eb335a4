import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer._spec import BackboneSpec, InputSpec
from sktransfer.backbones._architecture import NetworkStructure
from sktransfer.backbones._backbone import Backbone
from sktransfer.extraction import _precision
from sktransfer.extraction._precision import arithmetic, outcomes_to_store, resolve_precision
from sktransfer.store._store import open_store

CPU = torch.device("cpu")
INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1 / 255,) * 3)


class Sensitive(nn.Module):
    """Rows that are all rounding: a small difference of large values."""

    def forward(self, images):
        rows = images.float().mean((2, 3))
        product = rows @ torch.ones(3, 3)
        return (product - rows.sum(1, keepdim=True)) + 1e-3 * rows


class Robust(nn.Module):
    def forward(self, images):
        return images.float().mean((2, 3)) @ torch.eye(3)


def backbone_of(network, digest="digest"):
    structure = NetworkStructure(stages={"one": ("0",)}, head=())
    spec = BackboneSpec("name", "mean", (), None, digest, INPUT, ("one",), "", "")
    return Backbone(spec, nn.Sequential(network), structure)


@pytest.fixture
def hardware(monkeypatch):
    """Pretend that the hardware multiplies bfloat16."""
    monkeypatch.setattr(_precision, "_has_bfloat16", lambda device: True)
    monkeypatch.setattr(_precision, "_tried", {})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(precision):
    assert resolve_precision(precision, CPU, backbone_of(Sensitive()), 8) == precision


@pytest.mark.parametrize(("network", "expected"), [(Robust, "bfloat16"), (Sensitive, "float32")])
@pytest.mark.usefixtures("hardware")
def test_auto_is_bfloat16_where_rows_keep_their_direction(network, expected):
    assert resolve_precision("auto", CPU, backbone_of(network()), 8) == expected


@pytest.mark.usefixtures("hardware")
def test_a_network_is_tried_out_once(monkeypatch):
    tried, trial = [], _precision._is_accurate_in_bfloat16
    monkeypatch.setattr(
        _precision, "_is_accurate_in_bfloat16", lambda *args: tried.append(1) or trial(*args)
    )
    for _ in range(3):
        resolve_precision("auto", CPU, backbone_of(Robust()), 8)
    assert len(tried) == 1


@pytest.mark.usefixtures("hardware")
def test_a_store_of_rows_tells_other_processes_how_a_trial_ended(monkeypatch, cache):
    spec = backbone_of(Robust()).spec
    store = open_store(cache)
    assert outcomes_to_store(spec, 8, CPU) == {}
    for network, expected in ((Robust, "bfloat16"), (Sensitive, "float32")):
        backbone = backbone_of(network(), digest=expected)
        resolve_precision("auto", CPU, backbone, 8, lambda: store)
        store.put_digests(outcomes_to_store(backbone.spec, 8, CPU))
    monkeypatch.setattr(_precision, "_tried", {})  # as in another process
    monkeypatch.setattr(_precision, "_is_accurate_in_bfloat16", None)  # which calls nothing
    for expected in ("bfloat16", "float32"):
        backbone = backbone_of(Robust(), digest=expected)
        assert resolve_precision("auto", CPU, backbone, 8, lambda: store) == expected
    with pytest.raises(TypeError):  # of another size it is not known
        resolve_precision("auto", CPU, backbone, 16, lambda: store)


@pytest.mark.usefixtures("hardware")
def test_a_process_whose_rows_are_stored_tries_nothing_out(monkeypatch, cache, shapes):
    options = {"backbone": "mini", "image_size": 32, "feature_cache": cache, "device": "cpu"}
    trials, trial = [], _precision._is_accurate_in_bfloat16
    monkeypatch.setattr(
        _precision, "_is_accurate_in_bfloat16", lambda *args: trials.append(1) or trial(*args)
    )
    X = shapes[0][:4]
    expected = PretrainedFeatureTransformer(**options).fit_transform(X)
    monkeypatch.setattr(_precision, "_tried", {})  # as in another process
    with count_forward_passes() as counter:
        rows = PretrainedFeatureTransformer(**options).fit_transform(X)
    np.testing.assert_array_equal(rows, expected)
    assert (len(trials), counter.computed) == (1, 0)


@pytest.mark.usefixtures("hardware")
def test_a_network_that_was_tried_out_is_not_kept_alive():
    network = Robust()
    kept = weakref.ref(network)
    resolve_precision("auto", CPU, backbone_of(network), 8)
    del network
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_follows_the_hardware(monkeypatch, has_it, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it, raising=False)
    monkeypatch.setattr(_precision, "_tried", {})
    assert resolve_precision("auto", CPU, backbone_of(Robust()), 8) == expected


def test_arithmetic_tells_how_float32_is_multiplied():
    before = torch.get_float32_matmul_precision()
    exact = arithmetic("float32", CPU)
    try:
        torch.set_float32_matmul_precision("medium")
        assert arithmetic("float32", CPU) != exact
    finally:
        torch.set_float32_matmul_precision(before)
    assert arithmetic("float32", CPU) == exact


def test_arithmetic_on_a_gpu_tells_whether_tf32_is_used(fake_cuda, monkeypatch):
    fake_cuda()
    gpu = torch.device("cuda")
    found = []
    for allowed, capability in ((True, (8, 0)), (False, (8, 0)), (True, (7, 5))):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        found.append(arithmetic("float32", gpu))
    assert len({str(numbers) for numbers in found}) == 3
    assert found[0]["device"] == "cuda"
