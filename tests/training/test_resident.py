"""Where the data of a fit lives, and the order of copies to a device.

A fit on the CPU is made to take the way of a GPU: copies are counted, and what would wait for a
GPU fails.
"""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.training import _data, _inference, _net, _resident
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._config import TrainingConfig
from sktransfer.training._data import Batches, mix_batch
from sktransfer.training._head import TrainablePart
from sktransfer.training._inference import outputs, pooled_rows
from sktransfer.training._net import make_net
from sktransfer.training._optim import WeightedLoss
from sktransfer.training._resident import ViewsOnDevice, fits_on, moved

from .conftest import Copies, assert_same, training_set

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


def rows_of_view(number):
    return np.full((3, 2), number, np.float32)


def fitted(dataset=None, n_epochs=3, validation=True, **config):
    torch.manual_seed(0)
    part = TrainablePart(
        nn.Sequential(nn.Linear(6, 6)), nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 2))
    )
    net = make_net(
        part,
        WeightedLoss("softmax"),
        TrainingConfig(lr=0.05, **config),
        n_epochs=n_epochs,
        batch_size=16,
        validation=training_set(20, seed=1) if validation else None,
        seed=0,
        device=CPU,
        verbose=-1,
    )
    return net.fit(dataset or training_set())


def test_a_copy_to_a_gpu_is_pinned_first_and_not_waited_for(monkeypatch):
    calls = []
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda tensor: calls.append("pin") or tensor.clone()
    )
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, *args, **kwargs: calls.append((args, kwargs)) or tensor
    )
    moved(torch.ones(2), CUDA)
    assert calls == ["pin", ((CUDA,), {"non_blocking": True})]


def test_nothing_is_copied_on_the_cpu():
    tensor = torch.ones(2)
    assert moved(tensor, CPU) is tensor


def test_activations_that_fit_cross_once_in_a_fit(monkeypatch):
    expected = fitted(mix="mixup")
    copies = Copies(monkeypatch)
    net = fitted(mix="mixup")
    assert copies.shapes.count((40, 6)) == 1
    assert copies.shapes.count((20, 6)) == 1  # those that are validated on
    assert not {(16, 6), (8, 6)} & set(copies.shapes)  # no batch does
    assert_same(net, expected)


def test_activations_that_do_not_fit_cross_batch_by_batch(monkeypatch):
    expected = fitted()
    copies = Copies(monkeypatch, free=100)
    net = fitted()
    assert (40, 6) not in copies.shapes
    assert copies.shapes.count((16, 6)) == 6  # two of that size in each of three epochs
    assert_same(net, expected)


def test_a_device_is_asked_for_the_losses_once_an_epoch(monkeypatch):
    Copies(monkeypatch)
    waits = []
    for name in ("item", "tolist", "cpu"):
        ask = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda tensor, ask=ask, name=name: waits.append(name) or ask(tensor)
        )
    fitted(n_epochs=4, validation=False)
    assert waits == ["tolist"] * 4
    waits.clear()
    fitted(n_epochs=4)
    assert waits == ["tolist", "tolist", "cpu"] * 4


def test_the_host_is_asked_for_no_number_by_a_mixed_batch(monkeypatch):
    moves = []
    monkeypatch.setattr(_data, "moved", lambda tensor, device: moves.append(device) or tensor)
    mix_batch(torch.randn(4, 6), torch.eye(4), torch.ones(4), "mixup", 0.2)
    assert moves == [CPU]


def test_views_that_are_reused_stay_on_the_device_and_others_make_room(monkeypatch):
    Copies(monkeypatch)
    on_device = ViewsOnDevice(CPU)
    reused, new, fixed = (AugmentedActivations(rows_of_view, n) for n in (2, None, 1))
    first = on_device.of(reused, 0)
    assert on_device.of(reused, 1) is not first
    assert on_device.of(reused, 2) is first
    other = on_device.of(fixed, 0)
    of_new = [on_device.of(new, epoch) for epoch in range(3)]
    assert all(one is not next_one for one, next_one in pairwise(of_new))
    assert [len(held) for held in on_device._held.values()] == [2, 1, 1]
    assert on_device.of(fixed, 5) is other


def test_a_large_array_crosses_in_pieces(monkeypatch):
    copies = Copies(monkeypatch)
    monkeypatch.setattr(_resident, "_BYTES_AT_ONCE", 100)
    array = np.arange(60, dtype=np.float32).reshape(10, 6)
    chosen = torch.tensor([9, 0, 4])
    views = AugmentedActivations.fixed(array)
    batch = ViewsOnDevice(CPU).of(views, 0).take(chosen, chosen)
    np.testing.assert_array_equal(batch, array[[9, 0, 4]])
    assert copies.shapes == [(4, 6), (4, 6), (2, 6)]


def test_half_of_the_free_memory_of_a_gpu_is_for_data(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 200)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert fits_on(CUDA, 400)
    assert not fits_on(CUDA, 401)
    assert not fits_on(CPU, 1)


def test_one_batch_of_all_images_is_no_copy_where_nothing_changes_it():
    dataset = training_set()
    ((batch, columns),) = Batches(dataset, 40, shares_memory=True)
    assert batch.data_ptr() == dataset.views.of_epoch(0).ctypes.data
    assert columns[0] is dataset.targets
    ((batch, _),) = Batches(dataset, 40)
    assert batch.data_ptr() != dataset.views.of_epoch(0).ctypes.data


def test_the_next_view_is_extracted_while_one_trains(monkeypatch):
    events, threads = [], set()
    is_asked = [threading.Event() for _ in range(4)]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(40, 6)).astype(np.float32) for _ in range(4)]

    def extract(number):
        threads.add(threading.current_thread() is threading.main_thread())
        events.append(number)
        is_asked[number].set()
        return arrays[number]

    def views(**options):
        return AugmentedActivations(extract, None, **options)

    expected = fitted(training_set(views=views()), 4)
    assert events == [0, 1, 2, 3]
    assert threads == {True}
    events.clear()
    for event in is_asked:
        event.clear()
    Copies(monkeypatch)
    step = _net.TransferNet.train_step

    def train_step(net, batch, **params):
        epoch = len(net.history) - 1
        if epoch < 3:
            assert is_asked[epoch + 1].wait(10)  # it has begun before the epoch is over
        return step(net, batch, **params)

    monkeypatch.setattr(_net.TransferNet, "train_step", train_step)
    net = fitted(training_set(views=views(may_overlap=True)), 4)
    assert sorted(events) == [0, 1, 2, 3]  # and none beyond the last epoch
    assert threads == {True, False}
    assert_same(net, expected)


def test_a_view_that_fails_in_the_other_thread_fails_the_fit(monkeypatch):
    Copies(monkeypatch)

    def extract(number):
        if number == 1:
            raise OSError("the disk is gone")
        return np.zeros((40, 6), np.float32)

    views = AugmentedActivations(extract, None, may_overlap=True)
    with pytest.raises(OSError, match="the disk is gone"):
        fitted(training_set(views=views), 3)


def test_a_view_that_nobody_trains_on_is_waited_for_and_dropped():
    is_over = threading.Event()

    def extract(number):
        is_over.set()
        raise OSError("nobody reads this")

    views = AugmentedActivations(extract, None, may_overlap=True)
    views.begin(1)
    views.end()
    assert is_over.is_set()
    assert views._under_way is None
    views.end()


def test_a_view_is_not_waited_for_where_a_fit_is_interrupted():
    may_end = threading.Event()

    def extract(number):
        assert may_end.wait(10)
        return np.zeros((40, 6), np.float32)

    views = AugmentedActivations(extract, None, may_overlap=True)
    views.begin(1)
    views.end(waits=False)  # else it would wait for what comes after it
    may_end.set()


class Stage(nn.Module):
    """A layer that has memory for so many images, and notes how often it is moved."""

    def __init__(self, most=10**6):
        super().__init__()
        self.layer, self.most, self.sizes = nn.Linear(6, 3), most, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")
        return self.layer(x)


def test_rows_for_the_probe_are_computed_in_parts_where_memory_runs_out():
    activations = np.random.default_rng(0).normal(size=(70, 6)).astype(np.float32)
    stage = Stage()
    expected = pooled_rows(stage, activations, CPU)
    stage.most, stage.sizes = 20, []
    np.testing.assert_allclose(pooled_rows(stage, activations, CPU), expected, rtol=1e-5)
    assert stage.sizes[:3] == [64, 32, 16]
    with pytest.raises(torch.OutOfMemoryError, match="ran out"):
        pooled_rows(Stage(most=0), activations, CPU)


def test_results_of_a_gpu_are_waited_for_after_several_batches(monkeypatch):
    activations = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    stage = Stage().eval()
    expected = outputs(stage, activations, CPU)
    Copies(monkeypatch)
    waits = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: waits.append(len(tensor)) or cpu(tensor)
    )
    monkeypatch.setattr(_inference, "_BATCHES_IN_A_ROW", 8)  # of 4 images
    np.testing.assert_array_equal(outputs(stage, activations, CPU), expected)
    assert waits == [32, 32, 32, 4]
