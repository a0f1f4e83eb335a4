import pytest
import torch
from torch import nn

from sktransfer.training import _epochs
from sktransfer.training._epochs import EarlyStop, seed_generators


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
