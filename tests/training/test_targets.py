import numpy as np
import pytest

from sktransfer.training import _targets
from sktransfer.training._targets import (
    ClassTargets,
    LabelTargets,
    NumberTargets,
    as_rows,
    joined,
    labels_of,
    score_outputs,
)


def test_classes_are_rows_with_a_one():
    np.testing.assert_array_equal(ClassTargets(3).encode(np.array([2, 0])), [[0, 0, 1], [1, 0, 0]])


def test_probabilities_of_classes_sum_to_one_and_those_of_labels_are_apart():
    logits = np.array([[0.0, 0.0], [100.0, -100.0]])
    yes, no = np.exp(ClassTargets(2).log_probabilities(logits))
    np.testing.assert_allclose(yes, [[0.5, 0.5], [1, 0]], atol=1e-9)
    np.testing.assert_allclose(yes + no, 1)
    labels = LabelTargets.of(np.eye(2), np.ones(2), balanced=False)
    np.testing.assert_allclose(np.exp(labels.log_probabilities(np.zeros((1, 2)))), 0.5)


def test_log_odds_stay_finite_where_probabilities_round_to_one():
    labels = LabelTargets.of(np.eye(2), np.ones(2), balanced=False)
    yes, no = labels.log_probabilities(np.array([[80.0, -80.0]]))
    np.testing.assert_allclose(yes - no, [[80, -80]])
    yes, _ = ClassTargets(2).log_probabilities(np.array([[80.0, -80.0]]))
    np.testing.assert_allclose(yes[0, 1] - yes[0, 0], -160)


def test_balanced_labels_weigh_presence_and_absence_the_same():
    labels = np.array([[1, 0], [0, 0], [0, 0], [0, 1]])
    absence, presence = LabelTargets.of(labels, np.ones(4), balanced=True).balance
    np.testing.assert_allclose(absence * 3, presence * 1)


def test_numbers_have_mean_zero_and_deviation_one_by_their_weights_and_come_back():
    numbers = np.array([[1.0, 10.0], [3.0, 10.0], [100.0, 10.0]])
    targets = NumberTargets.of(numbers, np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(targets.mean, [2, 10])
    np.testing.assert_allclose(targets.scale, [1, 1])  # a constant keeps its unit
    np.testing.assert_allclose(targets.decode(targets.encode(numbers)), numbers)


@pytest.mark.parametrize("n_outputs", [2, 5])
def test_every_kind_tells_its_number_of_outputs(n_outputs):
    rows = np.eye(n_outputs)
    assert ClassTargets(n_outputs).n_outputs == n_outputs
    assert LabelTargets.of(rows, np.ones(n_outputs), False).n_outputs == n_outputs
    assert NumberTargets.of(rows, np.ones(n_outputs)).n_outputs == n_outputs


def test_classes_are_positions_where_rows_would_be_many(monkeypatch):
    rows = ClassTargets(3).encode(np.array([2, 0]))
    monkeypatch.setattr(_targets, "_MANY_VALUES", 5)
    positions = ClassTargets(3).encode(np.array([2, 0]))
    assert positions.tolist() == [2, 0]
    np.testing.assert_array_equal(labels_of(rows), positions)
    np.testing.assert_array_equal(as_rows(positions, 3), rows)
    np.testing.assert_array_equal(as_rows(rows, 3), rows)
    np.testing.assert_array_equal(joined(rows, positions), [2, 0, 2, 0])
    np.testing.assert_array_equal(joined(rows, rows), np.concatenate([rows, rows]))
    logits = np.array([[0.0, 1, 2], [0, 1, 2]])
    weights = np.array([3.0, 1])
    assert score_outputs("softmax", logits, positions, weights) == 0.75
    assert score_outputs("softmax", logits, rows, weights) == 0.75
