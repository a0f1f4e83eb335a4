"""A linear head that is trained further: solved again, near the coefficients that it has.

The few small steps of a fit do not bring a linear head from one optimum to another. Its loss
is convex, so the other one is computed. The penalty is on the distance to the coefficients
that the head has, where that of a probe is on the distance to zero: what the images of this
fit say nothing about is kept, as in arXiv 1612.00796, with one strength for all coefficients.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, softmax
from torch import nn

from ._head import Penalty, Standardise, TrainablePart, linear_of
from ._large_logistic import minimum
from ._large_probe import ridge
from ._probe import PROBE_C, fit_ridge, is_large, threads_of_blas
from ._scaled_rows import ScaledRows
from ._targets import LabelTargets, NumberTargets, Targets, as_rows, labels_of

# Strengths that a regression chooses from, by leaving one out. The former coefficients weigh
# at least as much as those of a class do: with less, forty images of a continued fit spoil them.
_ALPHAS = np.logspace(2, 6, 9)
_ITERATIONS = 500
_CPU = torch.device("cpu")
_TOLERANCE = 1e-4  # of the gradient of the mean loss; that of scikit-learn's logistic regression


@dataclass(frozen=True)
class Continued:
    """A fitted part that is trained further.

    Parameters
    ----------
    part : TrainablePart
    seen : ndarray of shape (2, n_outputs)
        Whether an image without and one with each class or label was trained on so far.
    has_all_images : bool
        Whether the images of this fit are all those that the part was ever trained on, and
        new ones.
    """

    part: TrainablePart
    seen: np.ndarray
    has_all_images: bool


def seen_in(encoded: np.ndarray, n_outputs: int = 0) -> np.ndarray:
    """Return (2, n_outputs): whether a row is without, and one with, each class or label.

    Rows tell `n_outputs`; positions of classes don't.
    """
    if encoded.ndim == 1:
        counts = np.bincount(encoded, minlength=n_outputs)
        return np.stack([counts < len(encoded), counts > 0])
    return np.stack([(encoded <= 0.5).any(0), (encoded > 0.5).any(0)])


def solve_again(
    head: nn.Module,
    rows: np.ndarray,
    encoded: np.ndarray,
    weights: np.ndarray,
    targets: Targets,
    seen: np.ndarray,
    device: torch.device = _CPU,
) -> Penalty:
    """Solve a fitted linear head again, in place, for rows and their encoded targets.

    Returns the penalty that it has been solved with, on the distance to what it was.
    """
    standardise, _ = head.children()
    assert isinstance(standardise, Standardise)
    linear = linear_of(head)
    mean, scale = _as_array(standardise.mean), _as_array(standardise.scale)
    weight, bias = _as_array(linear.weight), _as_array(linear.bias)
    scaled = ScaledRows(rows, mean, scale)
    many = is_large(rows.shape, targets.n_outputs)
    if not many:
        rows = (rows - mean) / scale
    with threads_of_blas(rows.size):
        if isinstance(targets, NumberTargets):
            # what the former coefficients leave over; a shift of all targets costs nothing
            if many:
                blocks = scaled.slices(targets.n_outputs)
                now = np.concatenate([scaled.block(part) @ weight.T + bias for part in blocks])
                more_weight, more_bias, strength = ridge(scaled, encoded - now, weights, _ALPHAS)
            else:
                left_over = encoded - (rows @ weight.T + bias)
                more_weight, more_bias, strength = fit_ridge(rows, left_over, weights, _ALPHAS)
            penalty = Penalty(strength, weight)
            weight, bias = weight + more_weight, bias + more_bias
        else:
            known = np.all(seen, axis=0)
            first_seen = np.all(seen | seen_in(encoded, targets.n_outputs), axis=0) & ~known
            _reset(weight, bias, targets, first_seen, known)
            strength = 1 / (PROBE_C * weights.sum())
            n_losses = len(weight) if isinstance(targets, LabelTargets) else 1
            penalty = Penalty(strength / n_losses, weight, bias)  # the loss of labels is a mean
            if many:
                balance = getattr(targets, "balance", None)
                solved = minimum(
                    scaled,
                    labels_of(encoded) if balance is None else encoded,
                    weights,
                    np.column_stack([weight, bias]),
                    strength,
                    balance=balance,
                    is_from_start=True,
                    device=device,
                )
                weight, bias = solved[:, :-1], solved[:, -1]
            else:
                rows_of_targets = as_rows(encoded, targets.n_outputs)
                weight, bias = _solve(
                    rows, rows_of_targets, weights, targets, weight, bias, strength
                )
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
    return penalty


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy(force=True).astype(np.float64)


def _reset(
    weight: np.ndarray, bias: np.ndarray, targets: Targets, reset: np.ndarray, known: np.ndarray
) -> None:
    """Set the coefficients of classes that come for the first time, in place.

    Until then their intercepts were low, for no other reason than that no image had them.
    """
    weight[reset] = 0
    are_exclusive = not isinstance(targets, LabelTargets)
    bias[reset] = bias[known].mean() if are_exclusive and known.any() else 0


def _solve(
    rows: np.ndarray,
    encoded: np.ndarray,
    weights: np.ndarray,
    targets: Targets,
    weight: np.ndarray,
    bias: np.ndarray,
    strength: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of least loss and penalty on the distance to `weight` and `bias`.

    The losses of labels are added up, not averaged: how exactly one is solved does not
    depend on the others.
    """
    start = np.column_stack([weight, bias])
    weights = weights[:, None] / weights.sum()
    if isinstance(targets, LabelTargets):
        absence, presence = targets.balance
        weights = weights * np.where(encoded > 0.5, presence, absence)

    def loss_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = values.reshape(start.shape)
        logits = rows @ coefficients[:, :-1].T + coefficients[:, -1]
        if isinstance(targets, LabelTargets):
            losses = -(encoded * log_expit(logits) + (1 - encoded) * log_expit(-logits))
            errors = weights * (expit(logits) - encoded)
        else:
            losses = -encoded * log_softmax(logits, axis=1)
            errors = weights * (softmax(logits, axis=1) - encoded)
        moved = coefficients - start
        loss = np.sum(weights * losses) + strength / 2 * np.sum(moved**2)
        gradient = np.column_stack([errors.T @ rows, errors.sum(0)]) + strength * moved
        return float(loss), gradient.ravel()

    solution = minimize(
        loss_and_gradient,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "gtol": _TOLERANCE},
    ).x.reshape(start.shape)
    return solution[:, :-1], solution[:, -1]
