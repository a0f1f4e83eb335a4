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
    labels = _permuted(is_new, folds, n_permutations, rng)
    kernel = _kernel(rows)
    areas, null_variance = np.zeros(1 + n_permutations), 0.0
    placements: list[list[np.ndarray]] = [[], []]
    n_folds = folds.max() + 1
    for fold in range(n_folds):
        test, train = folds == fold, folds != fold
        predicted = _predictions(kernel, train, test, labels[train])
        areas += _areas(predicted, labels[test]) / n_folds
        null_variance += _null_variance(labels[test, 0]) / n_folds**2
        for found, deviations in zip(
            placements, _placements(predicted[:, 0], labels[test, 0]), strict=True
        ):
            found.append(deviations)
    variance = sum(
        np.sum(np.concatenate(of) ** 2) / max(1, count - n_folds) / count
        for of, count in zip(placements, (len(some[0]), len(some[1])), strict=True)
    )
    widening = max(1.0, areas[1:].var() / null_variance)
    half = norm.isf((1 - _CONFIDENCE) / 2) * np.sqrt(variance * widening)
    auc = float(areas[0])
    return Separation(
        auc,
        float(max(0.0, auc - half)),
        float(min(1.0, auc + half)),
        permutation_p_value(auc, areas[1:]),
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
    is_new: np.ndarray, folds: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Return labels (n, 1 + n_permutations), the first column as they are."""
    labels = np.repeat(is_new[:, None], 1 + n_permutations, axis=1)
    for fold in range(folds.max() + 1):
        here = np.flatnonzero(folds == fold)
        labels[here, 1:] = rng.permuted(labels[here, 1:], axis=0)
    return labels


def _kernel(rows: np.ndarray) -> np.ndarray:
    """Return the products (n, n) of standardised rows, whose mean squared length is 1."""
    rows = rows - rows.mean(axis=0)
    deviations = rows.std(axis=0)
    rows /= np.where(deviations > 0, deviations, 1)
    kernel = rows @ rows.T
    return kernel / max(np.trace(kernel) / len(kernel), np.finfo(np.float64).tiny)


def _predictions(
    kernel: np.ndarray, train: np.ndarray, test: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Return what a ridge regression on the training rows predicts of the others."""
    regularised = kernel[np.ix_(train, train)] + _RIDGE * np.eye(train.sum())
    weights = cho_solve(cho_factor(regularised, overwrite_a=True), kernel[np.ix_(train, test)])
    return weights.T @ (labels - labels.mean(axis=0))


def _areas(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the area under the curve of each column."""
    n_new = labels[:, 0].sum()
    ranks = np.where(labels, rankdata(predicted, axis=0), 0).sum(axis=0)
    return (ranks - n_new * (n_new + 1) / 2) / (n_new * (len(labels) - n_new))


def _null_variance(is_new: np.ndarray) -> float:
    """Return the variance of the area of predictions that have nothing to do with the labels."""
    n_new, n_reference = is_new.sum(), (~is_new).sum()
    return float((n_new + n_reference + 1) / (12 * n_new * n_reference))


def _placements(predicted: np.ndarray, is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the other sample on the far side of each row, less its mean."""
    shares = []
    for of in (~is_new, is_new):
        among_all, among_own = rankdata(predicted)[of], rankdata(predicted[of])
        share = (among_all - among_own) / (~of).sum()
        shares.append(share - share.mean())
    return shares[0], shares[1]
