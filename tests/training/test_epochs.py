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
    """A clock that another one sets: `monotonic` tells the time, `pass_time` changes it."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def pass_time(self, seconds):
        self.now += seconds


def train(duration, clock, n_epochs, n_steps, seconds_a_step, seconds_an_epoch=0.0):
    """Let the time of a fit pass; its first step takes a minute longer."""
    clock.pass_time(60.0)
    for _ in range(n_epochs):
        clock.pass_time(seconds_an_epoch)
        for _ in range(n_steps):
            clock.pass_time(seconds_a_step)
            duration.end_step()
        duration.end_epoch()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_epochs, "time", clock)
    return clock


def test_a_fit_of_minutes_is_told_after_its_first_steps_and_once(clock):
    duration = FitDuration(30, 30, n_stages=4)
    with pytest.warns(SlowFitWarning) as caught:
        train(duration, clock, 1, 11, 0.8)
    train(duration, clock, 5, 30, 0.8)  # a second warning would be an error
    (warning,) = caught
    assert "a head and 4 stages of the backbone, takes up to about 12 minutes" in str(
        warning.message
    )
    assert "30 epochs of 30 steps" in str(warning.message)


def test_what_is_done_once_an_epoch_counts_as_well(clock):
    duration = FitDuration(30, 30, n_stages=1)
    with pytest.warns(SlowFitWarning, match="a head and 1 stage of .* about 17 minutes"):
        train(duration, clock, 2, 30, 0.1, seconds_an_epoch=31.0)


def test_a_short_fit_with_a_slow_first_step_does_not_warn(clock):
    train(FitDuration(30, 30, n_stages=4), clock, 30, 30, 0.3)
    train(FitDuration(200, 1, n_stages=0), clock, 200, 1, 0.3)
