import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer.training._config import TrainingConfig
from sktransfer.training._head import is_linear_probe, start_head
from sktransfer.training._inference import pooled_rows
from sktransfer.training._probe import PROBE_C
from sktransfer.training._targets import ClassTargets, LabelTargets, NumberTargets


def head_for_classes(head, rows, labels, n_classes, weights=None):
    targets = ClassTargets(n_classes)
    weights = np.ones(len(rows)) if weights is None else weights
    start, _ = start_head(
        TrainingConfig(head=head), rows, targets.encode(labels), weights, weights, targets
    )
    return start


@torch.no_grad()
def outputs_of(head, rows):
    return head(torch.from_numpy(rows)).numpy()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_linear_head_starts_with_the_probabilities_of_a_logistic_regression(n_classes):
    rows, labels = make_blobs(60, n_features=4, centers=n_classes, random_state=0)
    rows = rows.astype(np.float32)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C)).fit(rows, labels)
    head = head_for_classes("linear", rows, labels, n_classes)
    probabilities = np.exp(ClassTargets(n_classes).log_probabilities(outputs_of(head, rows))[0])
    np.testing.assert_allclose(probabilities, probe.predict_proba(rows), atol=1e-3)


@pytest.mark.parametrize("head", ["linear", (8,), nn.Linear])
def test_every_head_reads_standardised_rows(head):
    rng = np.random.default_rng(0)
    rows = rng.normal(loc=100, scale=[1, 50, 0.5], size=(40, 3)).astype(np.float32)
    standardise = head_for_classes(head, rows, np.arange(40) % 2, 2)[0]
    seen = standardise(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(seen.mean(0), 0, atol=2e-2)
    np.testing.assert_allclose(seen.std(0), 1, atol=2e-2)


def test_a_column_that_hardly_varies_stays_small():
    rng = np.random.default_rng(0)
    rows = rng.normal(loc=100, scale=[1, 1, 1e-4], size=(40, 3)).astype(np.float32)
    standardise = head_for_classes("linear", rows, np.arange(40) % 2, 2)[0]
    other = standardise(torch.tensor([[100.0, 100.0, 100.1]])).numpy()
    assert np.abs(other).max() < 0.5


def test_a_head_does_not_depend_on_the_unit_of_the_rows():
    rows, labels = make_blobs(60, n_features=4, random_state=0)
    expected = outputs_of(head_for_classes("linear", rows, labels, 3), rows)
    scaled = 1e-6 * rows
    np.testing.assert_allclose(
        outputs_of(head_for_classes("linear", scaled, labels, 3), scaled), expected, atol=1e-3
    )


def test_a_value_that_never_changes_stays_finite():
    rows = np.ones((10, 3), dtype=np.float32)
    head = head_for_classes("linear", rows, np.arange(10) % 2, 2)
    assert torch.isfinite(head(torch.from_numpy(rows))).all()


def test_pooled_rows_leave_the_stages_as_they_were():
    stages = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten())
    before = {name: value.clone() for name, value in stages.state_dict().items()}
    activations = np.random.default_rng(0).random((100, 3, 2, 2), dtype=np.float32)
    rows = pooled_rows(stages, activations, torch.device("cpu"))
    assert rows.shape == (100, 12)
    np.testing.assert_allclose(rows, activations.reshape(100, 12), rtol=1e-4)
    assert all(value.equal(before[name]) for name, value in stages.state_dict().items())


def test_weights_are_repetitions_for_the_probe():
    rows, labels = make_blobs(30, n_features=4, centers=3, random_state=0, cluster_std=5)
    weights = np.arange(30) % 3
    times = np.repeat(np.arange(30), weights)
    weighted = head_for_classes("linear", rows, labels, 3, weights.astype(float))
    repeated = head_for_classes("linear", rows[times], labels[times], 3)
    np.testing.assert_allclose(outputs_of(weighted, rows), outputs_of(repeated, rows), atol=1e-6)


@pytest.mark.parametrize("present", [[0], [0, 2], [0, 2, 3]])
def test_classes_without_an_image_yet_are_improbable(present):
    rows, labels = make_blobs(60, n_features=4, centers=len(present), random_state=0)
    labels = np.array(present)[labels]
    logits = outputs_of(head_for_classes("linear", rows, labels, 4), rows)
    np.testing.assert_array_equal(logits.argmax(1), labels)


def test_each_label_has_a_probe_of_its_own():
    rows, positions = make_blobs(60, n_features=4, centers=4, random_state=0)
    labels = np.stack([positions % 2, positions > 1, np.ones(60), np.zeros(60)], axis=1)
    targets = LabelTargets.of(labels, np.ones(60), balanced=True)
    head, _ = start_head(
        TrainingConfig(), rows, targets.encode(labels), np.ones(60), np.ones(60), targets
    )
    assert ((outputs_of(head, rows) > 0) == labels).mean() > 0.95


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_numbers_start_from_a_ridge_regression(n_outputs):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 5))
    numbers = rows @ rng.normal(size=(5, n_outputs)) * 100 + 7
    targets = NumberTargets.of(numbers, np.ones(80))
    head, _ = start_head(
        TrainingConfig(), rows, targets.encode(numbers), np.ones(80), np.ones(80), targets
    )
    predicted = targets.decode(outputs_of(head, rows))
    np.testing.assert_allclose(predicted, numbers, rtol=0.05, atol=5)


@pytest.mark.parametrize(
    ("config", "stages", "expected"),
    [
        (TrainingConfig(), nn.Identity(), True),
        (TrainingConfig(dropout=0.1), nn.Identity(), False),
        (TrainingConfig(head=(8,)), nn.Identity(), False),
        (TrainingConfig(), nn.Linear(2, 2), False),
    ],
)
def test_the_best_head_is_unique_where_nothing_else_trains(config, stages, expected):
    assert is_linear_probe(config, stages) == expected


def test_stages_are_moved_outside_of_inference_mode():
    # within it, parameters that move to a GPU become ones that can't be trained
    moved_in = []

    class Watched(nn.Flatten):
        def to(self, *args, **kwargs):
            moved_in.append(torch.is_inference_mode_enabled())
            return super().to(*args, **kwargs)

    pooled_rows(Watched(), np.ones((2, 3), dtype=np.float32), torch.device("cpu"))
    assert moved_in == [False]
