"""Searches, curves and cross-validation: an image passes once, whoever asks how often."""

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_validate,
    learning_curve,
    validation_curve,
)

from sktransfer import count_forward_passes
from sktransfer.hygiene import DuplicateGroups


def test_a_grid_search_over_depths_scores_as_by_hand_and_passes_each_image_once(shapes, model):
    X, y = shapes
    folds = list(StratifiedKFold(3).split(X, y))
    grid = {"rows__depth": [None, 1], "linear__C": [0.01, 1.0]}
    with count_forward_passes() as counter:
        search = GridSearchCV(model, grid, cv=folds).fit(X, y)
    assert counter.computed == len(X)

    scores = search.cv_results_["mean_test_score"]
    for parameters, score in zip(search.cv_results_["params"], scores, strict=True):
        rows = clone(model["rows"]).set_params(depth=parameters["rows__depth"]).fit_transform(X)
        linear = LogisticRegression(C=parameters["linear__C"], max_iter=1000)
        by_hand = [linear.fit(rows[a], y[a]).score(rows[b], y[b]) for a, b in folds]
        assert score == pytest.approx(np.mean(by_hand))
    assert search.best_params_["rows__depth"] is None


def test_a_grid_search_over_the_classifier_passes_each_image_once_a_depth(shapes, classifier):
    X, y = shapes
    grid = {"freeze_depth": [None, -1], "lr": [1e-3, 1e-2]}
    with count_forward_passes() as counter:
        search = GridSearchCV(classifier.set_params(max_epochs=2), grid, cv=2).fit(X, y)
        assert search.score(X, y) == 1.0
    assert counter.computed == 2 * len(X)


def test_a_randomized_search_draws_its_candidates_and_passes_each_image_once(shapes, model):
    X, y = shapes
    drawn = {"linear__C": loguniform(1e-3, 1e2)}
    with count_forward_passes() as counter:
        search = RandomizedSearchCV(model, drawn, n_iter=5, cv=3, random_state=0).fit(X, y)
    assert counter.computed == len(X)
    assert len(set(search.cv_results_["param_linear__C"])) == 5
    assert search.best_score_ == 1.0


def test_halving_adds_images_from_round_to_round(shapes, model):
    X, y = shapes
    grid = {"rows__depth": [None, 1], "linear__C": [0.01, 1.0]}
    with count_forward_passes() as counter:
        search = HalvingGridSearchCV(
            model, grid, cv=2, factor=2, min_resources=12, random_state=0
        ).fit(X, y)
    assert search.n_candidates_ == [4, 2]
    assert search.n_resources_ == [12, 24]
    assert search.best_params_["rows__depth"] is None
    assert counter.computed <= 2 * len(X)


def test_halving_adds_epochs_from_round_to_round(shapes, classifier):
    X, y = shapes
    with count_forward_passes() as counter:
        search = HalvingGridSearchCV(
            classifier,
            {"lr": [1e-4, 1e-3, 1e-2, 1e-1]},
            resource="max_epochs",
            min_resources=1,
            max_resources=4,
            factor=2,
            cv=2,
            random_state=0,
        ).fit(X, y)
    assert search.n_resources_ == [1, 2, 4]
    assert search.best_estimator_.n_iter_ == 4
    assert counter.computed == len(X)


@pytest.mark.parametrize("which", ["model", "classifier"])
def test_no_group_crosses_a_fold_of_cross_validate(shapes, which, request):
    X, y = shapes
    groups = np.arange(len(X)) // 4
    result = cross_validate(
        request.getfixturevalue(which),
        X,
        y,
        groups=groups,
        cv=GroupKFold(3),
        return_indices=True,
        return_train_score=True,
    )
    for train, test in zip(*result["indices"].values(), strict=True):
        assert not set(groups[train]) & set(groups[test])
    assert (result["train_score"] == 1.0).all()
    assert result["test_score"].mean() >= 0.9


def test_copies_of_an_image_stay_in_one_fold(shapes, model):
    X, y = shapes
    doubled, labels = np.repeat(X, 2), np.repeat(y, 2)
    folds = DuplicateGroups(doubled, cv=3)
    with count_forward_passes() as counter:
        result = cross_validate(model, doubled, labels, cv=folds, return_indices=True)
    assert counter.computed == len(X)
    for train, test in zip(*result["indices"].values(), strict=True):
        assert not set(doubled[train]) & set(doubled[test])
    assert result["test_score"].shape == (3,)


@pytest.mark.parametrize("which", ["model", "classifier"])
def test_predictions_of_cross_validation_are_those_of_each_fold(shapes, which, request):
    X, y = shapes
    estimator = request.getfixturevalue(which)
    folds = list(StratifiedKFold(2).split(X, y))
    with count_forward_passes() as counter:
        predicted = cross_val_predict(estimator, X, y, cv=folds, method="predict_proba")
        for train, test in folds:
            by_hand = clone(estimator).fit(X[train], y[train]).predict_proba(X[test])
            np.testing.assert_allclose(predicted[test], by_hand, rtol=1e-6)
    assert counter.computed == len(X)


@pytest.mark.parametrize("which", ["model", "classifier"])
def test_a_learning_curve_passes_each_image_once(shapes, which, request):
    X, y = shapes
    estimator = request.getfixturevalue(which)
    with count_forward_passes() as counter:
        sizes, of_train, of_test = learning_curve(
            estimator, X, y, train_sizes=[4, 8, 16], cv=3, shuffle=True, random_state=0
        )
    assert sizes.tolist() == [4, 8, 16]
    assert of_train.shape == of_test.shape == (3, 3)
    assert of_test[-1].mean() >= of_test[0].mean()
    assert of_test[-1].mean() >= 0.9
    assert counter.computed == len(X)


def test_a_validation_curve_over_freeze_depth_passes_each_image_once_a_depth(shapes, classifier):
    X, y = shapes
    depths = [None, -1, -2]
    with count_forward_passes() as counter:
        of_train, of_test = validation_curve(
            classifier, X, y, param_name="freeze_depth", param_range=depths, cv=3
        )
    assert of_train.shape == of_test.shape == (3, 3)
    assert (of_train >= 0.9).all()
    assert of_test.mean(axis=1).min() >= 0.8
    assert counter.computed == len(depths) * len(X)
