"""Start the head from a linear probe: a logistic regression on the pooled rows.

A head that starts at random sends large gradients into pretrained stages and spoils
them before it has learned anything; one that starts from a fitted probe does not:
"LP-FT", Kumar et al., arXiv 2202.10054.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from ._heads import HeadParameter, make_head

# Inverse strength of the probe's ridge penalty, on standardised rows. It is a start,
# not the result.
_PROBE_C = 0.01
_PROBE_ITERATIONS = 500
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
        return (rows - self.mean) / self.scale


@torch.inference_mode()
def pooled_rows(stages: nn.Module, activations: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the rows (n, width) that untrained stages make of activations."""
    stages = stages.to(device).eval()
    batches = torch.from_numpy(activations).split(_BATCH_SIZE)
    return np.concatenate([stages(batch.to(device)).float().cpu().numpy() for batch in batches])


def start_head(
    head: HeadParameter, rows: np.ndarray, labels: np.ndarray, n_classes: int
) -> nn.Sequential:
    """Return a head for `rows`: standardised, then what the parameter says.

    A linear head starts from a probe that is fitted here; others start as they are made.
    """
    scaler = StandardScaler().fit(rows)
    module = make_head(head, rows.shape[1], n_classes)
    if isinstance(head, str):
        _fit_probe(module, scaler.transform(rows), labels)
    return nn.Sequential(Standardise(scaler.mean_, scaler.scale_), module)


@torch.no_grad()
def _fit_probe(linear: nn.Linear, rows: np.ndarray, labels: np.ndarray) -> None:
    probe = LogisticRegression(C=_PROBE_C, max_iter=_PROBE_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not be exact
        probe.fit(rows, labels)
    weight, bias = probe.coef_, probe.intercept_
    if linear.out_features == 2:
        # one logit for two classes: half of it for the one, half against the other
        weight, bias = np.vstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
    linear.weight.copy_(torch.from_numpy(weight))
    linear.bias.copy_(torch.from_numpy(bias))
