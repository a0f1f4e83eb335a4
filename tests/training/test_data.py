import numpy as np
import torch

from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._data import Batches, TrainingSet, seed_of


def training_set(n=40):
    X = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    return TrainingSet(AugmentedActivations.fixed(X), X[:, :1].copy(), *np.ones((2, n)))


def test_every_sample_is_in_one_batch_with_its_target():
    seen = list(Batches(training_set(), 16, seed=0))
    assert [len(X) for X, _ in seen] == [16, 16, 8]
    X = torch.cat([X for X, _ in seen])
    targets = torch.cat([targets for _, (targets, _) in seen])
    torch.testing.assert_close(X[:, :1], targets)
    assert X[:, 0].sort().values.tolist() == training_set().targets[:, 0].tolist()


def test_the_order_follows_from_seed_and_epoch_alone():
    def order(seed, epoch):
        batches = Batches(training_set(), 16, seed=seed, epoch=lambda: epoch)
        return torch.cat([X for X, _ in batches])[:, 0].tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert seed_of(0, 1) != seed_of(1, 0)


def test_without_a_seed_the_order_is_that_of_the_data():
    X = torch.cat([X for X, _ in Batches(training_set(), 16)])
    np.testing.assert_array_equal(X, training_set().views.of_epoch(0))
