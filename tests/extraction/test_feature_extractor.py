import copy
import gc
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer._spec import BackboneSpec, FittedPlan, InputSpec
from sktransfer.backbones._architecture import NetworkStructure
from sktransfer.backbones._backbone import Backbone
from sktransfer.extraction import _feature_extractor, _fold
from sktransfer.extraction._feature_extractor import ExtractionPlan, FeatureExtractor
from sktransfer.runtime import _device_copies
from sktransfer.runtime._device_copies import device_call

# so that the values of images reach the first stage as they are
INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1 / 255,) * 3)
CPU = torch.device("cpu")

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")
ON_CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")
ON_MPS = RuntimeError("MPS backend out of memory (MPS allocated: ...")


class Mean(nn.Module):
    """The mean of each channel; memory runs out above `largest` images."""

    def __init__(self, largest=None, error=OUT_OF_MEMORY):
        super().__init__()
        self.largest, self.error, self.batches = largest, error, []

    def forward(self, images):
        self.batches.append(len(images))
        if self.largest is not None and len(images) > self.largest:
            raise self.error
        return images.float().mean((2, 3))


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(_feature_extractor, "_limits", {})


def backbone_of(*stages, digest="digest", size=8):
    """Return a backbone whose stages are modules, each under its number."""
    names = tuple(map(str, range(len(stages))))
    structure = NetworkStructure(stages={name: (name,) for name in names}, head=())
    spec = BackboneSpec("name", "mean", (), None, digest, INPUT.at(size), names, "", "")
    return Backbone(spec, nn.Sequential(*stages), structure)


def plan_of(backbone, depths=(1,), pooling="avg", device=CPU):
    fitted = FittedPlan(backbone.spec, backbone.spec.input, depths, pooling, "float32")
    return ExtractionPlan(backbone, fitted, device)


def extractor(*stages, depths=None, **options):
    depths = (len(stages),) if depths is None else depths
    return FeatureExtractor(plan_of(backbone_of(*stages, **options), depths), depths)


def greys(n):
    values = torch.arange(n, dtype=torch.uint8)
    return values[:, None, None, None].expand(n, 3, 8, 8).contiguous()


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, ON_CPU, ON_MPS], ids=["cuda", "cpu", "mps"])
def test_a_batch_is_halved_while_memory_runs_out(error):
    module = Mean(largest=3, error=error)
    (rows,) = extractor(module)(greys(10))
    np.testing.assert_array_equal(rows[:, 0], range(10))
    assert module.batches == [10, 5, 2, 2, 2, 2, 2]


def test_what_memory_has_room_for_is_remembered():
    extractor(Mean(largest=3))(greys(10))
    module = Mean(largest=3)
    network = extractor(module)  # as the next call does
    network(greys(10))
    network(greys(1))
    assert module.batches == [2, 2, 2, 2, 2, 1]


def test_it_is_remembered_for_one_backbone_depth_and_size():
    extractor(Mean(largest=3))(greys(10))
    for other in ({"digest": "other"}, {"size": 16}):
        module = Mean()
        extractor(module, **other)(greys(10))
        assert module.batches == [10]
    module = Mean()
    extractor(module, nn.Identity())(greys(10))
    assert module.batches == [10]


def test_one_image_too_large_for_memory_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        extractor(Mean(largest=0))(greys(2))


def test_another_error_is_not_taken_for_a_lack_of_memory():
    module = Mean(largest=0, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        extractor(module)(greys(4))
    assert module.batches == [4]


def with_norm(n_channels=3):
    return nn.Sequential(nn.Conv2d(n_channels, 4, 3), nn.BatchNorm2d(4))


def test_one_pass_gives_the_rows_of_every_depth_that_is_wanted():
    stages = nn.Conv2d(3, 4, 3).eval(), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3).eval()
    rows = extractor(*stages, depths=(0, 1, 3))(greys(4))
    with torch.no_grad():
        x = greys(4).float()
        for depth, row in zip((0, 1, 3), rows, strict=True):
            activation = nn.Sequential(*stages[:depth])(x.clone())
            np.testing.assert_allclose(row, activation.mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_a_row_is_not_changed_by_a_stage_that_works_in_place():
    class Negative(nn.Module):
        def forward(self, rows):
            return rows.neg_()

    rows = extractor(Mean(), Negative(), depths=(1, 2))(greys(3))
    np.testing.assert_array_equal(rows[0][:, 0], [0, 1, 2])
    np.testing.assert_array_equal(rows[1][:, 0], [0, -1, -2])


def test_a_stage_is_folded_once_for_all_calls(monkeypatch):
    folds, fold = [], _fold._fold_pairs
    monkeypatch.setattr(_fold, "_fold_pairs", lambda *args: folds.append(1) or fold(*args))
    backbone = backbone_of(with_norm(), with_norm(4))
    with torch.no_grad():
        expected = backbone.frozen(2, "avg")(greys(4))
    for _ in range(3):
        (rows,) = FeatureExtractor(plan_of(backbone, (2,)), (2,))(greys(4))
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
    assert len(folds) == 2
    FeatureExtractor(plan_of(backbone, (1,)), (1,))  # the first stage is folded already
    assert len(folds) == 2


def test_the_backbone_is_not_changed_and_its_modules_not_touched():
    backbone = backbone_of(with_norm(), nn.Conv2d(4, 5, 3))
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    modules = dict(backbone.model.named_modules())

    class Untouched(OrderedDict):
        is_closed = False

        def __setitem__(self, *args):
            assert not self.is_closed, "a module of a shared network was changed"
            super().__setitem__(*args)

        def __deepcopy__(self, memo):  # what is copied may be changed
            return copy.deepcopy(OrderedDict(self), memo)

    for module in modules.values():
        module._modules = Untouched(module._modules)
        module._parameters = Untouched(module._parameters)
        module._forward_hooks = Untouched(module._forward_hooks)
    Untouched.is_closed = True
    FeatureExtractor(plan_of(backbone, (1, 2)), (1, 2))(greys(2))
    assert dict(backbone.model.named_modules()) == modules
    after = backbone.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("can_fold", [True, False])
def test_a_folded_stage_is_not_kept_beyond_its_backbone(can_fold):
    stage = with_norm()
    if not can_fold:
        stage.insert(1, nn.ReLU())
    backbone = backbone_of(stage)
    FeatureExtractor(plan_of(backbone), (1,))(greys(1))
    norm = weakref.ref(stage[-1])
    assert norm() in _fold._folded
    del stage, backbone
    gc.collect()
    assert norm() is None


def test_a_device_of_its_own_leaves_the_network_where_it_was():
    backbone = backbone_of(with_norm())
    network = FeatureExtractor(plan_of(backbone, device=torch.device("meta")), (1,))
    assert {value.device.type for value in network._module.parameters()} == {"meta"}
    assert {value.device.type for value in backbone.model.parameters()} == {"cpu"}


def on_cuda(*stages, depths=None, pooling="avg", precision="float32", device="cuda:0"):
    depths = (len(stages),) if depths is None else depths
    backbone = backbone_of(*stages)
    fitted = FittedPlan(backbone.spec, backbone.spec.input, depths, pooling, precision)
    return FeatureExtractor(ExtractionPlan(backbone, fitted, torch.device(device)), depths)


def test_on_cuda_copies_are_asynchronous_and_waited_for_only_when_rows_are_wanted(fake_cuda):
    cuda, module = fake_cuda(), Mean()
    network = on_cuda(module)
    first, second = network.launch(greys(6)), network.launch(greys(2))
    assert [what for what, _ in cuda.notes if what != "upload"] == [
        "to device", "to host", "record", "to device", "to host", "record",
    ]  # fmt: skip
    np.testing.assert_array_equal(first()[0][:, 0], range(6))
    np.testing.assert_array_equal(second()[0][:, 0], range(2))
    assert [what for what, _ in cuda.notes][-2:] == ["wait", "wait"]


def test_activations_in_the_middle_are_pooled_on_the_device(fake_cuda):
    cuda = fake_cuda()
    stages = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 3)
    rows = on_cuda(*stages, depths=(1, 2))(greys(2))
    assert [row.shape for row in rows] == [(2, 4), (2, 5)]
    assert cuda.noted("to host") == [2 * 4 * 4, 2 * 5 * 4]


def test_rows_in_bfloat16_go_to_the_host_in_two_bytes_a_value(fake_cuda):
    stage = nn.Conv2d(3, 4, 3)
    (expected,) = on_cuda(stage, precision="bfloat16", device="cpu")(greys(2))
    cuda = fake_cuda()
    (rows,) = on_cuda(stage, precision="bfloat16")(greys(2))
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.float32
    assert cuda.noted("to host") == [2 * 4 * 2]


def test_pinned_memory_that_runs_out_halves_a_batch_as_well(fake_cuda):
    cuda = fake_cuda()
    cuda.most_pinned = 3 * 3 * 8 * 8  # three images
    module = Mean()
    (rows,) = on_cuda(module)(greys(10))
    np.testing.assert_array_equal(rows[:, 0], range(10))
    assert cuda.noted("to device") == [2 * 3 * 8 * 8] * 5


def test_a_network_goes_to_a_device_once_in_a_call_and_is_dropped_after_it(fake_cuda):
    cuda, device = fake_cuda(), torch.device("cuda:0")
    backbone = backbone_of(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    n_parameters = 4  # and the two buffers of the normalisation, of each extractor
    with device_call(device):
        for depths in [(2,), (1,), (2,)]:
            FeatureExtractor(plan_of(backbone, depths, device=device), depths)(greys(2))
        assert cuda.noted("upload") == ["cuda:0"] * (n_parameters + 3 * 2)
        with device_call(device):
            pass
        assert not cuda.noted("empty cache")
    assert len(cuda.noted("empty cache")) == 1
    assert not _device_copies._kept
    with device_call(device):
        FeatureExtractor(plan_of(backbone, device=device), (1,))(greys(2))
    assert len(cuda.noted("upload")) == n_parameters + 3 * 2 + 4
