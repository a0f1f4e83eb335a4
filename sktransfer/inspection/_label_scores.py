"""Scores with more and more of the labels, in repeated draws."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import (
    GroupShuffleSplit,
    ShuffleSplit,
    StratifiedShuffleSplit,
    cross_val_score,
)
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target


def draws(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    groups: Any,
    n_repeats: int,
    test_size: float,
    random_state: Any,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positions to fit and to test on, repeatedly drawn.

    The first of those to fit on are in the proportions of the classes, however many they
    are. No group is in both.
    """
    rng = check_random_state(random_state)
    seed = int(rng.randint(2**31 - 1))
    has_classes = is_classifier(estimator) and type_of_target(y) in ("binary", "multiclass")
    if groups is not None:
        splitter: Any = GroupShuffleSplit(n_repeats, test_size=test_size, random_state=seed)
    elif has_classes:
        splitter = StratifiedShuffleSplit(n_repeats, test_size=test_size, random_state=seed)
    else:
        splitter = ShuffleSplit(n_repeats, test_size=test_size, random_state=seed)
    pairs = list(splitter.split(X, y, groups))
    n_train = min(len(train) for train, _ in pairs)
    ordered = _stratified if has_classes else _shuffled
    return [(ordered(train, y, rng)[:n_train], test) for train, test in pairs]


def _shuffled(train: np.ndarray, y: np.ndarray, rng: Any) -> np.ndarray:
    return rng.permutation(train)


def _stratified(train: np.ndarray, y: np.ndarray, rng: Any) -> np.ndarray:
    """Return positions in an order of which each first part has the shares of the classes."""
    train = rng.permutation(train)
    labels = np.unique(y[train], return_inverse=True)[1]
    place = np.empty(len(train))
    for label in range(labels.max() + 1):
        of_class = np.flatnonzero(labels == label)
        # the first of each class before the second of any
        place[of_class] = (np.arange(len(of_class)) + rng.uniform(0.01, 0.99)) / len(of_class)
        place[of_class[0]] = rng.uniform(-1, 0)
    return train[np.argsort(place, kind="stable")]


def scores_by_size(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    sizes: np.ndarray,
    scoring: Any,
    n_jobs: int | None,
) -> np.ndarray:
    """Return the scores (n_sizes, n_repeats) of an estimator on the images to test on.

    As scikit-learn's ``learning_curve``, without the scores on what was fitted.
    """
    cv = [(train[:size], test) for size in sizes for train, test in pairs]
    scores = cross_val_score(
        estimator, X, y, cv=cv, scoring=scoring, n_jobs=n_jobs, error_score="raise"
    )
    return scores.reshape(len(sizes), len(pairs))


def default_sizes(n_train: int, n_least: int, n_sizes: int = 5) -> np.ndarray:
    """Return numbers of labels from an eighth to all, each a multiple of the one before.

    With fewer, curves follow a power law less well, and say less about more labels.
    """
    least = min(n_train, max(n_least, n_train // 8))
    return np.unique(np.geomspace(least, n_train, n_sizes).round().astype(int))
