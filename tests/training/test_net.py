import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch import nn

from sktransfer.training._net import ActivationBatches, make_net, probabilities


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def net(**changes):
    options = {
        "n_samples": 40,
        "lr": 0.05,
        "backbone_lr_scale": 1.0,
        "weight_decay": 0.0,
        "max_epochs": 20,
        "batch_size": 8,
        "seed": 0,
        "device": torch.device("cpu"),
        "verbose": 0,
    }
    return make_net(nn.Identity(), nn.Linear(6, 2), **{**options, **changes})


def test_every_sample_is_in_one_batch_in_another_order_each_epoch(data):
    X, y = data
    generator = torch.Generator().manual_seed(0)
    batches = ActivationBatches(Dataset(X, y), batch_size=16, generator=generator)
    epochs = [torch.cat([targets_X for targets_X, _ in batches]) for _ in range(2)]
    assert len(batches) == 3
    assert not epochs[0].equal(epochs[1])
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch[:, 0].numpy()), np.sort(X[:, 0]))


def test_without_a_generator_the_order_is_that_of_the_data(data):
    X, y = data
    batches = list(ActivationBatches(Dataset(X, y), batch_size=16))
    np.testing.assert_array_equal(np.concatenate([X_ for X_, _ in batches]), X)
    np.testing.assert_array_equal(np.concatenate([y_ for _, y_ in batches]), y)


def test_the_net_learns_what_can_be_learned(data):
    fitted = net().fit(*data)
    assert np.mean(probabilities(fitted, data[0]).argmax(1) == data[1]) >= 0.9


def test_nothing_is_held_out(data):
    fitted = net(max_epochs=1).fit(*data)
    assert sum(batch["train_batch_size"] for batch in fitted.history[0]["batches"]) == 40
    assert "valid_loss" not in fitted.history[0]


def test_a_user_who_interrupts_gets_an_interrupt(data):
    class Interrupting(nn.Linear):
        def forward(self, rows):
            raise KeyboardInterrupt

    interrupted = make_net(
        nn.Identity(),
        Interrupting(6, 2),
        n_samples=40,
        lr=0.1,
        backbone_lr_scale=1.0,
        weight_decay=0.0,
        max_epochs=1,
        batch_size=8,
        seed=0,
        device=torch.device("cpu"),
        verbose=0,
    )
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(*data)
