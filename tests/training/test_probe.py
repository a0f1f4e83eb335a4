import numpy as np
from sklearn.datasets import make_blobs

from sktransfer.training import _probe
from sktransfer.training._probe import fit_probe, known_probe, mean_and_scale
from sktransfer.training._targets import ClassTargets


def test_a_column_that_varies_much_leaves_the_others_as_they_are():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 5))
    mean, scale = mean_and_scale(rows, np.ones(60))
    large_mean, large_scale = mean_and_scale(rows * [1, 1, 1, 1, 1000], np.ones(60))
    np.testing.assert_allclose(large_scale, scale * [1, 1, 1, 1, 1000])
    np.testing.assert_allclose(large_mean, mean * [1, 1, 1, 1, 1000])


def test_rows_that_are_all_the_same_are_not_divided_by_rounding_errors():
    rng = np.random.default_rng(0)
    for n in range(2, 60):
        rows = np.repeat(rng.normal(size=(1, 20)).astype(np.float32), n, axis=0)
        _, scale = mean_and_scale(rows, rng.uniform(0.5, 2, n))
        np.testing.assert_array_equal(scale, 1)


def test_a_search_fits_one_probe_for_each_fold(monkeypatch):
    fitted = []
    monkeypatch.setattr(_probe, "fit_probe", lambda *a: fitted.append(a) or fit_probe(*a))
    rows, labels = make_blobs(40, n_features=4, centers=2, random_state=7)
    targets, ones = ClassTargets(2), np.ones(40)
    for _ in range(3):
        for fold in range(5):
            chosen = np.arange(40) % 5 != fold
            known_probe(rows[chosen], targets.encode(labels[chosen]), ones[chosen], targets)
    assert len(fitted) == 5
    weighted = known_probe(rows, targets.encode(labels), np.arange(1.0, 41), targets)
    other = known_probe(rows, targets.encode(1 - labels), ones, targets)
    assert len(fitted) == 7
    again = known_probe(rows, targets.encode(labels), np.arange(1.0, 41), targets)
    assert len(fitted) == 7
    np.testing.assert_array_equal(again.weight, weighted.weight)
    assert not np.array_equal(other.weight, weighted.weight)
