"""Tests of whether two samples differ: p-values that hold, and effects on one scale.

Each test is exact or a permutation test: without a difference its p-value is at most u with a
probability of at most u, whatever the distribution is.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import hypergeom, ks_2samp


def distribution_difference(reference: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Return the largest difference of two distribution functions, and its p-value.

    Kolmogorov and Smirnov's test of two samples. With ties its p-value is too large, never
    too small.
    """
    found = ks_2samp(reference, new, method="auto")
    return float(found.statistic), float(found.pvalue)


def share_difference(
    reference: np.ndarray, new: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return half the sum of the differences of shares, and a p-value, from counts.

    Parameters
    ----------
    reference, new : ndarray of shape (n_classes,)
        How often each class was counted.
    n_permutations : int
        Draws of the counts of the new sample from both together. The statistic is
        Pearson's chi-squared.
    rng : Generator

    Returns
    -------
    difference, p_value : float
        The difference is the least share of the images whose class must change to make
        one of the other.
    """
    n_reference, n_new = int(reference.sum()), int(new.sum())
    total = reference + new
    present = total > 0
    expected = total[present] * n_new / total.sum()
    drawn = rng.multivariate_hypergeometric(
        total[present], n_new, size=n_permutations, method="marginals"
    )
    observed = ((new[present] - expected) ** 2 / expected).sum()
    permuted = ((drawn - expected) ** 2 / expected).sum(axis=1)
    difference = np.abs(reference / n_reference - new / n_new).sum() / 2
    return float(difference), permutation_p_value(observed, permuted)


def permutation_p_value(observed: float, permuted: np.ndarray) -> float:
    """Return the share of the statistics, its own included, that are at least as large."""
    tolerance = 1e-9 * max(1.0, abs(observed))  # of sums in another order
    return float((1 + np.sum(permuted >= observed - tolerance)) / (1 + len(permuted)))


def p_value_of_more(n_reference: int, n_new: int, in_reference: int, in_new: int) -> float:
    """Return the p-value of a larger share in the new sample: Fisher's exact test."""
    return float(hypergeom.sf(in_new - 1, n_reference + n_new, in_reference + in_new, n_new))


def p_value_of_low_scores(scores: np.ndarray, offset: float, new: np.ndarray) -> float:
    """Return the p-value of the number of new scores below a threshold set on the others.

    The threshold lies just above the k-th lowest of `scores`. At least j of the new ones are
    below it where at least j are among the j + k - 1 lowest of all, a number that is
    hypergeometric if all are of one kind.
    """
    n_below = int(np.sum(new < offset))
    k = max(1, int(np.sum(scores < offset)))
    if not n_below:
        return 1.0
    lowest = min(n_below + k - 1, len(scores) + len(new))
    return float(hypergeom.sf(n_below - 1, len(scores) + len(new), len(new), lowest))


def corrected(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, by the method of Holm.

    The probability that any is at most u is at most u, however the tests depend on one
    another.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return corrected.tolist()


def n_permutations(level: float) -> int:
    """Return how many permutations a test at this level needs: ten times the fewest.

    Beyond ten thousand, twice the fewest.
    """
    return math.ceil(max(min(10 / level, 10_000), 2 / level)) - 1
