"""What rows are scored by: neighbours and linear models, cross-validated."""

import numbers
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

# Inverse strength of the ridge penalty of classes, on standardised rows. Scores hardly change
# from a third to three times of it.
_C = 0.01
# Strengths that the ridge regression of numbers chooses from, by leaving one out.
_ALPHAS = np.logspace(-1, 5, 13)
_N_NEIGHBOURS = 10

Folds = list[tuple[np.ndarray, np.ndarray]]


def neighbours(is_classes: bool, n_images: int) -> Pipeline:
    """Return nearest neighbours by the cosine of standardised rows, the nearer the heavier."""
    kind = KNeighborsClassifier if is_classes else KNeighborsRegressor
    n_neighbours = max(1, min(_N_NEIGHBOURS, n_images // 4))
    return make_pipeline(StandardScaler(), Normalizer(), kind(n_neighbours, weights="distance"))


def linear(is_classes: bool) -> Pipeline:
    """Return a logistic regression, or a ridge regression, of standardised rows."""
    model = LogisticRegression(C=_C, max_iter=1000) if is_classes else RidgeCV(_ALPHAS)
    return make_pipeline(StandardScaler(), model)


def folds_of(cv: Any, y: np.ndarray, groups: np.ndarray, is_classes: bool) -> Folds:
    """Return the positions of training and test images, fold by fold.

    Raises
    ------
    ValueError
        When `cv` lets a group cross a fold, or is more folds than there can be.
    """
    if isinstance(cv, numbers.Integral):
        _check_number_of_folds(int(cv), y, groups, is_classes)
        splitter = StratifiedGroupKFold if is_classes else GroupKFold
        cv = splitter(int(cv), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # a rare class is in fewer folds than there are
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        # a splitter without groups serves where each image is a group of its own
        warnings.filterwarnings("ignore", "The groups parameter is ignored", UserWarning)
        folds = list(cv.split(np.zeros(len(y)), y, groups))
    for train, test in folds:
        if np.isin(groups[test], groups[train]).any():
            raise ValueError(
                f"cv={cv!r} lets a group or duplicates cross a fold: pass a number of folds, or a "
                "splitter that uses groups, such as StratifiedGroupKFold or GroupKFold"
            )
    return folds


def _check_number_of_folds(cv: int, y: np.ndarray, groups: np.ndarray, is_classes: bool) -> None:
    """Raise where there are more folds than groups, or than images of any class."""
    n_groups = len(np.unique(groups))
    most, what = n_groups, f"{n_groups} groups of equal or nearly equal images"
    if is_classes:
        largest = int(np.unique(y, return_counts=True)[1].max())
        if largest < most:
            most, what = largest, f"{largest} images of the largest class"
    if cv > most:
        raise ValueError(
            f"cv={cv} is more than the {what}, of {len(y)} images; give more images, or fewer folds"
        )


def fold_scores(
    estimator: BaseEstimator, rows: np.ndarray, y: np.ndarray, folds: Folds, scorer: Callable
) -> np.ndarray:
    """Return the score of each fold."""
    return np.array(
        [scorer(clone(estimator).fit(rows[train], y[train]), rows[test], y[test])
         for train, test in folds]
    )  # fmt: skip


def differences(best: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the mean difference over the folds and its standard error."""
    of_folds = best - scores
    if len(of_folds) < 2:
        return float(of_folds.mean()), 0.0
    return float(of_folds.mean()), float(of_folds.std(ddof=1) / np.sqrt(len(of_folds)))
