import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer.training._probe import _PROBE_C, pooled_rows, start_head


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_linear_head_starts_with_the_probabilities_of_a_logistic_regression(n_classes):
    rows, labels = make_blobs(60, n_features=4, centers=n_classes, random_state=0)
    rows = rows.astype(np.float32)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=_PROBE_C)).fit(rows, labels)
    head = start_head("linear", rows, labels, n_classes)
    probabilities = torch.softmax(head(torch.from_numpy(rows)), dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, probe.predict_proba(rows), atol=1e-4)


@pytest.mark.parametrize("head", ["linear", (8,), nn.Linear])
def test_every_head_reads_standardised_rows(head):
    rng = np.random.default_rng(0)
    rows = rng.normal(loc=100, scale=[1, 50, 1e-4], size=(40, 3)).astype(np.float32)
    standardise = start_head(head, rows, np.arange(40) % 2, 2)[0]
    seen = standardise(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(seen.mean(0), 0, atol=2e-2)
    np.testing.assert_allclose(seen.std(0), 1, atol=2e-2)


def test_a_value_that_never_changes_stays_finite():
    rows = np.ones((10, 3), dtype=np.float32)
    head = start_head("linear", rows, np.arange(10) % 2, 2)
    assert torch.isfinite(head(torch.from_numpy(rows))).all()


def test_pooled_rows_leave_the_stages_as_they_were():
    stages = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten())
    before = {name: value.clone() for name, value in stages.state_dict().items()}
    activations = np.random.default_rng(0).random((100, 3, 2, 2), dtype=np.float32)
    rows = pooled_rows(stages, activations, torch.device("cpu"))
    assert rows.shape == (100, 12)
    np.testing.assert_allclose(rows, activations.reshape(100, 12), rtol=1e-4)
    assert all(value.equal(before[name]) for name, value in stages.state_dict().items())
