import numpy as np
import torch

from sktransfer.training._data import AugmentedActivations, Batches, TrainingSet, seed_of


def training_set(n=40):
    X = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    return TrainingSet(AugmentedActivations.fixed(X), X[:, :1].copy(), np.ones(n))


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


def test_kept_views_take_turns_and_are_extracted_once():
    asked = []

    def extract(number):
        asked.append(number)
        return np.full((2, 1), number)

    views = AugmentedActivations(extract, 3)
    assert [int(views.of_epoch(epoch)[0, 0]) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert asked == [0, 1, 2]
    assert len(views.for_the_head_start()) == 3


def test_fresh_views_are_new_in_each_epoch_and_one_at_a_time_is_held():
    views = AugmentedActivations(lambda number: np.full((2, 1), number), None)
    assert [int(views.of_epoch(epoch)[0, 0]) for epoch in range(4)] == [0, 1, 2, 3]
    assert len(views._kept) == 1


def test_views_can_be_followed_by_other_images():
    views = AugmentedActivations(lambda number: np.full((2, 1), number), 2).concatenated_with(
        np.array([[9]])
    )
    assert views.of_epoch(1).ravel().tolist() == [1, 1, 9]
