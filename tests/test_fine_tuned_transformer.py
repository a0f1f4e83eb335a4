"""The fine-tuned network as a transformer: cross-fitting, and what stands behind and beside it."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    FineTunedTransformer,
    PretrainedFeatureTransformer,
)

FAST = {
    "backbone": "mini",
    "recipe": "fast",
    "image_size": 32,
    "freeze_depth": -1,
    "max_epochs": 2,
    "batch_size": 8,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}
NUMBERS = FineTunedRegressor(**FAST)
OUTPUTS = ["predictions", "rows"]


@pytest.fixture
def classifier(cache):
    return FineTunedClassifier(**FAST, feature_cache=str(cache))


@pytest.fixture
def transformer(classifier):
    return FineTunedTransformer(classifier, cv=2, random_state=0)


@pytest.fixture
def table(shapes):
    """Return an image column, a number and a category that tell nothing of the label."""
    X, _ = shapes
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "photo": X,
            "weight": rng.normal(70, 10, len(X)),
            "camera": rng.choice(["north", "south", "west"], len(X)),
        }
    )


def draw_pair(red_is_above, rng):
    """Draw a red and a blue disc, one above the other."""
    image = Image.fromarray(rng.integers(0, 120, (32, 32, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    heights = 8 + rng.integers(-3, 4), 24 + rng.integers(-3, 4)
    colours = [(220, 60, 60), (60, 60, 220)]
    for y, colour in zip(heights, colours if red_is_above else colours[::-1], strict=True):
        x = rng.integers(5, 27)
        pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
    return np.asarray(image)


# cross-fitting


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_values_of_an_image_do_not_depend_on_its_own_label(output, shapes, transformer):
    X, y = shapes
    folds = list(KFold(3).split(X))
    transformer.set_params(output=output, cv=folds)
    values = transformer.fit_transform(X, y)
    for _, test in folds:
        others = y.copy()
        others[test] = y[test][::-1]
        again = transformer.fit_transform(X, others)
        np.testing.assert_array_equal(again[test], values[test])
        assert np.abs(np.delete(again - values, test, axis=0)).max() > 1e-3
    # the network of transform has seen all labels
    assert np.abs(transformer.transform(X) - again).max() > 1e-3


def test_each_fold_is_what_a_classifier_trained_on_the_others_predicts(shapes, classifier):
    X, y = shapes
    folds = list(KFold(2).split(X))
    transformer = FineTunedTransformer(classifier, cv=folds)
    values = transformer.fit_transform(X, y)
    assert values.dtype == np.float32
    for train, test in folds:
        fitted = clone(classifier).fit(X[train], y[train])
        second = 0.97 * fitted.predict_proba(X[test])[:, 1] + 0.015
        np.testing.assert_allclose(values[test, 0], np.log(second / (1 - second)), rtol=1e-5)
    second = 0.97 * clone(classifier).fit(X, y).predict_proba(X)[:, 1] + 0.015
    of_all = transformer.transform(X)[:, 0]
    np.testing.assert_allclose(of_all, np.log(second / (1 - second)), rtol=1e-5)


def test_rows_are_those_of_the_tuned_backbone(shapes, transformer, tmp_path):
    X, y = shapes
    transformer.set_params(output="rows").fit(X, y)
    transformer.estimator_.save_backbone(tmp_path / "tuned.safetensors")
    tuned = PretrainedFeatureTransformer(
        str(tmp_path / "tuned.safetensors"), precision="float32", feature_cache=None
    )
    np.testing.assert_allclose(transformer.transform(X), tuned.fit_transform(X), atol=1e-4)


def noise(n):
    """Return images of noise, which tell nothing of any label."""
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("output", OUTPUTS)
def test_with_random_labels_the_model_behind_is_at_chance(output, classifier):
    X, y = noise(96), np.arange(96) % 2
    transformer = FineTunedTransformer(
        classifier.set_params(max_epochs=8), output=output, random_state=0
    )
    behind = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    cross_fitted = cross_val_score(behind, transformer.fit_transform(X, y), y).mean()
    by_heart = cross_val_score(behind, transformer.transform(X), y).mean()
    assert by_heart > 0.9  # of the labels that its network was trained on
    assert 0.3 < cross_fitted < 0.65


@pytest.mark.parametrize("output", OUTPUTS)
def test_images_that_tell_nothing_do_not_hide_a_column_that_does(output, classifier):
    X, y = noise(160), np.arange(160) % 2
    column = (2 * y - 1 + np.random.default_rng(1).normal(0, 0.8, len(y)))[:, None]
    train, test = np.arange(96), np.arange(96, 160)
    transformer = FineTunedTransformer(
        classifier.set_params(max_epochs=8), output=output, random_state=0
    )
    scores = {}
    for name in ("fit_transform", "transform"):
        rows = transformer.fit_transform(X[train], y[train])
        if name == "transform":
            rows = transformer.transform(X[train])
        behind = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
        behind.fit(np.hstack([rows, column[train]]), y[train])
        unseen = np.hstack([transformer.transform(X[test]), column[test]])
        scores[name] = behind.score(unseen, y[test])
    print(output, scores)


def test_on_images_and_a_table_it_beats_frozen_rows_and_the_table(classifier):
    rng = np.random.default_rng(0)
    is_above = rng.integers(0, 2, 400)
    column = rng.normal(size=(400, 1))
    y = (2 * is_above - 1 + 1.2 * column[:, 0] > 0).astype(int)
    X = np.stack([draw_pair(value, rng) for value in is_above])
    train, test = np.arange(160), np.arange(160, 400)
    scores = {}
    frozen = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=None)
    tuned = FineTunedTransformer(classifier.set_params(max_epochs=10), cv=3, random_state=0)
    for name, transformer in {"frozen": frozen, "tuned": tuned}.items():
        rows = transformer.fit_transform(X[train], y[train])
        behind = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        behind.fit(np.hstack([rows, column[train]]), y[train])
        unseen = np.hstack([transformer.transform(X[test]), column[test]])
        scores[name] = behind.score(unseen, y[test])
    print(scores)
