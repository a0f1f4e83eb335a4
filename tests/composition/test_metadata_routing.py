"""Metadata routing: weights and groups find the step that asked for them."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate

from sktransfer import count_passes


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
    with count_passes() as counter:
        search.fit(X, y, sample_weight=weights + 0.5, groups=groups)
    assert counter.passed == len(X)
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
