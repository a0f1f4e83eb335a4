import copy
import threading

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.runtime._device_copies import copy_on
from sktransfer.training._head import Standardise, TrainablePart
from sktransfer.training._inference import outputs

CPU = torch.device("cpu")
X = np.random.default_rng(0).random((11, 3, 4, 4), dtype=np.float32)


def fitted():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stages = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten())
        head = nn.Sequential(Standardise(np.zeros(32), np.ones(32)), nn.Linear(32, 2))
    return TrainablePart(stages, head).to(memory_format=torch.channels_last).eval()


def forbid_changes(module):
    """Make every change of a module's mode, device, precision or parameters an error."""

    def changed(*args, **kwargs):
        raise AssertionError("a fitted module is changed in place")

    for part in module.modules():
        for name in ("train", "_apply", "requires_grad_", "load_state_dict"):
            setattr(part, name, changed)


def test_outputs_are_those_of_the_module():
    module = fitted()
    with torch.inference_mode():
        expected = module(torch.from_numpy(X)).double().numpy()
    np.testing.assert_allclose(outputs(module, X, CPU), expected, atol=1e-6)


def test_an_output_does_not_depend_on_the_images_beside_it():
    module = fitted()
    every = outputs(module, X, CPU)
    for i in range(len(X)):
        np.testing.assert_array_equal(outputs(module, X[i : i + 1], CPU), every[i : i + 1])


@pytest.mark.parametrize(("stages", "n_threads"), [(nn.Identity(), 1), (nn.Linear(4, 4), 2)])
def test_a_small_head_alone_predicts_in_one_thread(stages, n_threads):
    head = nn.Sequential(Standardise(np.zeros(4), np.ones(4)), nn.Linear(4, 2))
    part = TrainablePart(nn.Sequential(stages), head).eval()
    seen = []
    part.head.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        outputs(part, np.zeros((9, 4), np.float32), CPU)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {n_threads if joblib.cpu_count() > 1 else 1}


def test_threads_that_share_a_module_get_the_outputs_of_one_and_never_change_it():
    module = fitted()
    expected = outputs(module, X, CPU)
    forbid_changes(module)
    results, start = [], threading.Barrier(4)

    def predict():
        start.wait()
        results.extend(outputs(module, X, CPU) for _ in range(20))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_another_device_gets_a_copy_and_the_module_stays_where_it_is():
    module = fitted()
    expected = outputs(module, X, CPU)
    forbid_changes(module)
    copied = copy_on(module, torch.device("meta"))
    assert {value.device.type for value in copied.state_dict().values()} == {"meta"}
    assert {value.device.type for value in module.state_dict().values()} == {"cpu"}
    assert copied.stages[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not copied.training
    np.testing.assert_array_equal(outputs(module, X, CPU), expected)


def test_a_copy_is_whole_and_shares_no_module():
    module = fitted()
    module.head.shared = module.head[1].weight  # as a head that ties its weights
    copied = copy_on(module, torch.device("meta"))
    assert copied.state_dict().keys() == module.state_dict().keys()
    assert copied.head.shared is copied.head[1].weight
    assert not set(map(id, copied.modules())) & set(map(id, module.modules()))
    assert [p.requires_grad for p in copied.parameters()] == [
        p.requires_grad for p in module.parameters()
    ]


def test_a_device_other_than_the_cpu_computes_with_a_copy(monkeypatch):
    from sktransfer.training import _inference

    module, devices = fitted(), []
    expected = outputs(module, X, CPU)
    forbid_changes(module)

    def copied(module, device):
        devices.append(device.type)
        return copy_on(module, CPU)

    monkeypatch.setattr(_inference, "copy_on", copied)
    monkeypatch.setattr(_inference, "moved", lambda tensor, device: tensor)
    np.testing.assert_allclose(outputs(module, X, torch.device("cuda")), expected, atol=1e-6)
    assert devices == ["cuda"]


def test_a_module_in_float64_computes_on_the_cpu():
    module = copy.deepcopy(fitted()).double()
    assert outputs(module, X.astype(np.float64), torch.device("cuda")).shape == (11, 2)


@pytest.mark.parametrize("n", [1, 11])
def test_a_batch_that_memory_has_no_room_for_passes_in_smaller_ones_of_one_size(n):
    class Scarce(nn.Flatten):
        def forward(self, batch):
            sizes.append(len(batch))
            if len(batch) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().forward(batch)

    sizes = []
    found = outputs(Scarce(), X[:n], CPU)
    np.testing.assert_array_equal(found, X[:n].reshape(n, -1))
    assert sizes[:2] == [4, 2]
    assert set(sizes[2:]) == {1}


@pytest.mark.parametrize("head", [nn.Flatten(), nn.Identity()])
def test_a_module_without_parameters_has_outputs(head):
    assert outputs(nn.Sequential(nn.Flatten(), head), X, CPU).shape == (11, 48)
