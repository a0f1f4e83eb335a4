"""Learning curves as power laws: what more labels may bring."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

# Exponents that are tried. Those of classifiers are mostly between 0.2 and 1.
_EXPONENTS = np.geomspace(0.1, 2.0, 100)
_N_DRAWS = 500
# A band of nine tenths
LEVELS = (0.05, 0.95)


@dataclass(frozen=True)
class PowerLaw:
    """``score = a - b * n ** -c`` for `n` labels.

    Attributes
    ----------
    a : float
        The score with as many labels as one likes.
    b, c : float
        At least 0; what is lost with few labels, and how fast it vanishes.
    """

    a: float
    b: float
    c: float

    def __call__(self, n: np.ndarray | float) -> np.ndarray:
        return self.a - self.b * np.asarray(n, dtype=float) ** -self.c


@dataclass(frozen=True)
class Continuation:
    """A power law, and others that fit the scores nearly as well.

    Attributes
    ----------
    law : PowerLaw
        Fitted to the mean scores.
    draws : ndarray of shape (n_draws, 3)
        ``a, b, c`` of laws fitted to scores drawn anew.
    """

    law: PowerLaw
    draws: np.ndarray

    def band(self, n: np.ndarray) -> np.ndarray:
        """Return the lower and upper ends (2, len(n)) of nine tenths of the laws."""
        return np.quantile(self._scores(n), LEVELS, axis=0)

    def gain(self, n: float, more: float) -> tuple[float, float]:
        """Return the ends of what `more` labels in place of `n` bring."""
        before, after = self._scores(np.array([n, more], dtype=float)).T
        low, high = np.quantile(after - before, LEVELS)
        return float(low), float(high)

    def _scores(self, n: np.ndarray) -> np.ndarray:
        a, b, c = self.draws.T[:, :, None]
        return a - b * np.asarray(n, dtype=float) ** -c


def continuation(
    sizes: np.ndarray, scores: np.ndarray, max_score: float, inflation: float, seed: int = 0
) -> Continuation:
    """Return the power law of scores (n_sizes, n_repeats), and laws drawn by a bootstrap.

    Parameters
    ----------
    sizes : ndarray of shape (n_sizes,)
        Numbers of labels.
    scores : ndarray of shape (n_sizes, n_repeats)
    max_score : float
        No law exceeds it.
    inflation : float
        By what factor standard errors of independent repeats are too small, because the
        repeats share images.
    seed : int, default=0
    """
    sizes, scores = np.asarray(sizes, dtype=float), np.asarray(scores, dtype=float)
    n_repeats = scores.shape[1]
    mean = scores.mean(axis=1)
    weights = 1 / _smooth_variances(sizes, scores)
    chosen = np.random.default_rng(seed).integers(n_repeats, size=(_N_DRAWS, n_repeats))
    # a bootstrap has the variance of n_repeats - 1 values, and tails as if it were known
    factor = inflation * np.sqrt(n_repeats / (n_repeats - 1))
    factor *= t.ppf(LEVELS[1], n_repeats - 1) / norm.ppf(LEVELS[1])
    drawn = mean + factor * (scores[:, chosen].mean(axis=2).T - mean)
    laws = _fitted(sizes, np.vstack([mean, drawn]), weights, max_score)
    return Continuation(PowerLaw(*map(float, laws[0])), laws[1:])


def _smooth_variances(sizes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the variances of the scores, as a power law of the size: each alone is noisy."""
    variances = np.maximum(scores.var(axis=1, ddof=1), 1e-8)
    slope, level = np.polyfit(np.log(sizes), np.log(variances), 1)
    return np.exp(level + slope * np.log(sizes))


def _fitted(
    sizes: np.ndarray, curves: np.ndarray, weights: np.ndarray, max_score: float
) -> np.ndarray:
    """Return ``a, b, c`` (n_curves, 3) of least squared error, with b >= 0, a <= max_score.

    For each exponent the problem is linear in two numbers that are not negative: the error
    that stays, and `b`. Its solution is that without bounds, or has one of them at zero.
    """
    errors = max_score - curves  # (n_curves, n_sizes) = stays + b * n ** -c
    weights = weights / weights.sum()
    falling = sizes ** -_EXPONENTS[:, None]  # (n_exponents, n_sizes)
    # weighted means, over sizes
    mean_falling, mean_errors = falling @ weights, errors @ weights
    spread = (falling**2) @ weights - mean_falling**2
    together = (errors * weights) @ falling.T - mean_errors[:, None] * mean_falling
    b = np.maximum(together / spread, 0)
    stays = mean_errors[:, None] - b * mean_falling
    only_b = np.maximum((errors * weights) @ falling.T / ((falling**2) @ weights), 0)
    b, stays = np.where(stays < 0, only_b, b), np.maximum(stays, 0)
    residuals = errors[:, None] - stays[..., None] - b[..., None] * falling
    best = ((residuals**2) @ weights).argmin(axis=1)
    rows = np.arange(len(curves))
    return np.column_stack([max_score - stays[rows, best], b[rows, best], _EXPONENTS[best]])
