"""Which models of rows a search tries, and in which order."""

import numpy as np
import pytest

from sktransfer.model_selection._heads import default_heads

UNIT = "LDA of unit length"


@pytest.fixture
def rows():
    """Return 12 rows of 40 columns, four of each class, and others."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 4)
    return rng.normal(size=(12, 40)) + rng.normal(size=(3, 40))[y], y, rng.normal(size=(30, 40))


@pytest.mark.parametrize(("n_images", "second"), [(6, UNIT), (60, UNIT), (61, "kNN"), (3, "kNN")])
def test_with_few_images_of_each_class_a_discriminant_analysis_is_tried_at_first(n_images, second):
    first, then, *_ = default_heads(True, False, 3, n_images)
    assert (first, then) == ("logistic regression C=0.01", second)


def test_all_heads_are_tried_whatever_the_order():
    few, many = default_heads(True, False, 3, 30), default_heads(True, False, 3, 3000)
    assert sorted(few) == sorted(many)
    assert {"kNN", "nearest mean", "LDA", UNIT} < set(few)


@pytest.mark.parametrize(("n_images", "expected"), [(3, 1), (8, 2), (30, 10), (300, 10)])
def test_there_are_no_more_neighbours_than_images_of_a_class(n_images, expected):
    assert default_heads(True, False, 3, n_images)["kNN"].n_neighbors == expected
    assert default_heads(False, False, 1, n_images)["kNN"].n_neighbors == min(10, n_images)


@pytest.mark.parametrize("n_of_each", [1, 2, 4])
def test_every_head_can_be_fitted_to_one_two_or_four_images_of_each_class(rows, n_of_each):
    X, y, new = rows
    chosen = np.concatenate([np.flatnonzero(y == label)[:n_of_each] for label in range(3)])
    for name, head in default_heads(True, False, 3, len(chosen)).items():
        assert head.fit(X[chosen], y[chosen]).predict(new).shape == (30,), name


def test_the_covariance_is_shrunk_by_the_mean_variance_in_the_span_of_the_images(rows):
    X, y, new = rows
    head = default_heads(True, False, 3, len(X))[UNIT].fit(X, y)
    # by hand, in all columns: the scatter within classes and its trace over the images
    X, new = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in (X, new))
    means = np.stack([X[y == label].mean(0) for label in range(3)])
    within = (X - means[y]).T @ (X - means[y])
    covariance = (within + np.trace(within) / len(X) * np.eye(40)) / (2 * len(X))
    weight = np.linalg.solve(covariance, means.T)
    logits = new @ weight - 0.5 * np.sum(means.T * weight, axis=0)
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(head.predict_proba(new), expected, atol=1e-10)


def test_it_predicts_what_the_published_closed_form_predicts(rows):
    X, y, new = rows
    predicted = default_heads(True, False, 3, len(X))[UNIT].fit(X, y).predict(new)
    # arXiv 2402.04087, equation of the precision: d ((n - 1) S + trace(S) I)^-1
    X, new = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in (X, new))
    means = np.stack([X[y == label].mean(0) for label in range(3)])
    covariance = np.cov((X - means[y]).T)
    n, d = X.shape
    precision = d * np.linalg.inv((n - 1) * covariance + np.trace(covariance) * np.eye(d))
    weight = precision @ means.T
    logits = new @ weight - 0.5 * np.sum(means.T * weight, axis=0)
    np.testing.assert_array_equal(predicted, logits.argmax(1))


def test_labels_and_numbers_have_heads_of_their_own():
    assert next(iter(default_heads(False, False, 1, 30))) == "ridge"
    labels = default_heads(True, True, 1, 30)
    assert list(labels)[:2] == ["logistic regression C=0.01", "kNN"]
