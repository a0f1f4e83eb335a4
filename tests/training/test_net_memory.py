"""Steps whose batches do not fit in memory: parts of them, whose gradients add up."""

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._config import TrainingConfig
from sktransfer.training._data import TrainingSet
from sktransfer.training._head import TrainablePart
from sktransfer.training._net import make_net
from sktransfer.training._optim import WeightedLoss
from sktransfer.training._parts import Parts, in_parts, parts_of


class Scarce(nn.Module):
    """A stage on a device with memory for so many images."""

    def __init__(self, most):
        super().__init__()
        self.most = most
        self.layer = nn.Linear(6, 6)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.layer(x)


def training_set(n=40, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[(X[:, 0] > 0).astype(int)]
    weights = rng.uniform(0.5, 2, n)
    return TrainingSet(AugmentedActivations.fixed(X), targets, weights, np.ones(n))


def fitted(most, part_size=None, **config):
    torch.manual_seed(0)
    stage = Scarce(most)
    part = TrainablePart(nn.Sequential(stage), nn.Linear(6, 2))
    net = make_net(
        part,
        WeightedLoss("softmax"),
        TrainingConfig(lr=0.05, optimizer="sgd", **config),
        n_epochs=2,
        batch_size=16,
        part_size=part_size,
        validation=training_set(20, seed=1),
        seed=0,
        device=torch.device("cpu"),
        verbose=-1,
    )
    return net.fit(training_set()), stage


def test_a_batch_that_does_not_fit_trains_in_halves():
    expected, _ = fitted(most=100)
    net, stage = fitted(most=5)
    assert stage.sizes[:3] == [16, 8, 4]
    assert max(stage.sizes[3:]) == 4  # later batches are not tried in vain
    for found, wanted in zip(net.module_.parameters(), expected.module_.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)
    for name in ("train_loss", "valid_loss", "valid_score"):
        assert net.history[:, name] == pytest.approx(expected.history[:, name])


def test_parts_of_a_size_that_is_asked_for_add_up_to_the_batch():
    expected, _ = fitted(most=100)
    net, stage = fitted(most=100, part_size=3)
    assert max(stage.sizes) == 3
    for found, wanted in zip(net.module_.parameters(), expected.module_.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_memory_that_ends_on_one_image_is_named_with_what_helps():
    with pytest.raises(torch.OutOfMemoryError, match=r"freeze more stages .*image_size.*Tried to"):
        fitted(most=0)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def fail(self, x):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Scarce, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fitted(most=100)


def test_parts_are_about_equal_and_their_weights_are_shares():
    batch = torch.arange(7.0), [torch.arange(7), torch.ones(7)]
    parts = list(parts_of(batch, 3))
    assert [len(activations) for activations, _ in parts] == [3, 2, 2]
    assert torch.cat([targets for _, (targets, _) in parts]).tolist() == list(range(7))
    assert sum(weights.mean() for _, (_, weights) in parts) == pytest.approx(1)


def test_batch_statistics_have_no_part_of_one_image():
    sizes = []

    def step(batch):
        sizes.append(len(batch[0]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError
        return {"loss": torch.zeros(()), "y_pred": batch[0]}

    batch = torch.arange(7.0), [torch.arange(7), torch.ones(7)]
    parts = Parts(torch.device("cpu"), least=3)
    passed = parts.run(7, lambda size: in_parts(step, batch, size))
    assert passed["y_pred"].tolist() == batch[0].tolist()
    assert sizes == [7, 4, 3, 2, 2]


def test_an_error_without_words_is_named_too():
    def compute(size):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError, match=r"freeze more stages .*nothing"):
        Parts(torch.device("cpu")).run(1, compute)
