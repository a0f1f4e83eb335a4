import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from sktransfer.monitoring import _domain_classifier
from sktransfer.monitoring._domain_classifier import separation


def test_samples_of_one_kind_are_told_apart_no_more_often_than_the_level_says():
    rng = np.random.default_rng(0)
    found = [
        separation(rng.normal(size=(40, 15)), rng.normal(size=(25, 15)), 39, rng)
        for _ in range(200)
    ]
    p_values = np.array([one.p_value for one in found])
    assert np.mean(p_values <= 0.1) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 200)
    assert np.mean(p_values <= 0.1) > 0.03
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) > 0.85


def test_a_shift_is_found_and_its_interval_holds_the_area():
    rng = np.random.default_rng(1)
    before, now = rng.normal(size=(120, 10)), rng.normal(size=(80, 10))
    now[:, 3] += 1.5
    found = separation(before, now, 99, rng)
    assert found.p_value == 0.01
    assert found.low < found.auc < found.high
    assert found.low < 0.85 < found.high  # of two normal distributions at that distance


def test_rows_are_predicted_by_a_regression_that_was_not_fitted_on_them():
    rng = np.random.default_rng(2)
    rows, is_new = rng.normal(size=(30, 6)), np.arange(30) % 3 == 0
    train = np.arange(30) >= 10
    kernel = _domain_classifier._kernel(rows)
    labels = is_new[:, None]
    weights = _domain_classifier._weights(kernel, train, ~train)
    predicted = _domain_classifier._predictions(weights, labels[train])[:, 0]
    # the same by scikit-learn, on rows scaled as the kernel is
    scaled = (rows - rows.mean(0)) / rows.std(0) / np.sqrt(6)
    model = Ridge(_domain_classifier._RIDGE, fit_intercept=False)
    model.fit(scaled[train], is_new[train] - is_new[train].mean())
    np.testing.assert_allclose(predicted, model.predict(scaled[~train]))
    area = _domain_classifier._areas(predicted[:, None], labels[~train])[0]
    assert area == pytest.approx(roc_auc_score(is_new[~train], predicted))


def test_many_rows_are_drawn_from(monkeypatch):
    monkeypatch.setattr(_domain_classifier, "MOST_ROWS", 20)
    rng = np.random.default_rng(3)
    found = separation(rng.normal(size=(500, 3)), 9 + rng.normal(size=(500, 3)), 19, rng)
    assert found.auc == 1.0
    assert found.p_value == 0.05


def test_permutations_are_drawn_in_parts(monkeypatch):
    rng = np.random.default_rng(5)
    before, now = rng.normal(size=(30, 4)), rng.normal(0.8, 1, (20, 4))
    whole = separation(before, now, 200, np.random.default_rng(0))
    monkeypatch.setattr(_domain_classifier, "_AT_ONCE", 30)
    parts = separation(before, now, 200, np.random.default_rng(0))
    assert parts.auc == whole.auc
    assert parts.p_value == pytest.approx(whole.p_value, abs=0.02)


def test_rows_that_do_not_differ_at_all_are_not_told_apart():
    found = separation(np.ones((6, 4)), np.ones((5, 4)), 19, np.random.default_rng(4))
    assert (found.auc, found.p_value) == (0.5, 1.0)
