"""Start the head from a linear probe: a linear model fitted to the pooled rows.

A head that starts at random sends large gradients into pretrained stages and spoils
them before it has learned anything; one that starts from a fitted probe does not:
"LP-FT", Kumar et al., arXiv 2202.10054.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import nn

from ._heads import make_head
from ._recipe import Recipe
from ._targets import ClassTargets, LabelTargets, Targets

# Inverse strength of the probe's ridge penalty, on standardised rows. It is a start,
# not the result.
_PROBE_C = 0.01
_PROBE_ITERATIONS = 500
# Strengths that a regression's probe chooses from, by leaving one out.
_PROBE_ALPHAS = np.logspace(-1, 4, 11)
_BATCH_SIZE = 64


class Standardise(nn.Module):
    """Rows to mean 0 and deviation 1, by the training rows at the start of a fit.

    It makes one learning rate fit every backbone, whatever the scale of its rows.
    """

    def __init__(self, mean: np.ndarray, scale: np.ndarray):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.to(self.mean.dtype) - self.mean) / self.scale


@torch.inference_mode()
def pooled_rows(stages: nn.Module, activations: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the rows (n, width) that untrained stages make of activations."""
    stages = stages.to(device).eval()
    rows = []
    for start in range(0, len(activations), _BATCH_SIZE):
        batch = torch.from_numpy(activations[start : start + _BATCH_SIZE])
        rows.append(stages(batch.to(device)).float().cpu().numpy())
    return np.concatenate(rows)


def start_head(
    recipe: Recipe,
    rows: np.ndarray,
    encoded: np.ndarray,
    weights: np.ndarray,
    counts: np.ndarray,
    targets: Targets,
) -> nn.Sequential:
    """Return a head for `rows`: standardised by `counts`, then what the recipe says.

    A linear head starts from a probe that is fitted here; others start as they are made.
    """
    rows = rows.astype(np.float64)
    scaler = StandardScaler().fit(rows, sample_weight=counts)
    module = make_head(recipe.head, rows.shape[1], targets.n_outputs, recipe.dropout)
    if recipe.head == "linear":
        _fit_probe(module[-1], scaler.transform(rows), encoded, weights, targets)
    return nn.Sequential(Standardise(scaler.mean_, scaler.scale_), module)


def only_a_linear_head(recipe: Recipe, stages: nn.Module) -> bool:
    """Tell whether the best head is unique: everything frozen, and one linear layer."""
    trains_stages = any(True for _ in stages.parameters())
    return recipe.head == "linear" and not recipe.dropout and not trains_stages


@torch.no_grad()
def _fit_probe(linear: nn.Linear, rows, encoded, weights, targets: Targets) -> None:
    if isinstance(targets, ClassTargets):
        weight, bias = _classes(rows, encoded.argmax(1), weights, encoded.shape[1])
    elif isinstance(targets, LabelTargets):
        columns = [
            _logistic(rows, column > 0.5, weights * np.where(column > 0.5, presence, absence))
            for column, absence, presence in zip(encoded.T, *targets.balance, strict=True)
        ]
        weight, bias = (np.vstack(parts) for parts in zip(*columns, strict=True))
    else:
        ridge = RidgeCV(_PROBE_ALPHAS).fit(rows, encoded, sample_weight=weights)
        weight, bias = np.atleast_2d(ridge.coef_), ridge.intercept_
    linear.weight.copy_(torch.from_numpy(weight))
    linear.bias.copy_(torch.from_numpy(np.ravel(bias)))


def _classes(rows, labels, weights, n_classes: int):
    """Return coefficients of all classes; those without an image are made improbable."""
    present = np.unique(labels)
    weight, bias = np.zeros((n_classes, rows.shape[1])), np.full(n_classes, -np.log(len(rows)))
    if len(present) == 1:
        bias[present] = 0
    elif len(present) == 2:
        # one logit for two classes: half of it for the one, half against the other
        coefficients, intercept = _logistic(rows, labels == present[1], weights)
        weight[present] = np.vstack([-coefficients, coefficients]) / 2
        bias[present] = np.ravel([-intercept, intercept]) / 2
    else:
        probe = _fit_logistic(rows, labels, weights)
        weight[present], bias[present] = probe.coef_, probe.intercept_
    return weight, bias


def _logistic(rows, is_positive, weights):
    """Return coefficients (1, width) and intercept (1,) of one logit."""
    if is_positive.all() or not is_positive.any():  # nothing to tell apart
        sign = 1 if is_positive.all() else -1
        return np.zeros((1, rows.shape[1])), np.array([sign * np.log(len(rows))])
    probe = _fit_logistic(rows, is_positive, weights)
    return probe.coef_, probe.intercept_


def _fit_logistic(rows, labels, weights) -> LogisticRegression:
    probe = LogisticRegression(C=_PROBE_C, max_iter=_PROBE_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not be exact
        return probe.fit(rows, labels, sample_weight=weights)
