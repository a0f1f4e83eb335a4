"""How well a linear classifier tells two samples of rows apart.

A ridge regression on the label "new" predicts rows that it was not fitted on. Its predictions
are linear in the labels, so the same matrices serve all permutations of them: a permutation
test costs one matrix product.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm, rankdata

from ._two_sample import permutation_p_value

N_FOLDS = 5
# Rows of each sample that are used: with these the standard error of the AUC is 0.013, and
# the matrices take half a second
MOST_ROWS = 1000
# Of the penalty, relative to the mean squared length of a standardised row
_RIDGE = 1.0
_CONFIDENCE = 0.95
_AT_ONCE = 1000  # permutations: their labels and predictions take some megabytes


class Separation(NamedTuple):
    """Area under the ROC curve, 0.5 where the samples do not differ; interval; p-value."""

    auc: float
    low: float
    high: float
    p_value: float


def separation(
    reference: np.ndarray, new: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> Separation:
    """Return how well two samples of rows are told apart.

    The area is the mean over folds, each with the same share of new rows. Labels are permuted
    within folds. The interval is DeLong's, wider by what the permutations say: they vary more
    than areas of as many independent rows, because the folds share what they are fitted on.
    """
    some = [_drawn(rows, rng) for rows in (reference, new)]
    rows = np.concatenate(some).astype(np.float64)
    is_new = np.repeat([False, True], [len(rows) for rows in some])
    folds = _folds(is_new, rng)
    kernel = _kernel(rows)
    tests = [folds == fold for fold in range(folds.max() + 1)]
    weights = [_weights(kernel, ~test, test) for test in tests]

    predicted = [_predictions(of, is_new[~test]) for of, test in zip(weights, tests, strict=True)]
    auc = float(_mean_area(weights, tests, is_new[:, None])[0])
    permuted = np.concatenate(
        [
            _mean_area(weights, tests, _permuted(is_new, tests, min(_AT_ONCE, left), rng))
            for left in range(n_permutations, 0, -_AT_ONCE)
        ]
    )
    null_variance = np.mean([_null_variance(is_new[test]) for test in tests]) / len(tests)
    widening = max(1.0, permuted.var() / null_variance)
    variance = _variance(predicted, [is_new[test] for test in tests])
    half = norm.isf((1 - _CONFIDENCE) / 2) * np.sqrt(variance * widening)
    return Separation(
        auc,
        float(max(0.0, auc - half)),
        float(min(1.0, auc + half)),
        permutation_p_value(auc, permuted),
    )


def _drawn(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= MOST_ROWS:
        return rows
    return rows[np.sort(rng.choice(len(rows), MOST_ROWS, replace=False))]


def _folds(is_new: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the number of a fold for each row; each fold has as many new rows."""
    n_folds = max(2, min(N_FOLDS, is_new.sum() // 2, (~is_new).sum() // 2))
    folds = np.empty(len(is_new), dtype=np.intp)
    for of in (is_new, ~is_new):
        where = rng.permutation(np.flatnonzero(of))
        folds[where] = np.arange(len(where)) % n_folds
    return folds


def _permuted(
    is_new: np.ndarray, tests: list[np.ndarray], n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Return labels (n, n_permutations), permuted within folds."""
    labels = np.repeat(is_new[:, None], n_permutations, axis=1)
    for test in tests:
        labels[test] = rng.permuted(labels[test], axis=0)
    return labels


def _kernel(rows: np.ndarray) -> np.ndarray:
    """Return the products (n, n) of standardised rows, whose mean squared length is 1."""
    rows = rows - rows.mean(axis=0)
    deviations = rows.std(axis=0)
    rows /= np.where(deviations > 0, deviations, 1)
    kernel = rows @ rows.T
    return kernel / max(np.trace(kernel) / len(kernel), np.finfo(np.float64).tiny)


def _weights(kernel: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the weights (n_train, n_test) of training labels in a ridge regression."""
    regularised = kernel[np.ix_(train, train)] + _RIDGE * np.eye(train.sum())
    return cho_solve(cho_factor(regularised, overwrite_a=True), kernel[np.ix_(train, test)])


def _predictions(weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what is predicted from labels of training rows, but for a constant."""
    return weights.T @ (labels - labels.mean(axis=0))


def _mean_area(
    weights: list[np.ndarray], tests: list[np.ndarray], labels: np.ndarray
) -> np.ndarray:
    """Return the mean over folds of the area of each column of labels (n, n_permutations)."""
    areas = [
        _areas(_predictions(of, labels[~test]), labels[test])
        for of, test in zip(weights, tests, strict=True)
    ]
    return np.mean(areas, axis=0)


def _areas(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the area under the curve of each column."""
    n_new = labels[:, 0].sum()
    ranks = np.where(labels, rankdata(predicted, axis=0), 0).sum(axis=0)
    return (ranks - n_new * (n_new + 1) / 2) / (n_new * (len(labels) - n_new))


def _null_variance(is_new: np.ndarray) -> float:
    """Return the variance of the area of predictions that have nothing to do with the labels."""
    n_new, n_reference = is_new.sum(), (~is_new).sum()
    return float((n_new + n_reference + 1) / (12 * n_new * n_reference))


def _variance(predicted: list[np.ndarray], is_new: list[np.ndarray]) -> float:
    """Return the variance of the mean area over folds, by DeLong, of the predictions of each."""
    variance = 0.0
    for sample in (False, True):
        deviations = []
        for values, labels in zip(predicted, is_new, strict=True):
            of = labels == sample
            # of each row, the share of the other sample in the fold that is predicted lower
            share = (rankdata(values)[of] - rankdata(values[of])) / (~of).sum()
            deviations.append(share - share.mean())
        joined = np.concatenate(deviations)
        variance += np.sum(joined**2) / max(1, len(joined) - len(predicted)) / len(joined)
    return float(variance)
