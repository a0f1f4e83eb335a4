"""Linear models of standardised rows, which linear heads start from."""

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from threadpoolctl import ThreadpoolController

from ._targets import ClassTargets, LabelTargets, Targets, labels_of

# Inverse strength of the probe's ridge penalty, on standardised rows.
PROBE_C = 0.03
PROBE_ITERATIONS = 500
# Strengths that a regression's probe chooses from, by leaving one out.
PROBE_ALPHAS = np.logspace(-1, 4, 11)
_MANY_VALUES = 2**22
# Values of rows and of their outputs together, above which no copy of all of them is made. A
# standardised copy is 128 MiB, and scikit-learn needs several. By blocks 20 classes take less than
# half of the processor time, and 1,000 classes 1.5 times it (benchmarks/bench_large_head.py).
LARGE = 2**24
_ROWS_OF_A_BLOCK = 2**13


class Probe(NamedTuple):
    """A linear model of rows.

    Attributes
    ----------
    weight : ndarray of shape (n_outputs, width)
    bias : ndarray of shape (n_outputs,)
    strength : float
        That of the penalty on the distance of `weight` from 0, which it has been fitted
        with.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float


# Candidates of a search that differ only in how they train share one probe for each fold.
_known_probes: dict[bytes, Probe] = {}
_N_KNOWN_PROBES = 16


# Least deviation that a column of rows is divided by, as a share of the median of all. What
# hardly varies in the images of a fit varies more in others, and would be the largest of all
# values there.
LEAST_SCALE = 0.3
_ROUNDING = 1e-10  # deviations that a column of equal numbers may have, as a share of them


def is_large(shape: Sequence[int], n_outputs: int) -> bool:
    """Return whether rows (n, width) and their outputs are too many for copies of all of them."""
    n, width = shape
    return n * (width + n_outputs) > LARGE


def most_rows(width: int, n_outputs: int) -> int:
    """Return the number of rows of a width of which copies are made."""
    return LARGE // (width + n_outputs)


def mean_and_scale(
    rows: np.ndarray, counts: np.ndarray, n_outputs: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return what to subtract from the columns of rows, and what to divide them by.

    `n_outputs` is that of the model of the rows: where both are many, no copy of all rows is made.
    """
    if is_large(rows.shape, n_outputs):
        mean, deviations = _moments_by_blocks(rows, counts)
    else:
        rows = rows.astype(np.float64)
        mean = np.average(rows, axis=0, weights=counts)
        deviations = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=counts))
    varies = deviations > _ROUNDING * np.abs(mean)
    if not varies.any():
        return mean, np.ones_like(mean)
    return mean, np.maximum(deviations, LEAST_SCALE * np.median(deviations[varies]))


def _moments_by_blocks(rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of columns, in float64, without a copy of all rows."""
    parts = [
        slice(start, start + _ROWS_OF_A_BLOCK) for start in range(0, len(rows), _ROWS_OF_A_BLOCK)
    ]
    total = counts.sum()
    mean = sum(counts[part] @ rows[part].astype(np.float64) for part in parts) / total
    variance = sum(counts[part] @ np.square(rows[part] - mean) for part in parts) / total
    return mean, np.sqrt(variance)


def known_probe(
    rows: np.ndarray, encoded: np.ndarray, weights: np.ndarray, targets: Targets
) -> Probe:
    """Return the same as `fit_probe`, which is not called again for what it was called with."""

    def fit() -> Probe:
        with threads_of_blas(rows.size):
            return fit_probe(rows, encoded, weights, targets)

    return known((rows, encoded, weights), targets, fit)


def known(arrays: Sequence[np.ndarray], targets: Targets, fit: Callable[[], Probe]) -> Probe:
    """Return what `fit` returns, which is not called again for the same arrays and targets."""
    key = _digest(arrays, targets)
    if key not in _known_probes:
        while len(_known_probes) >= _N_KNOWN_PROBES:
            del _known_probes[next(iter(_known_probes))]
        _known_probes[key] = fit()
    return _known_probes[key]


def _digest(arrays: Sequence[np.ndarray], targets: Targets) -> bytes:
    """Return a digest of everything that a probe depends on."""
    digest = hashlib.blake2b(f"{targets.loss} {targets.n_outputs}".encode(), digest_size=16)
    for array in (*arrays, getattr(targets, "balance", None)):
        if array is not None:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def threads_of_blas(n_values: int) -> AbstractContextManager:
    """Return a context in which a small problem uses one thread: more would slow it down."""
    return nullcontext() if n_values > _MANY_VALUES else _blas().limit(limits=1, user_api="blas")


@functools.cache
def _blas() -> ThreadpoolController:
    # it searches the loaded libraries, which takes longer than a probe
    return ThreadpoolController()


def fit_probe(
    rows: np.ndarray, encoded: np.ndarray, weights: np.ndarray, targets: Targets
) -> Probe:
    """Return the linear model of standardised rows (n, width) and of encoded targets."""
    strength = 1 / (PROBE_C * weights.sum())  # of scikit-learn's penalty, for the mean loss
    if isinstance(targets, ClassTargets):
        return _classes(rows, labels_of(encoded), weights, targets.n_outputs, strength)
    if isinstance(targets, LabelTargets):
        columns = [
            _logistic(rows, column > 0.5, weights * np.where(column > 0.5, presence, absence))
            for column, absence, presence in zip(encoded.T, *targets.balance, strict=True)
        ]
        weight, bias = (np.vstack(parts) for parts in zip(*columns, strict=True))
        return Probe(weight, np.ravel(bias), strength / len(weight))
    return fit_ridge(rows, encoded, weights, PROBE_ALPHAS)


def fit_ridge(
    rows: np.ndarray, encoded: np.ndarray, weights: np.ndarray, alphas: np.ndarray
) -> Probe:
    """Return the linear regression of least squared error, its penalty one of `alphas`."""
    # without one image, none is left
    ridge = RidgeCV(alphas) if len(rows) > 1 else Ridge(alphas[0])
    ridge.fit(rows, encoded, sample_weight=weights)
    alpha = getattr(ridge, "alpha_", alphas[0])
    strength = 2 * alpha / (encoded.shape[1] * weights.sum())  # the loss is a mean
    return Probe(np.atleast_2d(ridge.coef_), np.ravel(ridge.intercept_), strength)


def _classes(
    rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, n_classes: int, strength: float
) -> Probe:
    """Return the coefficients of all classes; a class without an image gets a low intercept."""
    present = np.unique(labels)
    weight, bias = np.zeros((n_classes, rows.shape[1])), np.full(n_classes, -np.log(len(rows)))
    if len(present) == 1:
        bias[present] = 0
    elif len(present) == 2:
        # the one logit of two classes is the difference of theirs, which get half of it each
        coefficients, intercept = _logistic(rows, labels == present[1], weights)
        weight[present] = np.vstack([-coefficients, coefficients]) / 2
        bias[present] = np.ravel([-intercept, intercept]) / 2
        strength *= 2  # the squares of two halves are half of the square
    else:
        probe = _fit_logistic(rows, labels, weights)
        weight[present], bias[present] = probe.coef_, probe.intercept_
    return Probe(weight, bias, strength)


def _logistic(
    rows: np.ndarray, is_positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (1, width) and intercept (1,) of one logit."""
    if is_positive.all() or not is_positive.any():  # there is one class only
        sign = 1 if is_positive.all() else -1
        return np.zeros((1, rows.shape[1])), np.array([sign * np.log(len(rows))])
    probe = _fit_logistic(rows, is_positive, weights)
    return probe.coef_, probe.intercept_


def _fit_logistic(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    probe = LogisticRegression(C=PROBE_C, max_iter=PROBE_ITERATIONS)
    with warnings.catch_warnings():
        # it is trained from here on
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(rows, labels, sample_weight=weights)
