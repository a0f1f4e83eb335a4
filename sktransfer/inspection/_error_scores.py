"""Scores with intervals: over all, by class, by confidence, and by the quality of the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_Z = NormalDist().inv_cdf(0.975)  # of intervals of 95 %
_N_RESAMPLES = 1000
_MOST_BINS = 10
_LEAST_IN_BIN = 20
_N_PARTS = 5  # fifths of the images, by quality


@dataclass(frozen=True, slots=True)
class Score:
    """A score and its interval of 95 %; NaN where there is nothing to score."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The scores of one class: of its images, and of what is predicted as it."""

    position: int
    recall: Score
    precision: Score


@dataclass(frozen=True, slots=True)
class Bin:
    """Images whose `x` is from `low` to `high`, the mean of it, and their accuracy."""

    low: float
    high: float
    x: float
    accuracy: Score


def proportion(n_right: int, n: int, z: float = _Z) -> Score:
    """Return a share with Wilson's interval, which holds for few images and shares near 1."""
    if n == 0:
        return Score(np.nan, np.nan, np.nan, 0)
    share, weight = n_right / n, z**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * np.sqrt(share * (1 - share) / n + weight / (4 * n))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    # at the ends rounding would leave the share outside
    return Score(share, min(low, share), max(high, share), n)


def overall(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None
) -> tuple[Score, Score]:
    """Return accuracy and balanced accuracy.

    The interval of the accuracy is Wilson's; that of the balanced accuracy, and both where
    there are groups, are percentiles of resamples of images or groups.
    """
    right = labels == predicted
    classes, labels = np.unique(labels, return_inverse=True)
    n, n_classes = len(labels), len(classes)
    units = np.arange(n) if groups is None else groups
    n_units = int(units.max()) + 1
    # images and right ones of each class in each unit, sparse: one line an image
    rng = np.random.default_rng(0)
    resamples = np.empty((_N_RESAMPLES, 2))
    for values in resamples:
        drawn = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units)[units]
        of_class = np.bincount(labels, drawn, n_classes)
        right_of_class = np.bincount(labels, drawn * right, n_classes)
        seen = of_class > 0
        values[:] = (
            right_of_class.sum() / max(1.0, of_class.sum()),
            (right_of_class[seen] / of_class[seen]).mean() if seen.any() else 0.0,
        )
    (low, low_balanced), (high, high_balanced) = np.percentile(resamples, [2.5, 97.5], axis=0)
    recalls = np.bincount(labels, right, n_classes) / np.bincount(labels, minlength=n_classes)
    balanced = Score(float(recalls.mean()), float(low_balanced), float(high_balanced), n)
    accuracy = proportion(int(right.sum()), n)
    if groups is not None:
        accuracy = Score(accuracy.value, float(low), float(high), n)
    return accuracy, balanced


def by_class(confusion: np.ndarray) -> list[ClassScore]:
    """Return the scores of each class that is a label or a prediction of some image."""
    scores = []
    for k in range(len(confusion)):
        n_label, n_predicted = int(confusion[k].sum()), int(confusion[:, k].sum())
        if n_label or n_predicted:
            right = int(confusion[k, k])
            scores.append(ClassScore(k, proportion(right, n_label), proportion(right, n_predicted)))
    return scores


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[list[Bin], float]:
    """Return bins of equally many images by confidence, and the expected calibration error."""
    n_bins = int(np.clip(len(right) // _LEAST_IN_BIN, 1, _MOST_BINS))
    bins = _bins(confidence, right, n_bins)
    sizes = np.array([one.accuracy.n for one in bins])
    gaps = np.array([abs(one.accuracy.value - one.x) for one in bins])
    return bins, float(sizes @ gaps / sizes.sum())


def by_quality(quality: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Return parts of the images by a quality, fifths of 100 and more.

    None where the images are too few, or all about the same.
    """
    known = np.isfinite(quality)
    quality, right = quality[known], right[known]
    if not len(quality):
        return []
    n_parts = int(np.clip(len(right) // _LEAST_IN_BIN, 1, _N_PARTS))
    bins = _bins(quality, right, n_parts)
    return bins if len(bins) > 1 else []


def is_enough(quality: np.ndarray) -> bool:
    """Tell whether `by_quality` would divide so many images."""
    return len(quality) >= 2 * _LEAST_IN_BIN


def clearly_worse(bins: Sequence[Bin], overall: float, n_compared: int) -> list[Bin]:
    """Return the bins whose accuracy is below that of all, in so many comparisons.

    The intervals are wider than those that are drawn (Bonferroni): of intervals of 95 %,
    one of fifteen lies below in every fourth report without any effect.
    """
    z = NormalDist().inv_cdf(1 - 0.025 / n_compared)
    return [
        one
        for one in bins
        if proportion(round(one.accuracy.value * one.accuracy.n), one.accuracy.n, z).high < overall
    ]


def _bins(values: np.ndarray, right: np.ndarray, n_bins: int) -> list[Bin]:
    """Cut at quantiles. Equal values are in one bin, so that there may be fewer."""
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins))
    number = np.searchsorted(edges, values, side="right")
    bins = []
    for k in np.unique(number):
        some = number == k
        accuracy = proportion(int(right[some].sum()), int(some.sum()))
        inside = values[some]
        bins.append(Bin(float(inside.min()), float(inside.max()), float(inside.mean()), accuracy))
    return bins


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the log loss of each image; a probability of 0 counts as the smallest number."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(of_label, np.finfo(np.float64).eps, 1.0))


def loss_of_frequencies(labels: np.ndarray) -> float:
    """Return the log loss of the frequencies of the classes, which knows no image."""
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def most_confused(confusion: np.ndarray, n: int) -> Sequence[tuple[int, int, int]]:
    """Return label, prediction and number of images of the most frequent confusions."""
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:n]
    pairs = [np.unravel_index(k, off.shape) for k in order]
    return [(int(i), int(j), int(off[i, j])) for i, j in pairs if off[i, j]]


def percent(share: float) -> str:
    """Return a share with one decimal; none at the ends, which rounding does not reach."""
    if not np.isfinite(share):
        return "-"
    text = f"{share:.1%}"
    if text == "100.0%" and share < 1:
        return ">99.9%"
    if text == "0.0%" and share > 0:
        return "<0.1%"
    return text


def interval(score: Score) -> str:
    """Return the ends of an interval."""
    return f"{percent(score.low)} to {percent(score.high)}"
