"""Linear models of rows that are too many to be copied: fitted block by block.

They have the optimum that `_probe` has.
"""

import numpy as np
import torch

from ._large_logistic import mean_weights, minimum
from ._probe import PROBE_ALPHAS, PROBE_C, Probe, known
from ._scaled_rows import ScaledRows
from ._targets import LabelTargets, NumberTargets, Targets, labels_of


def known_large_probe(
    rows: ScaledRows,
    encoded: np.ndarray,
    weights: np.ndarray,
    targets: Targets,
    device: torch.device,
) -> Probe:
    """Return the linear model of many rows; candidates of a search share it."""
    arrays = (rows.rows, rows.mean, rows.scale, encoded, weights)
    return known(arrays, targets, lambda: _fit(rows, encoded, weights, targets, device))


def _fit(
    rows: ScaledRows,
    encoded: np.ndarray,
    weights: np.ndarray,
    targets: Targets,
    device: torch.device,
) -> Probe:
    if isinstance(targets, NumberTargets):
        return ridge(rows, encoded, weights, PROBE_ALPHAS)
    strength = 1 / (PROBE_C * weights.sum())
    n, width = rows.rows.shape
    coefficients = np.zeros((targets.n_outputs, width + 1))
    if isinstance(targets, LabelTargets):
        n_present = (encoded > 0.5).sum(0)
        varies = (n_present > 0) & (n_present < n)
        coefficients[:, -1] = np.where(n_present > 0, np.log(n), -np.log(n))
        if varies.any():
            absent, present = mean_weights(encoded, weights, targets.balance, len(coefficients))
            coefficients[varies, -1] = np.log(present / absent)[varies]
            coefficients[varies] = minimum(
                rows,
                encoded[:, varies],
                weights,
                coefficients[varies],
                strength,
                balance=targets.balance[:, varies],
                device=device,
            )
        return Probe(coefficients[:, :-1], coefficients[:, -1], strength / len(coefficients))
    present, labels = np.unique(labels_of(encoded), return_inverse=True)
    coefficients[:, -1] = -np.log(n)  # of a class without an image
    _, frequencies = mean_weights(labels, weights, None, len(present))
    coefficients[present, -1] = np.log(frequencies)
    if len(present) == 2:
        strength *= 2  # scikit-learn's one logit of two classes is the difference of theirs
    if len(present) > 1:
        start = coefficients[present]
        coefficients[present] = minimum(rows, labels, weights, start, strength, device=device)
    # the same number added to the logits of all classes changes nothing
    coefficients[present] -= coefficients[present].mean(0)
    return Probe(coefficients[:, :-1], coefficients[:, -1], strength)


def ridge(rows: ScaledRows, encoded: np.ndarray, weights: np.ndarray, alphas: np.ndarray) -> Probe:
    """Return the linear regression of least squared error, its penalty one of `alphas`.

    It is scikit-learn's ``RidgeCV``, by the covariance of the columns, in two passes on the CPU
    in float64: small eigenvalues need its digits.
    """
    total = weights.sum()
    width, n_outputs = rows.rows.shape[1], encoded.shape[1]
    slices = list(rows.slices(n_outputs))
    row_mean = sum(weights[part] @ rows.block(part) for part in slices) / total
    target_mean = weights @ encoded / total
    covariance, cross = np.zeros((width, width)), np.zeros((width, n_outputs))
    for part in slices:
        block = rows.block(part) - row_mean
        weighted = block * weights[part, None]
        covariance += weighted.T @ block
        cross += weighted.T @ (encoded[part] - target_mean)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    projected = vectors.T @ cross
    inverses = [1 / (np.maximum(eigenvalues, 0) + alpha) for alpha in alphas]
    solutions = np.stack([inverse[:, None] * projected for inverse in inverses])
    errors = np.zeros(len(alphas))  # of each image, by the model of all others
    for part in slices:
        block = (rows.block(part) - row_mean) @ vectors
        left_over = encoded[part] - target_mean
        for number, inverse in enumerate(inverses):
            leverage = weights[part] * (np.square(block) @ inverse + 1 / total)
            of_each = (left_over - block @ solutions[number]) / (1 - leverage)[:, None]
            errors[number] += np.sum(weights[part, None] * np.square(of_each))
    best = int(np.argmin(errors))
    weight = (vectors @ solutions[best]).T
    strength = 2 * float(alphas[best]) / (n_outputs * total)  # the loss is a mean
    return Probe(weight, target_mean - weight @ row_mean, strength)
