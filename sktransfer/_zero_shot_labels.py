"""Labels beside prompts: shrinkage discriminant analysis, weighed against the scores of texts.

Both weights are chosen on scores of images that were left out of what scores them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

# A class mean of n images is pulled to the mean of all classes as if one more image lay there.
_PULL = 1.0
# Deviation of the scores by labels where nothing is known of their worth, in units of the
# logarithm of a probability: it decides between classes that the texts hold for equal, or where
# the texts are worth nothing.
_LEAST = 0.05
# Deviation of the logarithm of the weight of texts from 0, before images are seen: below 0 and
# above. Texts may be worth nothing. A raised weight makes their probabilities more certain, and a
# few images that are all right by chance would have any, the larger the better.
_LOWERED, _RAISED = 4.0, 0.25
# Largest weight of the scores by labels, which are logarithms of likelihoods already; for the same
# reason.
_MOST = 1.0
# Standard errors by which weights have to be better than `_LEAST` on images that were left out.
_MARGIN = 1.0
# What two weights that are chosen gain by chance, as a sum of logarithms of probabilities.
_FREE = 3.0
_BOUND = 6.0  # of the logarithm of the weight of texts


@dataclass(frozen=True)
class DiscriminantScores:
    """Linear scores of classes: logarithms of likelihoods, against that of an average class.

    A class without labelled images has a score of 0.

    Attributes
    ----------
    coef : ndarray of shape (n_classes, n_features), float64
    intercept : ndarray of shape (n_classes,), float64
    left_out : ndarray of shape (n_samples, n_classes), float64
        The scores of each row by the other rows.
    is_tested : ndarray of shape (n_samples,), bool
        Whether its class has other rows; where not, its left-out score says nothing.
    """

    coef: np.ndarray
    intercept: np.ndarray
    left_out: np.ndarray
    is_tested: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores (n, n_classes) of rows."""
        return rows @ self.coef.T + self.intercept


def discriminant_scores(rows: np.ndarray, y: np.ndarray, n_classes: int) -> DiscriminantScores:
    """Return the scores of Gaussian classes with one shrunken covariance.

    The left-out scores are exact for the shrinkage and the average of all rows: leaving a row
    out changes the covariance by one rank and the mean of one class.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features), float64
    y : ndarray of shape (n_samples,), int
        Positions of classes.
    n_classes : int
    """
    n, width = rows.shape
    counts = np.bincount(y, minlength=n_classes).astype(float)
    present = counts > 0
    means = np.zeros((n_classes, width))
    np.add.at(means, y, rows)
    means /= np.maximum(counts, 1)[:, None]
    centre = means[present].mean(axis=0)
    offsets = np.where(present[:, None], means - centre, 0)
    own_count = counts[y]
    is_tested = own_count > 1

    # One image for each class says nothing of the deviation within a class, which is then
    # taken for that of all images: too large, so the scores are too near to each other.
    within, freedom = rows - means[y], n - np.count_nonzero(present)
    if freedom == 0:
        within, freedom = rows - centre, max(n - 1, 1)
    precision, share = _shrunken_precision(within, freedom)

    pulled = offsets * (counts / (counts + _PULL))[:, None]
    coef = pulled @ precision
    squares = np.einsum("cd,cd->c", coef, pulled)
    intercept = -0.5 * squares - coef @ centre

    # the rank that leaves the covariance with a row, by the formula of Sherman and Morrison
    centred, one = rows - centre, within @ precision
    others = np.maximum(own_count - 1, 1)
    lost = np.where(is_tested, share / freedom * own_count / others, 0)
    gain = lost / np.maximum(1 - lost * np.einsum("nd,nd->n", one, within), 1e-9)
    along = gain * np.einsum("nd,nd->n", one, centred)
    across = one @ pulled.T
    left_out = centred @ coef.T + along[:, None] * across
    left_out -= 0.5 * (squares + gain[:, None] * across**2)
    # the mean that its own class has without it
    own = (offsets[y] - within / others[:, None]) * (others / (others + _PULL))[:, None]
    own_coef, own_across = own @ precision, np.einsum("nd,nd->n", one, own)
    left_out[np.arange(n), y] = (
        np.einsum("nd,nd->n", own_coef, centred)
        + along * own_across
        - 0.5 * (np.einsum("nd,nd->n", own_coef, own) + gain * own_across**2)
    )
    return DiscriminantScores(coef, intercept, left_out, is_tested)


def _shrunken_precision(within: np.ndarray, freedom: int) -> tuple[np.ndarray, float]:
    """Return the inverse of a covariance, and the share that the covariance itself has in it.

    The rest is a multiple of the identity, as the empirical Bayes estimate has it that
    arXiv 2402.04087 takes from Kubokawa and Srivastava (2008): more, the fewer the rows.
    """
    width = within.shape[1]
    share = freedom / (freedom + width)
    covariance = share / freedom * (within.T @ within)
    level = np.square(within).sum() / freedom / width
    covariance[np.diag_indices(width)] += (1 - share) * (level or 1.0)
    return np.linalg.inv(covariance), share


def weights_of(
    text: np.ndarray, labels: DiscriminantScores, rows: np.ndarray, y: np.ndarray
) -> tuple[float, float]:
    """Return the weights of the scores of texts and of labels; their sum is a classifier.

    They minimise the log-loss of the images, each left out of the scores by labels. The
    weight of labels stays as small as it may be, unless a larger one is better by more than
    chance allows.

    Parameters
    ----------
    text : ndarray of shape (n_samples, n_classes), float64
        Logits by prompts.
    labels : DiscriminantScores
    rows : ndarray of shape (n_samples, n_features), float64
        What `labels` were computed from.
    y : ndarray of shape (n_samples,), int
    """
    fitted = labels.of(rows)
    deviation = (fitted - fitted.mean(axis=1, keepdims=True)).std()
    of_text, _ = _least_log_loss(text, np.zeros_like(text), y, 0.0, 0.0)
    if deviation == 0:
        return of_text, 0.0
    least = _LEAST / deviation
    tested = labels.is_tested
    if not tested.any():
        return of_text, least
    given = text[tested], labels.left_out[tested], y[tested]
    best_of_text, best = _least_log_loss(*given, least, max(least, _MOST))
    gain = _log_probabilities(best_of_text, best, *given) - _log_probabilities(
        of_text, least, *given
    )
    chance = _MARGIN * gain.std() * np.sqrt(len(gain)) + _FREE
    share = np.clip(1 - chance / max(gain.sum(), 1e-12), 0, 1)
    return of_text + share * (best_of_text - of_text), least + share * (best - least)


def _least_log_loss(
    text: np.ndarray, labels: np.ndarray, y: np.ndarray, least: float, most: float
) -> tuple[float, float]:
    """Return the weights of texts and labels that are best for given scores."""
    at = np.arange(len(y)), y

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        of_labels, logarithm = weights
        prior = _RAISED if logarithm > 0 else _LOWERED
        of_text = np.exp(logarithm)
        logs = log_softmax(of_text * text + of_labels * labels, axis=1)
        slopes = np.exp(logs)
        slopes[at] -= 1
        gradient = [(slopes * labels).sum(), (slopes * text).sum() * of_text]
        gradient[1] += logarithm / prior**2
        return -logs[at].sum() + 0.5 * (logarithm / prior) ** 2, np.array(gradient)

    bounds = [(least, most), (-_BOUND, _BOUND)]
    found = minimize(loss, [least, 0.0], jac=True, method="L-BFGS-B", bounds=bounds)
    return float(np.exp(found.x[1])), float(found.x[0])


def _log_probabilities(
    of_text: float, of_labels: float, text: np.ndarray, labels: np.ndarray, y: np.ndarray
) -> np.ndarray:
    scores = log_softmax(of_text * text + of_labels * labels, axis=1)
    return scores[np.arange(len(y)), y]
