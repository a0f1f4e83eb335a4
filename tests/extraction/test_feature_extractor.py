import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer._spec import BackboneSpec, InputSpec
from sktransfer.extraction import _feature_extractor, _fold
from sktransfer.extraction._feature_extractor import ExtractionPlan, FeatureExtractor

INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1))

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
    monkeypatch.setattr(_feature_extractor, "_largest", {})


def frozen_part(module, digest="digest", size=8, n_stages=1):
    spec = BackboneSpec("name", "mean", (), None, digest, INPUT, ("one",), "", "")
    return ExtractionPlan(
        module, spec, INPUT.at(size), n_stages, "avg", "float32", torch.device("cpu")
    )


def greys(n):
    values = torch.arange(n, dtype=torch.uint8)
    return values[:, None, None, None].expand(n, 3, 8, 8).contiguous()


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, ON_CPU, ON_MPS], ids=["cuda", "cpu", "mps"])
def test_a_batch_is_halved_while_memory_runs_out(error):
    module = Mean(largest=3, error=error)
    rows = FeatureExtractor(frozen_part(module))(greys(10))
    np.testing.assert_array_equal(rows[:, 0], range(10))
    assert module.batches == [10, 5, 2, 2, 2, 2, 2]


def test_what_memory_has_room_for_is_remembered():
    FeatureExtractor(frozen_part(Mean(largest=3)))(greys(10))
    module = Mean(largest=3)
    network = FeatureExtractor(frozen_part(module))  # as the next call does
    network(greys(10))
    network(greys(1))
    assert module.batches == [2, 2, 2, 2, 2, 1]


def test_it_is_remembered_for_one_backbone_depth_and_size():
    FeatureExtractor(frozen_part(Mean(largest=3)))(greys(10))
    for other in ({"digest": "other"}, {"size": 16}, {"n_stages": 2}):
        module = Mean()
        FeatureExtractor(frozen_part(module, **other))(greys(10))
        assert module.batches == [10]


def test_one_image_too_large_for_memory_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        FeatureExtractor(frozen_part(Mean(largest=0)))(greys(2))


def test_another_error_is_not_taken_for_a_lack_of_memory():
    module = Mean(largest=0, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        FeatureExtractor(frozen_part(module))(greys(4))
    assert module.batches == [4]


class Float(nn.Module):
    def forward(self, images):
        return images.float() / 255


def with_norm():
    return nn.Sequential(Float(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


def test_a_network_is_folded_once_for_all_calls(monkeypatch):
    folds, fold = [], _fold._fold
    monkeypatch.setattr(_fold, "_fold", lambda *arguments: folds.append(1) or fold(*arguments))
    module = with_norm()
    with torch.no_grad():
        expected = module(greys(4))
    for _ in range(3):
        rows = FeatureExtractor(frozen_part(nn.Sequential(*module)))(greys(4))  # parts are shared
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert len(folds) == 1
    FeatureExtractor(frozen_part(module, n_stages=2))
    assert len(folds) == 2


@pytest.mark.parametrize("can_fold", [True, False])
def test_a_folded_network_is_not_kept_beyond_its_backbone(can_fold):
    module = with_norm()
    if not can_fold:
        module.insert(2, nn.ReLU())
    FeatureExtractor(frozen_part(module))(greys(1))
    norm = weakref.ref(module[-1])
    assert norm() in _feature_extractor._folded
    del module
    gc.collect()
    assert norm() is None


def test_a_device_of_its_own_leaves_the_network_where_it_was():
    module = with_norm()
    spec = BackboneSpec("name", "mean", (), None, "digest", INPUT, ("one",), "", "")
    meta = ExtractionPlan(module, spec, INPUT, 1, None, "float32", torch.device("meta"))
    network = FeatureExtractor(meta)
    assert {value.device.type for value in network._module.parameters()} == {"meta"}
    assert {value.device.type for value in module.parameters()} == {"cpu"}


def test_on_cuda_rows_are_copied_once_and_waited_for_only_when_wanted(monkeypatch):
    # without a GPU: what CUDA does is written down, and done on the CPU
    done, module = [], Mean()

    class Event:
        def record(self, stream):
            done.append("record")

        def synchronize(self):
            done.append("wait")

    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *shape, pin_memory, **options: empty(*shape, **options)
    )
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: done.append("pin") or self)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    network = FeatureExtractor(frozen_part(module))
    network._is_cuda = True  # the device stays the CPU
    _feature_extractor._largest[network._kind] = 4

    first, second = network.launch(greys(6)), network.launch(greys(2))
    assert done == ["pin", "record"] * 2
    assert module.batches == [4, 2, 2]
    np.testing.assert_array_equal(first()[:, 0], range(6))
    np.testing.assert_array_equal(second()[:, 0], range(2))
    assert done[4:] == ["wait"] * 2
