import warnings

import pytest
import torch
from torch import nn

from sktransfer.exceptions import SlowFitWarning
from sktransfer.training import _epochs
from sktransfer.training._epochs import EarlyStop, FitDuration, seed_generators


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


class FakeGenerator:
    seed = None

    def manual_seed(self, seed):
        self.seed = seed


@pytest.fixture
def two_gpus(monkeypatch):
    """Return the generators of two GPUs that are not there; the first one is current."""
    generators = (FakeGenerator(), FakeGenerator())
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "manual_seed", generators[0].manual_seed)
    return generators


@pytest.mark.parametrize(
    ("device", "seeds"),
    [("cuda:1", [None, 7]), ("cuda:0", [7, None]), ("cuda", [7, None]), ("cpu", [None, None])],
)
def test_the_generator_of_the_chosen_gpu_is_seeded_and_no_other_one(two_gpus, device, seeds):
    seed_generators(7, torch.device(device))
    assert [generator.seed for generator in two_gpus] == seeds
    drawn = torch.rand(1)
    torch.default_generator.manual_seed(7)
    assert torch.rand(1).equal(drawn)


def test_an_epoch_is_seeded_on_the_device_that_trains(monkeypatch):
    seeded = []
    monkeypatch.setattr(_epochs, "seed_generators", lambda seed, device: seeded.append(device))
    part = _epochs.TrainablePart(nn.Identity(), nn.Linear(2, 2))
    _epochs.start_epoch(part, _epochs.TrainingConfig(), 0, 0, torch.device("cuda:1"))
    assert seeded == [torch.device("cuda:1")]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_lower(loss):
    with pytest.raises(ValueError, match=r"loss of epoch 3 is not.*lr=0.1"):
        _epochs.check_loss(loss, 3, 0.1)


def test_training_stops_after_so_many_epochs_without_a_lower_loss():
    module, stop = nn.Linear(1, 1), EarlyStop(patience=2)
    losses = [3.0, 1.0, 2.0, 1.5, 0.5]
    stopped = []
    for epoch, loss in enumerate(losses, start=1):
        nn.init.constant_(module.weight, epoch)
        stopped.append(stop.update(epoch, loss, module))
    assert stopped == [False, False, False, True, False]
    assert (stop.epoch, stop.loss) == (5, 0.5)
    resumed = EarlyStop(patience=2)
    resumed.load_state_dict(stop.state_dict())
    nn.init.constant_(module.weight, 0)
    resumed.restore(module)
    assert module.weight.item() == 5


class Clock:
    """A clock on which the first step takes a minute, and each other one `seconds`."""

    def __init__(self, seconds):
        self.now, self.seconds, self.n_reads = 0.0, seconds, 0

    def monotonic(self):
        self.n_reads += 1
        self.now += 60.0 if self.n_reads == 2 else self.seconds
        return self.now


def test_a_fit_of_minutes_is_told_after_its_first_steps_and_once(monkeypatch):
    monkeypatch.setattr(_epochs, "time", Clock(0.8))
    duration = FitDuration(900, n_stages=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(100):
            duration.end_step()
    (warning,) = caught
    assert warning.category is SlowFitWarning
    assert "4 stages of the backbone for about 12 minutes" in str(warning.message)
    assert "900 steps of 0.80 s" in str(warning.message)


def test_a_short_fit_with_a_slow_first_step_does_not_warn(monkeypatch):
    monkeypatch.setattr(_epochs, "time", Clock(0.3))
    duration = FitDuration(900, n_stages=4)
    for _ in range(100):
        duration.end_step()
