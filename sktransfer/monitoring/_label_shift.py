"""Shares of classes among new images, corrected for what the classifier confuses.

Black-box shift estimation (Lipton et al., ICML 2018, arXiv 1802.03916), with probabilities in the
place of predicted labels: if images of a class look as before and only the shares of the
classes differ, the mean probabilities of new images are a mixture of those of each class.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

_N_RESAMPLES = 200
_INTERVAL = (2.5, 97.5)  # percentiles
_SUM_IS_ONE = 1e3  # weight of the equation that shares sum to one, among those of probabilities


class Shares(NamedTuple):
    """The share of each class, and an interval of 95 %."""

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


def corrected_shares(
    probabilities: np.ndarray, labels: np.ndarray, new: np.ndarray, rng: np.random.Generator
) -> Shares:
    """Return the shares of the classes among new images.

    Parameters
    ----------
    probabilities : ndarray of shape (n_reference, n_classes)
        Predicted for images that were not trained on.
    labels : ndarray of shape (n_reference,)
        Their classes, as columns of `probabilities`. The share of a class without an image is
        NaN, and the others sum to 1.
    new : ndarray of shape (n_new, n_classes)
        Predicted for the new images.
    rng : Generator
        For the interval: both samples are drawn again, with repetition.
    """
    n_classes = probabilities.shape[1]
    present = np.flatnonzero(np.bincount(labels, minlength=n_classes))
    by_class = [probabilities[labels == label] for label in present]
    values = _mixture([rows.mean(axis=0) for rows in by_class], new.mean(axis=0))
    resampled = np.array(
        [
            _mixture([_mean_of_a_resample(rows, rng) for rows in by_class], mean)
            for mean in (_mean_of_a_resample(new, rng) for _ in range(_N_RESAMPLES))
        ]
    )
    low, high = np.percentile(resampled, _INTERVAL, axis=0)
    shares = np.full((3, n_classes), np.nan)
    shares[:, present] = values, np.minimum(low, values), np.maximum(high, values)
    return Shares(*shares)


def _mean_of_a_resample(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)))
    return counts @ rows / len(rows)


def _mixture(of_classes: list[np.ndarray], mean: np.ndarray) -> np.ndarray:
    """Return the shares, none below 0, whose mixture of class means is nearest to `mean`."""
    means = np.column_stack(of_classes)
    means = np.vstack([means, np.full(means.shape[1], _SUM_IS_ONE)])
    shares, _ = nnls(means, np.append(mean, _SUM_IS_ONE))
    return shares / shares.sum()
