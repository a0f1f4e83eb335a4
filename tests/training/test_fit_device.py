"""What a fit does on its device, and when it holds its lock.

``cpu:0`` is torch's other name of the CPU, and stands for a GPU: a place of its own, where modules
are moved to and which is locked.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.training import _fit, _probe
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._config import TrainingConfig
from sktransfer.training._fit import LabelledActivations, RunOptions, fit_net
from sktransfer.training._targets import ClassTargets

GPU = torch.device("cpu", 0)


@pytest.fixture
def uploads(monkeypatch):
    """Return a dict from the id of each parameter to the times that it was moved to the GPU."""
    moves, places = {}, {}
    to, cpu = nn.Module.to, nn.Module.cpu

    def noted_to(module, *args, **kwargs):
        device = next(
            (arg for arg in (*args, kwargs.get("device")) if isinstance(arg, torch.device)), None
        )
        for parameter in module.parameters() if device == GPU else ():
            if places.get(id(parameter)) != GPU:
                places[id(parameter)] = GPU
                moves[id(parameter)] = moves.get(id(parameter), 0) + 1
        return to(module, *args, **kwargs)

    def noted_cpu(module):
        for parameter in module.parameters():
            places.pop(id(parameter), None)
        return cpu(module)

    monkeypatch.setattr(nn.Module, "to", noted_to)
    monkeypatch.setattr(nn.Module, "cpu", noted_cpu)
    return moves


class Held(list):
    n_times = 0


@pytest.fixture
def held(monkeypatch):
    """Return a list that holds the device while its lock is held."""
    devices = Held()

    @contextmanager
    def noted(device):
        if device != GPU:  # the CPU needs no lock
            yield
            return
        devices.append(device)
        devices.n_times += 1
        yield
        devices.pop()

    monkeypatch.setattr(_fit, "gpu_lock", noted)
    return devices


class Stage(nn.Module):
    def __init__(self, held=None):
        super().__init__()
        self.layer, self.held, self.n_passes = nn.Linear(6, 4), held, 0

    def forward(self, x):
        self.n_passes += 1
        if self.held is not None:
            assert self.held, "a pass without the lock"
        return self.layer(x)


def rows_of_view(number, n=30):
    return np.random.default_rng(number).normal(size=(n, 6)).astype(np.float32)


def fit(stages, views, validation=None, target=None, **config):
    labels, ones = np.arange(30) % 3, np.ones(30)
    targets = ClassTargets(3)
    examples = LabelledActivations(views, targets.encode(labels), ones, ones)
    config = TrainingConfig(**{"max_epochs": 4, "batch_size": 8, **config})
    options = RunOptions(GPU, 0, verbose=-1)
    if validation is not None:
        validation = LabelledActivations(validation, targets.encode(labels), ones, ones)
    return fit_net(stages, config, targets, examples, validation, options, target)


@pytest.mark.parametrize("n_views", [1, 3, None])
def test_a_stage_goes_to_the_device_once_in_a_fit(uploads, n_views):
    stage = Stage()
    mine = [id(parameter) for parameter in stage.parameters()]
    validation = AugmentedActivations.fixed(rows_of_view(9))
    fit(nn.Sequential(stage), AugmentedActivations(rows_of_view, n_views), validation)
    assert [uploads[parameter] for parameter in mine] == [1, 1]
    assert max(uploads.values()) == 1  # nor does the head twice


@pytest.mark.parametrize("n_views", [1, 3])
def test_the_lock_is_held_in_passes_and_not_while_views_are_read(held, n_views):
    def extract(number):
        assert not held, "read under the lock"
        return rows_of_view(number)

    stage = Stage(held)
    fit(nn.Sequential(stage), AugmentedActivations(extract, n_views))
    assert stage.n_passes > 10
    assert held == []


@pytest.mark.parametrize("n_views", [1, 3])
def test_views_of_a_target_are_not_read_under_the_lock(held, n_views):
    def extract(number):
        assert not held, "read under the lock"
        return rows_of_view(number)

    stage, views = Stage(held), AugmentedActivations(rows_of_view, n_views)
    fit(nn.Sequential(stage), views, target=AugmentedActivations(extract, n_views), adapt="mcc")
    assert stage.n_passes > 10
    assert held == []


@pytest.mark.parametrize(("error", "waits"), [(ValueError, True), (KeyboardInterrupt, False)])
def test_a_fit_that_fails_leaves_no_view_that_is_read_but_ctrl_c_does_not_wait(
    monkeypatch, error, waits
):
    def fail(net, *args, **kwargs):
        raise error

    ends = []
    monkeypatch.setattr(_fit.TransferNet, "fit_loop", fail)
    views = AugmentedActivations(rows_of_view, None)
    monkeypatch.setattr(views, "end", lambda waits=True: ends.append(waits))
    with pytest.raises(error):
        fit(nn.Sequential(Stage()), views)
    assert ends == [waits]


def test_a_small_head_alone_locks_no_device(held, monkeypatch):
    trained = []
    fit_loop = _fit.TransferNet.fit_loop
    monkeypatch.setattr(
        _fit.TransferNet,
        "fit_loop",
        lambda net, *a, **k: (
            trained.append((list(held), str(net.device))) or fit_loop(net, *a, **k)
        ),
    )
    views = AugmentedActivations.fixed(rows_of_view(0))
    fit(nn.Identity(), views, batch_size="auto")
    assert trained == [([], "cpu")]
    assert held.n_times == 0


def test_a_head_of_many_rows_is_solved_and_trained_on_the_device(held, monkeypatch):
    monkeypatch.setattr(_probe, "LARGE", 0)
    solved, start_head = [], _fit.start_head
    monkeypatch.setattr(
        _fit,
        "start_head",
        lambda *arguments: solved.append((list(held), arguments[-1])) or start_head(*arguments),
    )
    net = fit(nn.Identity(), AugmentedActivations.fixed(rows_of_view(0)), batch_size="auto")
    assert solved == [([GPU], GPU)]
    assert torch.device(net.device) == GPU
    assert next(net.module_.parameters()).dtype == torch.float32
