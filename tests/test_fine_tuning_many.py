"""Fits of very many images: positions of classes for rows, and heads that are solved by blocks."""

import numpy as np
import pytest

from sktransfer import FineTunedClassifier
from sktransfer.training import _fit, _probe, _scaled_rows, _targets


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[np.arange(45) % 3]
    X = rng.integers(0, 120, (45, 32, 32, 3), dtype=np.uint8)
    for image, label in zip(X, y, strict=True):
        image[:, :, "abc".index(label)] += 100
    return X, y


@pytest.fixture
def all_are_many(monkeypatch):
    monkeypatch.setattr(_probe, "LARGE", 0)
    monkeypatch.setattr(_targets, "_MANY_VALUES", 0)
    monkeypatch.setattr(_scaled_rows, "_VALUES_OF_A_BLOCK", 2**12)
    monkeypatch.setattr(_fit, "_IMAGES_AT_ONCE", 20)


def classifier(cache, **changes):
    options = {"freeze_depth": None, "random_state": 0, "feature_cache": cache, "verbose": -1}
    return FineTunedClassifier("mini", **{**options, **changes})


def test_a_head_of_many_images_predicts_as_that_of_few_does(images, cache, monkeypatch, request):
    few = classifier(cache).fit(*images).predict_proba(images[0])
    request.getfixturevalue("all_are_many")
    many = classifier(cache).fit(*images)
    np.testing.assert_allclose(many.predict_proba(images[0]), few, atol=2e-3)
    assert many.n_iter_ == 1
    assert many.history_[0]["lr"] == 0
    assert many.score(*images) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"max_epochs": 2},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"class_weight": {"a": 3.0}},
        {"freeze_depth": -1, "recipe": "fast", "max_epochs": 2, "mix": "mixup"},
        {"head": (8,), "max_epochs": 12, "lr": 0.01},
    ],
    ids=str,
)
def test_many_images_are_fitted_with_other_parameters_too(images, cache, all_are_many, changes):
    fitted = classifier(cache, **changes).fit(*images)
    assert fitted.score(*images) > 0.9
    assert fitted.n_iter_ == changes.get("max_epochs", 1)


def test_few_images_are_replayed_with_many(images, cache, monkeypatch, request):
    X, y = images
    expected = classifier(cache, replay=30).partial_fit(X[:21], y[:21]).partial_fit(X[21:], y[21:])
    fitted = classifier(cache, replay=30).partial_fit(X[:21], y[:21])
    request.getfixturevalue("all_are_many")
    fitted.partial_fit(X[21:], y[21:])
    np.testing.assert_allclose(fitted.predict_proba(X), expected.predict_proba(X), atol=2e-2)
    np.testing.assert_array_equal(fitted._seen, expected._seen)
    np.testing.assert_array_equal(fitted._replay.activations, expected._replay.activations)
