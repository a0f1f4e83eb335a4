import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from sktransfer.monitoring._novelty_scores import (
    _SHRINKAGE,
    MahalanobisScores,
    NearestNeighbourScores,
    _Gaussian,
    normalised,
)


@pytest.fixture(scope="module")
def sample():
    """Return rows of four classes, one of which has a single row, and their classes."""
    rng = np.random.default_rng(0)
    labels = np.append(np.arange(29) % 3, 3)
    return normalised(rng.normal(size=(4, 12))[labels] + rng.normal(0, 0.3, (30, 12))), labels


def test_distances_of_a_row_left_out_are_those_of_a_fit_without_it(sample):
    rows, labels = sample
    weight, ridge = 0.02, 0.1
    left_out = _Gaussian(rows, labels, weight, ridge).distances_left_out(rows, labels)
    for i in range(len(rows)):
        others = np.delete(np.arange(len(rows)), i)
        means = np.stack([rows[others][labels[others] == k].mean(axis=0) for k in range(3)])
        deviations = [rows[j] - rows[others][labels[others] == labels[j]].mean(0) for j in others]
        covariance = weight * np.transpose(deviations) @ deviations + ridge * np.eye(12)
        expected = [(rows[i] - m) @ np.linalg.solve(covariance, rows[i] - m) for m in means]
        np.testing.assert_allclose(left_out[i, :3], expected, rtol=1e-9)
    assert np.isinf(left_out[-1, 3])  # without its only row there is no such class


def test_distances_are_those_of_mahalanobis(sample):
    rows, labels = sample
    gaussian = _Gaussian(rows, labels, 0.02, 0.1)
    deviations = rows - gaussian.means[labels]
    covariance = 0.02 * deviations.T @ deviations + 0.1 * np.eye(12)
    difference = rows[3] - gaussian.means[1]
    expected = difference @ np.linalg.solve(covariance, difference)
    assert gaussian.distances(rows)[3, 1] == pytest.approx(expected)


def test_a_relative_distance_is_that_to_the_nearest_class_less_that_to_all(sample):
    rows, labels = sample
    new = np.random.default_rng(1).normal(size=(5, 12))
    scores = MahalanobisScores(only_relative=True)
    scores.fit(rows, labels)
    deviations = normalised(rows) - scores._classes.means[labels]
    ridge = _SHRINKAGE * np.mean(deviations**2)
    weight = (1 - _SHRINKAGE) / len(rows)
    of_classes = _Gaussian(normalised(rows), labels, weight, ridge).distances(normalised(new))
    of_all = _Gaussian(normalised(rows), 0 * labels, weight, ridge).distances(normalised(new))
    np.testing.assert_allclose(scores.score(new), of_all[:, 0] - of_classes.min(axis=1))


def test_a_neighbour_is_never_the_row_itself(sample):
    rows, _ = sample
    found = NearestNeighbourScores(3).fit(rows)
    distances, _ = (
        NearestNeighbors(n_neighbors=4).fit(normalised(rows)).kneighbors(normalised(rows))
    )
    np.testing.assert_allclose(found, -distances[:, 1:].mean(axis=1), atol=1e-6)


def test_normalised_rows_keep_their_signs_and_have_length_one():
    rows = normalised(np.array([[4.0, -9.0, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(rows[0] * np.sqrt(13), [2, -3, 0])
    np.testing.assert_array_equal(rows[1], 0)
