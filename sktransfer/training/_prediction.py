"""From a network's outputs to what an estimator predicts, as a module."""

import numpy as np
import torch
from torch import nn

from ._targets import ClassTargets, LabelTargets, Targets


class InUnits(nn.Module):
    """Standardised numbers to numbers in the unit of the training images."""

    def __init__(self, mean: np.ndarray, scale: np.ndarray):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64))

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.double() * self.scale + self.mean


def prediction_of(targets: Targets) -> nn.Module:
    """Return the module that makes probabilities of logits, or numbers of standardised ones."""
    if isinstance(targets, ClassTargets):
        return nn.Softmax(dim=1)
    if isinstance(targets, LabelTargets):
        return nn.Sigmoid()
    return InUnits(targets.mean, targets.scale)
