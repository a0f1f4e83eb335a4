"""Estimators made of estimators: several at once, or one with something around it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, recall_score
from sklearn.model_selection import StratifiedKFold, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC

from sktransfer import count_forward_passes

BOTH = pytest.mark.parametrize("which", ["model", "classifier"])


@pytest.fixture
def estimator(which, request):
    return request.getfixturevalue(which)


@BOTH
def test_calibration_gives_probabilities_and_passes_each_image_once(shapes, estimator):
    X, y = shapes
    with count_forward_passes() as counter:
        calibrated = CalibratedClassifierCV(estimator, cv=3, ensemble=False).fit(X, y)
        probabilities = calibrated.predict_proba(X)
    assert counter.computed == len(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert calibrated.score(X, y) == 1.0
    (inner,) = calibrated.calibrated_classifiers_
    order = np.argsort(inner.estimator.predict_proba(X)[:, 1], kind="stable")
    assert (np.diff(probabilities[order, 1]) >= -1e-12).all()  # a sigmoid keeps the order


def test_a_support_vector_machine_on_rows_gets_probabilities(shapes, transformer):
    X, y = shapes
    machine = make_pipeline(transformer, SVC())
    assert not hasattr(machine, "predict_proba")
    calibrated = CalibratedClassifierCV(machine, cv=3).fit(X[:16], y[:16])
    assert calibrated.predict_proba(X[16:]).shape == (8, 2)
    assert calibrated.score(X[16:], y[16:]) == 1.0


@BOTH
def test_a_frozen_estimator_is_not_fitted_again(shapes, estimator):
    X, y = shapes
    estimator.fit(X[:16], y[:16])
    before = estimator.predict_proba(X)
    with count_forward_passes() as counter:
        calibrated = CalibratedClassifierCV(FrozenEstimator(estimator), cv=2).fit(X[16:], y[16:])
    assert counter.computed == 0  # `before` has passed them all
    assert all(
        inner.estimator.estimator is estimator for inner in calibrated.calibrated_classifiers_
    )
    np.testing.assert_array_equal(estimator.predict_proba(X), before)


def test_a_frozen_transformer_keeps_what_it_was_fitted_to(shapes, transformer):
    X, y = shapes
    frozen = FrozenEstimator(transformer.fit(X))
    model = clone(make_pipeline(frozen, LogisticRegression(max_iter=1000)))
    assert model[0].estimator is transformer
    assert model.fit(X[:16], y[:16]).score(X[16:], y[16:]) == 1.0


def test_both_kinds_stack_and_share_the_forward_passes(shapes, model, classifier):
    X, y = shapes
    stack = StackingClassifier([("rows", model), ("tuned", classifier)], cv=3)
    with count_forward_passes() as counter:
        stack.fit(X, y)
    assert counter.computed == len(X)  # both read the last activation, pooled
    assert stack.transform(X).shape == (len(X), 2)
    by_hand = np.column_stack(
        [clone(e).fit(X, y).predict_proba(X)[:, 1] for e in (model, classifier)]
    )
    np.testing.assert_allclose(stack.transform(X), by_hand, rtol=1e-6)
    assert stack.score(X, y) == 1.0


def test_a_soft_vote_is_the_mean_of_the_probabilities(shapes, model, classifier):
    X, y = shapes
    vote = VotingClassifier([("rows", model), ("tuned", classifier)], voting="soft").fit(X, y)
    by_hand = [clone(e).fit(X, y).predict_proba(X) for e in (model, classifier)]
    np.testing.assert_allclose(vote.predict_proba(X), np.mean(by_hand, axis=0), rtol=1e-6)
    assert vote.score(X, y) == 1.0


@BOTH
def test_bagging_takes_images_as_one_column_and_passes_each_once(shapes, estimator):
    X, y = shapes
    column = X.reshape(-1, 1)  # it asks for two dimensions
    bag = BaggingClassifier(estimator, n_estimators=3, random_state=0)
    with count_forward_passes() as counter:
        bag.fit(column, y)
        probabilities = bag.predict_proba(column)
    assert counter.computed == len(X)
    by_hand = [inner.predict_proba(column) for inner in bag.estimators_]
    np.testing.assert_allclose(probabilities, np.mean(by_hand, axis=0), rtol=1e-6)
    assert bag.score(column, y) >= 0.9


@BOTH
def test_one_against_the_rest_tells_four_classes(shapes, estimator):
    X, y = shapes
    half = np.where(np.arange(len(X)) < 12, "early", "late")
    labels = np.array([f"{first} {second}" for first, second in zip(half, y, strict=True)])
    with count_forward_passes() as counter:
        rest = OneVsRestClassifier(estimator).fit(X, labels)
        predicted = rest.predict(X)
    assert counter.computed == len(X)
    assert len(rest.estimators_) == 4
    assert rest.classes_.tolist() == sorted(set(labels))
    kinds = [label.split()[1] for label in predicted]
    assert accuracy_score(y, kinds) >= 0.9


@BOTH
def test_several_targets_have_a_model_each(shapes, estimator):
    X, y = shapes
    targets = np.column_stack([y, np.where(np.arange(len(X)) < 12, "early", "late")])
    with count_forward_passes() as counter:
        several = MultiOutputClassifier(estimator).fit(X, targets)
        predicted = several.predict(X)
    assert counter.computed == len(X)
    assert predicted.shape == targets.shape
    assert [fitted.classes_.tolist() for fitted in several.estimators_] == [
        ["disc", "square"],
        ["early", "late"],
    ]
    np.testing.assert_array_equal(predicted[:, 0], clone(estimator).fit(X, y).predict(X))


@BOTH
def test_a_tuned_threshold_is_where_the_score_is_best(shapes, estimator):
    X, y = shapes
    wrong = y.copy()
    wrong[[0, 4, 8, 12]] = "disc"  # squares that are labelled as discs
    with count_forward_passes() as counter:
        tuned = TunedThresholdClassifierCV(
            estimator, scoring="balanced_accuracy", cv=StratifiedKFold(3), store_cv_results=True
        ).fit(X, wrong)
    assert counter.computed == len(X)
    thresholds, scores = tuned.cv_results_["thresholds"], tuned.cv_results_["scores"]
    assert tuned.best_threshold_ == thresholds[np.argmax(scores)]
    of_second = tuned.predict_proba(X)[:, 1]
    by_hand = tuned.classes_[(of_second >= tuned.best_threshold_).astype(int)]
    np.testing.assert_array_equal(tuned.predict(X), by_hand)


def test_self_training_on_rows_learns_from_images_without_labels(shapes, transformer):
    X, y = shapes
    labels = np.where(y == "disc", 1, 0)
    known = labels.copy()
    known[4:] = -1  # scikit-learn's mark of a label that is not known
    trained = SelfTrainingClassifier(LogisticRegression(max_iter=1000))
    with count_forward_passes() as counter:
        model = make_pipeline(transformer, trained).fit(X, known)
    assert counter.computed == len(X)
    newly = model[-1].labeled_iter_ > 0
    assert newly.sum() >= 8
    assert recall_score(labels[newly], model[-1].transduction_[newly]) >= 0.9


def test_self_training_around_a_classifier_takes_rows_of_pixels(shapes, classifier, pixels):
    _, y = shapes
    known = np.where(y == "disc", 1, 0)
    known[8:] = -1
    classifier.set_params(image_shape=(24, 24, 3), pixel_range=(0, 255))
    trained = SelfTrainingClassifier(classifier, max_iter=2).fit(pixels, known)
    assert trained.estimator_.n_features_in_ == 24 * 24 * 3
    assert (trained.labeled_iter_ > 0).any()
    assert trained.score(pixels, np.where(y == "disc", 1, 0)) >= 0.8


@BOTH
def test_the_image_column_is_important_and_a_number_is_not(shapes, estimator):
    X, y = shapes
    table = pd.DataFrame({"photo": X, "noise": np.random.default_rng(0).normal(size=len(X))})
    only_photo = make_column_transformer(("passthrough", ["photo"]))
    model = make_pipeline(only_photo, estimator).fit(table, y)
    with count_forward_passes() as counter:
        found = permutation_importance(model, table, y, n_repeats=5, random_state=0)
    assert counter.computed == 0  # shuffled paths are the same images
    assert found.importances_mean[0] > 0.3
    assert found.importances_mean[1] == 0.0
