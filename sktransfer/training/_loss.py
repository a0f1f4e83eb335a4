"""How far outputs are from targets."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class WeightedLoss(nn.Module):
    """Mean over a batch of each image's loss times its weight.

    Parameters
    ----------
    kind : {"softmax", "sigmoid", "squared"}
        Cross-entropy of classes, cross-entropy of labels, or squared error; the last
        two are averaged over outputs.
    label_smoothing : float
        Share of a target that is spread over all classes (arXiv 1512.00567), or that
        moves a label towards one half.
    balance : ndarray of shape (2, n_outputs), default=None
        Weights of the absence and the presence of each label, for "sigmoid".
    """

    def __init__(self, kind: str, label_smoothing: float = 0.0, balance: np.ndarray | None = None):
        super().__init__()
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.register_buffer("balance", None if balance is None else torch.from_numpy(balance))

    def forward(self, outputs: torch.Tensor, targets_and_weights) -> torch.Tensor:
        targets, weights = targets_and_weights
        losses = self._of_each(outputs, targets.to(outputs.dtype))
        return (losses * weights.to(outputs.dtype)).mean()

    def _of_each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.kind == "squared":
            return (outputs - targets).square().mean(1)
        if self.kind == "sigmoid":
            absence, presence = self.balance.to(outputs.dtype)
            weights = torch.lerp(absence.expand_as(targets), presence.expand_as(targets), targets)
            targets = targets + self.label_smoothing * (0.5 - targets)
            losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
            return (weights * losses).mean(1)
        return F.cross_entropy(
            outputs, targets, reduction="none", label_smoothing=self.label_smoothing
        )
