"""Whether images may be mirrored: a probe on rows is asked whether mirrored ones still fit.

Photographs of most things may be mirrored; digits, letters and organs may not. The rows of
mirrored images tell, for the price of one forward pass an image. Of very many images a random
sample tells, because the share of them that is predicted worse is known well enough: no copy of
all rows is made.
"""

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from ._data import lowest_priorities
from ._probe import fit_probe, is_large, mean_and_scale, most_rows
from ._targets import ClassTargets, Targets, labels_of

_N_FOLDS = 5
# Mirroring does harm where held-out images are predicted worse by this share, and by so many
# standard errors: one in six harmless cases is taken for harmful, and has crops alone. Digits
# that are mirrored lose more than photographs that are not.
_LEAST_HARM = 0.01
_STANDARD_ERRORS = 1.0


def is_harmless(
    rows: np.ndarray,
    mirrored: np.ndarray,
    encoded: np.ndarray,
    weights: np.ndarray,
    targets: Targets,
) -> bool:
    """Return whether mirrored images are predicted as well as the images themselves.

    Linear models are fitted to `rows` without a fold each, and predict the held-out images
    and their mirrored copies. Where that can't be tried, with fewer than two images of
    each class, the answer is no.

    Parameters
    ----------
    rows, mirrored : ndarray of shape (n, width)
        Rows of the images, and of the same images mirrored left to right.
    encoded : ndarray of shape (n, n_outputs)
        Encoded targets.
    weights : ndarray of shape (n,)
    targets : Targets
    """
    if is_large(rows.shape, targets.n_outputs):
        chosen = _sample(rows.shape, encoded, targets)
        rows, mirrored, encoded, weights = (
            values[chosen] for values in (rows, mirrored, encoded, weights)
        )
    labels = labels_of(encoded) if isinstance(targets, ClassTargets) else None
    if labels is None:
        n_folds, folds = min(_N_FOLDS, len(rows)), KFold
    else:
        counts = np.bincount(labels)
        n_folds, folds = min(_N_FOLDS, counts[counts > 0].min()), StratifiedKFold
    if n_folds < 2:
        return False
    harm = np.zeros(len(rows))
    splits = folds(n_folds, shuffle=True, random_state=0).split(rows, labels)
    for train, held_out in splits:
        centre, scale = mean_and_scale(rows[train], weights[train])
        scaled = (rows[train] - centre) / scale
        weight, bias, _ = fit_probe(scaled, encoded[train], weights[train], targets)
        errors = [
            _errors((part[held_out] - centre) / scale @ weight.T + bias, encoded[held_out], targets)
            for part in (rows, mirrored)
        ]
        harm[held_out] = errors[1] - errors[0]
    mean = np.average(harm, weights=weights)
    standard_error = harm.std() / np.sqrt(len(harm))
    return bool(mean <= max(_LEAST_HARM, _STANDARD_ERRORS * standard_error))


def _sample(shape: tuple[int, ...], encoded: np.ndarray, targets: Targets) -> np.ndarray:
    """Return the sorted positions of random images, as many as are copied; some of each class."""
    n, width = shape
    priorities = np.random.default_rng(0).random(n)
    chosen = np.argsort(priorities)[: max(_N_FOLDS, most_rows(width, targets.n_outputs))]
    if isinstance(targets, ClassTargets):  # the rarest class has images in each fold
        labels = labels_of(encoded)
        n_of_each = _N_FOLDS * len(np.unique(labels))
        chosen = np.union1d(chosen, lowest_priorities(labels, priorities, n_of_each))
    return np.sort(chosen)


def _errors(outputs: np.ndarray, encoded: np.ndarray, targets: Targets) -> np.ndarray:
    """Return the error of each image: 0 or 1, a share of its labels, or squared distance.

    Targets that are numbers have a variance of 1.
    """
    if targets.loss == "softmax":
        return (outputs.argmax(1) != labels_of(encoded)).astype(float)
    if targets.loss == "sigmoid":
        return ((outputs > 0) != (encoded > 0.5)).mean(1)
    return np.square(outputs - encoded).mean(1)
