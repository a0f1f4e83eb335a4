"""Comparison of two strategies over the same folds."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Difference(NamedTuple):
    """Mean of the differences of two scores over the folds, and its standard error."""

    mean: float
    error: float

    def is_below(self, n_errors: float) -> bool:
        """Return whether the mean is below zero by more than so many standard errors."""
        return self.mean + n_errors * self.error < 0 or np.isnan(self.mean)

    def __str__(self) -> str:
        return f"{abs(self.mean):.3f} ± {self.error:.3f}"


def difference(scores: np.ndarray, others: np.ndarray) -> Difference:
    """Return by how much `scores` are above `others`, paired by folds.

    With one fold there is no standard error, and it is infinite: nothing is then dropped.
    """
    values = np.asarray(scores) - np.asarray(others)
    return Difference(float(values.mean()), standard_error(values))


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of the mean; of one value it is infinite."""
    if len(values) < 2:
        return np.inf
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def scores_by_fold(results: Mapping[str, Any], metric: str) -> np.ndarray:
    """Return the scores (n_candidates, n_folds) of one metric in the results of a search."""
    by_fold = re.compile(rf"split\d+_test_{re.escape(metric)}")
    return np.column_stack([results[key] for key in results if by_fold.fullmatch(key)])


def metric_of(results: Mapping[str, Any], refit: Any) -> str:
    """Return the metric by which strategies are compared: of several that of `refit`."""
    names = [key.removeprefix("mean_test_") for key in results if key.startswith("mean_test_")]
    return refit if isinstance(refit, str) and refit in names else names[0]
