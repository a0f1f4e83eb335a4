"""Metadata routing: weights and groups find the step that asked for them."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktransfer import count_forward_passes


@pytest.fixture(autouse=True)
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture
def weights(shapes):
    """Return weights that leave the last twelve images out."""
    return np.repeat([1.0, 0.0], 12)


def test_sample_weight_goes_through_a_pipeline_to_the_step_that_asks_for_it(shapes, model, weights):
    X, y = shapes
    wrong = np.where(weights == 0, y[::-1], y)  # of the images without weight
    linear = LogisticRegression(max_iter=1000).set_fit_request(sample_weight=True)
    weighted = model.set_params(linear=linear).fit(X, wrong, sample_weight=weights)
    rows = weighted["rows"].transform(X)
    by_hand = LogisticRegression(max_iter=1000).fit(rows, wrong, sample_weight=weights)
    np.testing.assert_array_equal(weighted.predict_proba(X), by_hand.predict_proba(rows))
    assert weighted.score(X, y) == 1.0


def test_sample_weight_that_nobody_asked_for_is_an_error(shapes, model, weights):
    X, y = shapes
    with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
        model.fit(X, y, sample_weight=weights)


def test_a_search_routes_weights_to_the_model_and_groups_to_the_splitter(shapes, model, weights):
    X, y = shapes
    groups = np.arange(len(X)) // 4
    linear = LogisticRegression(max_iter=1000).set_fit_request(sample_weight=True)
    folds = GroupKFold(3)
    search = GridSearchCV(
        model.set_params(linear=linear),
        {"linear__C": [0.1, 1.0]},
        cv=folds,
        # said of the scorer: scikit-learn 1.6 asks a Pipeline's score for nothing
        scoring=make_scorer(accuracy_score).set_score_request(sample_weight=True),
        error_score="raise",
    )
    with count_forward_passes() as counter:
        search.fit(X, y, sample_weight=weights + 0.5, groups=groups)
    assert counter.computed == len(X)
    scores = []
    for train, test in folds.split(X, y, groups):
        fitted = clone(search.best_estimator_)
        fitted.fit(X[train], y[train], sample_weight=weights[train] + 0.5)
        predicted = fitted.predict(X[test])
        scores.append(accuracy_score(y[test], predicted, sample_weight=weights[test] + 0.5))
    assert search.best_score_ == pytest.approx(np.mean(scores))


def test_groups_reach_the_splitter_of_cross_validate(shapes, model):
    X, y = shapes
    groups = np.arange(len(X)) // 4
    result = cross_validate(
        model, X, y, params={"groups": groups}, cv=GroupKFold(3), return_indices=True
    )
    for train, test in zip(*result["indices"].values(), strict=True):
        assert not set(groups[train]) & set(groups[test])


def test_an_image_without_weight_is_not_learned_from_by_the_classifier(shapes, classifier, weights):
    X, y = shapes
    wrong = np.where(weights == 0, y[::-1], y)
    classifier.set_fit_request(sample_weight=True)
    chain = make_pipeline(FunctionTransformer(), classifier)
    weighted = chain.fit(X, wrong, sample_weight=weights)
    by_hand = clone(classifier).fit(X[:12], y[:12])
    np.testing.assert_allclose(weighted.predict_proba(X), by_hand.predict_proba(X), rtol=1e-6)
    assert weighted.score(X, y) == 1.0


def test_a_search_weighs_training_and_scores_of_the_classifier(shapes, classifier):
    X, y = shapes
    weights = np.where(y == "disc", 3.0, 1.0)
    classifier.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    folds = list(KFold(2).split(X))
    search = GridSearchCV(classifier, {"lr": [1e-4, 1e-2]}, cv=folds, error_score="raise")
    with count_forward_passes() as counter:
        search.fit(X, y, sample_weight=weights)
    assert counter.computed == len(X)
    scores, unweighted = [], []
    for train, test in folds:
        fitted = clone(search.best_estimator_).fit(X[train], y[train], sample_weight=weights[train])
        scores.append(fitted.score(X[test], y[test], sample_weight=weights[test]))
        other = clone(search.best_estimator_).fit(X[train], y[train])
        unweighted.append(np.abs(fitted.predict_proba(X) - other.predict_proba(X)).max())
    assert search.best_score_ == pytest.approx(np.mean(scores))
    assert min(unweighted) > 1e-4  # the weights did reach training
