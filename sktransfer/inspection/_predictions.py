"""Probabilities of every image, by models that were not fitted on it or by one that is fitted."""

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from sklearn.base import is_classifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_validate
from sklearn.utils import _safe_indexing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

_TOLERANCE = 1e-3  # of the sums of given probabilities: those of float16 are allowed


@dataclass(frozen=True)
class Predictions:
    """What is known of each image.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    labels : ndarray of shape (n_images,), int
        Position of each label among the classes.
    probabilities : ndarray of shape (n_images, n_classes), float64
    folds : ndarray of shape (n_images,), int, or None
        The fold in which each image was tested.
    models : list
        The fitted estimators: that of each fold, or the one that was given; none where
        probabilities were given.
    """

    classes: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    folds: np.ndarray | None
    models: list[Any]

    @property
    def predicted(self) -> np.ndarray:
        """Position of the most probable class of each image."""
        return self.probabilities.argmax(axis=1)

    def model_of(self, position: int) -> Any:
        """Return the estimator that predicted an image."""
        return self.models[0 if self.folds is None else self.folds[position]]


def cross_validated(estimator, X, y, cv, groups, params, n_jobs) -> Predictions:
    """Return predictions of each image by a model of the fold that holds it out."""
    y = _checked_labels(y)
    check_consistent_length(X, y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y has the class {classes.tolist()[0]!r} alone; give images of two")
    if groups is not None and sklearn.get_config()["enable_metadata_routing"]:
        params, groups = {**(params or {}), "groups": groups}, None
    if cv is None or isinstance(cv, numbers.Integral):
        is_grouped = groups is not None or "groups" in (params or {})  # which are routed
        kind = StratifiedGroupKFold if is_grouped else StratifiedKFold
        cv = kind(5 if cv is None else int(cv), shuffle=True, random_state=0)
    fitted = cross_validate(
        estimator,
        X,
        y,
        groups=groups,
        cv=cv,
        params=params,
        n_jobs=n_jobs,
        scoring=_nothing,
        error_score="raise",
        return_estimator=True,
        return_indices=True,
    )
    tests = fitted["indices"]["test"]
    if not np.array_equal(np.sort(np.concatenate(tests)), np.arange(len(y))):
        raise ValueError(
            f"cv={cv!r} must test each image once; use a splitter such as StratifiedKFold, "
            "StratifiedGroupKFold or KFold"
        )
    folds = np.empty(len(y), dtype=np.int64)
    probabilities = np.zeros((len(y), len(classes)))
    for fold, (model, test) in enumerate(zip(fitted["estimator"], tests, strict=True)):
        # a class of which no image was fitted has the probability 0
        known = np.searchsorted(classes, model.classes_)
        probabilities[np.ix_(test, known)] = model.predict_proba(_safe_indexing(X, test))
        folds[test] = fold
    return Predictions(classes, labels, probabilities, folds, list(fitted["estimator"]))


def of_fitted(estimator, X, y) -> Predictions:
    """Return predictions of a fitted estimator."""
    check_is_fitted(estimator)
    y = _checked_labels(y)
    check_consistent_length(X, y)
    classes = np.asarray(estimator.classes_)
    labels = positions_of(y, classes)
    probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    return Predictions(classes, labels, probabilities, None, [estimator])


def of_given(y, y_proba, classes) -> Predictions:
    """Return predictions that were made elsewhere."""
    y = _checked_labels(y)
    probabilities = np.asarray(y_proba, dtype=np.float64)
    classes = np.unique(y) if classes is None else column_or_1d(classes)
    if len(np.unique(classes)) < len(classes):
        raise ValueError(f"classes must differ, got {classes.tolist()}")
    if probabilities.shape != (len(y), len(classes)):
        raise ValueError(
            f"y_proba must have a row for each image and a column for each class, ({len(y)}, "
            f"{len(classes)}), got {probabilities.shape}; name the classes of its columns with "
            "classes="
        )
    sums = probabilities.sum(axis=1)
    if not (np.abs(sums - 1) < _TOLERANCE).all() or (probabilities < 0).any():
        raise ValueError("y_proba must hold probabilities: each row 0 or more, and 1 in the sum")
    return Predictions(classes, positions_of(y, classes), probabilities, None, [])


def check_classifier(estimator) -> None:
    """Raise for an estimator without probabilities of classes."""
    name = type(estimator).__name__
    if isinstance(estimator, type):
        raise TypeError(f"estimator must be an object, got the class {estimator.__name__}")
    if not is_classifier(estimator):
        raise TypeError(
            f"ErrorReport takes classifiers, and {name} is none: confusions, calibration and "
            "wrong labels are those of classes. Of a regressor, plot the residuals, for example "
            "with sklearn.metrics.PredictionErrorDisplay"
        )
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"ErrorReport reads predict_proba, and this {name} has none; use an estimator that "
            "has it, or wrap this one in sklearn.calibration.CalibratedClassifierCV"
        )


def positions_of(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the positions of labels among the classes; raise for others."""
    position_of = {label: position for position, label in enumerate(classes.tolist())}
    unknown = sorted({label for label in y.tolist() if label not in position_of}, key=repr)
    if unknown:
        raise ValueError(
            f"y has the classes {unknown}, of which there are no probabilities; these are of "
            f"{classes.tolist()}"
        )
    return np.array([position_of[label] for label in y.tolist()], dtype=np.intp)


def _checked_labels(y) -> np.ndarray:
    kind = type_of_target(y, input_name="y")
    if kind.startswith("multilabel"):
        raise ValueError(
            "y is a matrix of several labels for an image, and ErrorReport takes one label for "
            "each; make a report for each column of y"
        )
    if kind not in ("binary", "multiclass"):
        raise ValueError(f"y must hold the labels of classes, got {kind} targets")
    return column_or_1d(y)


def _nothing(estimator, X, y) -> float:
    """Score nothing: predictions are made once, of the fitted estimators."""
    return 0.0
