import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs

from sktransfer.training._config import TrainingConfig
from sktransfer.training._continued import seen_in, solve_again
from sktransfer.training._head import start_head
from sktransfer.training._targets import ClassTargets, LabelTargets, NumberTargets


def started(rows, encoded, targets):
    ones = np.ones(len(rows))
    head, _ = start_head(TrainingConfig(), rows, encoded, ones, ones, targets)
    return head


def again(head, rows, encoded, targets, seen, weights=None):
    weights = np.ones(len(rows)) if weights is None else weights
    solve_again(head, rows, encoded, weights, targets, seen)
    return head


@torch.no_grad()
def outputs_of(head, rows):
    return head(torch.from_numpy(rows)).numpy()


@torch.no_grad()
def distance(one, other):
    return float((one[1][0].weight - other[1][0].weight).norm())


@pytest.fixture
def blobs():
    """Return rows of four kinds, and their kinds."""
    rows, labels = make_blobs(200, n_features=6, centers=4, random_state=0, cluster_std=2)
    return rows.astype(np.float32), labels


def test_what_was_seen_is_the_presence_and_the_absence_of_each_class():
    encoded = np.array([[1, 0, 0], [1, 1, 0]])
    assert seen_in(encoded).tolist() == [[False, True, True], [True, True, False]]


def test_classes_that_come_for_the_first_time_are_told_from_those_before(blobs):
    rows, labels = blobs
    targets = ClassTargets(5)
    encoded, first = targets.encode(labels), labels < 2
    head = started(rows[first], encoded[first], targets)
    again(head, rows, encoded, targets, seen_in(encoded[first]))
    assert np.mean(outputs_of(head, rows).argmax(1) == labels) > 0.9
    assert np.all(outputs_of(head, rows).argmax(1) != 4)  # which has not come yet


def test_a_class_without_a_new_image_is_not_forgotten(blobs):
    rows, labels = blobs
    targets = ClassTargets(4)
    encoded = targets.encode(labels)
    head = started(rows, encoded, targets)
    chosen = labels != 3
    again(head, rows[chosen], encoded[chosen], targets, seen_in(encoded))
    assert np.mean(outputs_of(head, rows[~chosen]).argmax(1) == 3) > 0.8


def test_one_class_after_the_other_is_told_apart(blobs):
    rows, labels = blobs
    targets = ClassTargets(2)
    encoded = targets.encode(labels % 2)
    first = labels == 0
    head = started(rows[first], encoded[first], targets)
    again(head, rows[labels < 2], encoded[labels < 2], targets, seen_in(encoded[first]))
    predicted = outputs_of(head, rows[labels < 2]).argmax(1)
    assert np.mean(predicted == labels[labels < 2]) > 0.9


def test_a_label_that_comes_for_the_first_time_is_learned(blobs):
    rows, labels = blobs
    present = np.stack([labels == 0, labels == 1, labels >= 0, labels < 0], axis=1)
    first = labels != 1
    targets = LabelTargets.of(present[first], np.ones(first.sum()), balanced=False)
    encoded = targets.encode(present)
    head = started(rows[first], encoded[first], targets)
    assert not np.any(outputs_of(head, rows)[:, 1] > 0)
    again(head, rows, encoded, targets, seen_in(encoded[first]))
    assert np.mean((outputs_of(head, rows) > 0) == present) > 0.9


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_numbers_in_another_unit_are_learned(blobs, n_outputs):
    rows, _ = blobs
    numbers = (rows @ np.random.default_rng(0).normal(size=(6, n_outputs))).astype(float)
    targets = NumberTargets.of(numbers, np.ones(len(rows)))
    head = started(rows, targets.encode(numbers), targets)
    new = 1e6 - 1e3 * numbers
    # there are few features, so that many images are needed to outweigh what was learned
    again(head, rows, targets.encode(new), targets, None, np.full(len(rows), 10.0))
    predicted = targets.decode(outputs_of(head, rows))
    assert np.corrcoef(predicted.T, new.T)[:n_outputs, n_outputs:].diagonal().min() > 0.95
    np.testing.assert_allclose(predicted.mean(0), new.mean(0), rtol=1e-4)


def test_one_image_shifts_all_numbers_and_changes_no_coefficient(blobs):
    rows, _ = blobs
    numbers = rows[:, :1].astype(float)
    targets = NumberTargets.of(numbers, np.ones(len(rows)))
    head, untouched = (started(rows, targets.encode(numbers), targets) for _ in range(2))
    again(head, rows[:1], targets.encode(numbers[:1] + 5), targets, seen=None)
    assert distance(head, untouched) == 0
    predicted = targets.decode(outputs_of(head, rows[:1]))
    np.testing.assert_allclose(predicted, numbers[:1] + 5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_weights_are_repetitions(blobs, kind):
    rows, labels = blobs
    times = np.arange(len(rows)) % 3
    targets = {
        "classes": ClassTargets(4),
        "labels": LabelTargets.of(np.eye(4)[labels], np.ones(len(rows)), balanced=True),
        "numbers": NumberTargets(np.zeros(4), np.ones(4)),
    }[kind]
    encoded = np.eye(4)[labels]
    heads = [started(rows[:50], encoded[:50], targets) for _ in range(2)]
    repeated = np.repeat(np.arange(len(rows)), times)
    seen = seen_in(encoded)
    again(heads[0], rows, encoded, targets, seen, times.astype(float))
    again(heads[1], rows[repeated], encoded[repeated], targets, seen)
    # leaving one out leaves a repeated image in: another strength may be chosen for numbers
    atol = 0.2 if kind == "numbers" else 1e-3
    np.testing.assert_allclose(outputs_of(heads[0], rows), outputs_of(heads[1], rows), atol=atol)


def test_fewer_new_images_change_less(blobs):
    rows, labels = blobs
    targets = ClassTargets(4)
    encoded = targets.encode(labels)
    new = targets.encode((labels + 1) % 4)
    moved = []
    for n in (1, 10, 100):
        head = started(rows, encoded, targets)
        again(head, rows[:n], new[:n], targets, seen_in(encoded))
        moved.append(distance(head, started(rows, encoded, targets)))
    assert 0 < moved[0] < moved[1] < moved[2]
