"""Memory that runs out while activations live on the device: they are dropped first."""

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.training import _net, _resident
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._config import TrainingConfig
from sktransfer.training._head import TrainablePart
from sktransfer.training._net import make_net
from sktransfer.training._optim import WeightedLoss
from sktransfer.training._resident import ViewsOnDevice, _ForDevice

from .conftest import Copies, assert_same, training_set

CPU = torch.device("cpu")
ROOMY = 10**6


def full(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class Stage(nn.Module):
    """A layer on a device with memory for `most` images beside activations, `most_alone` else."""

    def __init__(self, most, most_alone, kept):
        super().__init__()
        self.layer, self.kept, self.sizes = nn.Linear(6, 6), kept, []
        self.most, self.most_alone = most, most_alone

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > (self.most if self.kept.on_device() else self.most_alone):
            full()
        return self.layer(x)


class Kept(list):
    """All activations that a device could hold."""

    def on_device(self):
        return [source for source in self if source._data is not None]


@pytest.fixture
def kept(monkeypatch):
    sources, init = Kept(), _ForDevice.__init__
    monkeypatch.setattr(
        _ForDevice, "__init__", lambda source, *a: sources.append(source) or init(source, *a)
    )
    return sources


def fitted(kept, most=ROOMY, most_alone=ROOMY, n_validation=20):
    torch.manual_seed(0)
    stage = Stage(most, most_alone, kept)
    head = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 2))
    net = make_net(
        TrainablePart(nn.Sequential(stage), head),
        WeightedLoss("softmax"),
        TrainingConfig(lr=0.05),
        n_epochs=2,
        batch_size=16,
        validation=training_set(n_validation, seed=1),
        seed=0,
        device=CPU,
        verbose=-1,
    )
    return net.fit(training_set()), stage


def test_a_step_that_fits_alone_is_not_divided_for_activations_on_the_device(monkeypatch, kept):
    expected, _ = fitted(kept)
    copies = Copies(monkeypatch)
    net, stage = fitted(kept, most=15, most_alone=20)
    assert stage.sizes == [16, 16, 16, 8, 20] + [16, 16, 8, 20]  # the first was tried twice
    assert copies.shapes.count((40, 6)) == 1
    assert copies.shapes.count((16, 6)) == 3  # after the first, batch by batch
    assert_same(net, expected)  # to the bit: nothing has other sums


def test_a_step_that_does_not_fit_alone_either_is_divided(monkeypatch, kept):
    Copies(monkeypatch)
    _, stage = fitted(kept, most=15, most_alone=8)
    assert stage.sizes[:4] == [16, 16, 8, 8]
    assert not kept.on_device()


def test_what_is_only_validated_on_is_divided_before_activations_are_dropped(monkeypatch, kept):
    Copies(monkeypatch)
    held = []
    end = _net.TransferNet.validation_step
    monkeypatch.setattr(
        _net.TransferNet,
        "validation_step",
        lambda net, batch: (held.append(len(kept.on_device())), end(net, batch))[1],
    )
    _, stage = fitted(kept, most=17, n_validation=100)
    assert stage.sizes[3:6] == [100, 50, 25]
    assert max(stage.sizes[6:]) <= 17
    assert held == [2, 2]


def test_validation_drops_activations_where_as_many_images_as_in_a_step_do_not_fit(
    monkeypatch, kept
):
    Copies(monkeypatch)
    _, stage = fitted(kept, most=16, most_alone=17, n_validation=17)
    assert stage.sizes == [16, 16, 8, 17, 17] + [16, 16, 8, 17]


def test_nothing_lives_on_the_device_after_a_fit(monkeypatch, kept):
    Copies(monkeypatch)
    fitted(kept)
    assert len(kept) == 2
    assert not kept.on_device()


def test_one_view_at_a_time_lives_on_the_device_where_each_epoch_has_its_own(monkeypatch, kept):
    Copies(monkeypatch)
    rng = np.random.default_rng(0)
    views = AugmentedActivations(lambda number: rng.normal(size=(9, 6)).astype(np.float32), None)
    on_device, copy, n_before = ViewsOnDevice(CPU), _ForDevice.copy, []
    monkeypatch.setattr(
        _ForDevice, "copy", lambda source: n_before.append(len(kept.on_device())) or copy(source)
    )
    for epoch in range(3):
        on_device.of(views, epoch)
    assert n_before == [0, 0, 0]
    assert len(kept.on_device()) == 1


def test_activations_that_do_not_fit_after_all_are_copied_by_batches(monkeypatch, kept):
    expected, _ = fitted(kept)
    copies = Copies(monkeypatch)
    monkeypatch.setattr(
        _resident,
        "moved",
        lambda tensor, device: full() if len(tensor) == 40 else copies.moved(tensor, device),
    )
    net, _ = fitted(kept)
    assert_same(net, expected)
    assert copies.shapes.count((16, 6)) == 4


def test_a_batch_that_can_not_be_gathered_on_the_device_is_copied(monkeypatch, kept):
    expected, _ = fitted(kept)
    Copies(monkeypatch)
    select = torch.Tensor.index_select
    n_selected = []

    def index_select(tensor, dim, index):
        n_selected.append(len(index))
        return full() if len(n_selected) == 2 else select(tensor, dim, index)

    monkeypatch.setattr(torch.Tensor, "index_select", index_select)
    net, _ = fitted(kept)
    assert n_selected == [16, 16]  # from then on all batches are copied
    assert_same(net, expected)


def test_a_batch_that_has_no_room_on_the_device_is_copied_in_parts(monkeypatch, kept):
    expected, _ = fitted(kept)
    Copies(monkeypatch, free=0)

    def moved(tensor, device):
        return full() if tensor.ndim == 2 and len(tensor) > 5 else tensor.to(device)

    monkeypatch.setattr(_resident, "moved", moved)
    monkeypatch.setattr(_net, "moved", moved)
    net, stage = fitted(kept)
    assert max(stage.sizes) <= 5
    np.testing.assert_allclose(net.history[:, "valid_loss"], expected.history[:, "valid_loss"], 0.1)


def test_other_errors_of_copies_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def fail(tensor, device):
        raise RuntimeError("the device is gone")

    Copies(monkeypatch)
    monkeypatch.setattr(_resident, "moved", fail)
    views = training_set().views
    with pytest.raises(RuntimeError, match="the device is gone"):
        ViewsOnDevice(CPU).of(views, 0)
    monkeypatch.setattr(_resident, "free_bytes", lambda device: 0)
    source, chosen = ViewsOnDevice(CPU).of(views, 0), torch.arange(3)
    with pytest.raises(RuntimeError, match="the device is gone"):
        source.take(chosen, chosen)
