"""Targets: ``y`` as a row of numbers for each image, their decoding, and their score.

Every kind of target is a row of floats, so that one training set, one mixing of images
and one place for weights serve all of them. Where rows of classes would take much memory, the
position of the class takes the place of the row.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import log_expit, log_softmax
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler
from torch import nn

# Values of the rows of classes, above which there are positions only: 128 MiB in float32.
_MANY_VALUES = 2**25


@dataclass(frozen=True)
class ClassTargets:
    """One class of several for each image; rows are one-hot, and where they are many, positions."""

    n_outputs: int
    loss: str = field(default="softmax", init=False)

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Return rows (n, n_outputs), float32, or (n,), int64, for positions among the classes."""
        if len(labels) * self.n_outputs > _MANY_VALUES:
            return labels.astype(np.int64)
        return np.eye(self.n_outputs, dtype=np.float32)[labels]

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return logarithms of the probability of each class and of all others, stacked."""
        yes = log_softmax(logits, axis=1)
        with np.errstate(
            divide="ignore"
        ):  # the logarithm of 0, for the others of a class with probability 1
            return np.stack([yes, np.log(-np.expm1(yes))])


@dataclass(frozen=True, eq=False)
class LabelTargets:
    """Any number of labels for each image; rows are 0 or 1.

    `balance` (2, n_outputs) holds the weights of a label's absence and its presence.
    """

    balance: np.ndarray
    loss: str = field(default="sigmoid", init=False)

    @classmethod
    def of(cls, labels: np.ndarray, weights: np.ndarray, balanced: bool) -> "LabelTargets":
        """Return targets in which, if `balanced`, absence and presence weigh the same."""
        if not balanced:
            return cls(np.ones((2, labels.shape[1])))
        present = np.average(labels, axis=0, weights=weights)
        shares = np.clip(np.stack([1 - present, present]), 1 / len(labels), 1)
        return cls(0.5 / shares)

    @property
    def n_outputs(self) -> int:
        return self.balance.shape[1]

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Return rows (n, n_outputs), float32."""
        return np.ascontiguousarray(labels, dtype=np.float32)

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return logarithms of the probability of each label and of its absence, stacked."""
        return np.stack([log_expit(logits), log_expit(-logits)])


@dataclass(frozen=True, eq=False)
class NumberTargets:
    """One or more numbers for each image; rows are standardised by the training images.

    A network learns targets of mean 0 and deviation 1 at the rate that suits its head,
    whatever their unit.
    """

    mean: np.ndarray
    scale: np.ndarray
    loss: str = field(default="squared", init=False)

    @classmethod
    def of(cls, numbers: np.ndarray, weights: np.ndarray) -> "NumberTargets":
        """Return the targets whose unit is that of `numbers` (n, n_outputs)."""
        scaler = StandardScaler().fit(numbers, sample_weight=weights)
        return cls(scaler.mean_, scaler.scale_)

    @property
    def n_outputs(self) -> int:
        return len(self.mean)

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """Return rows (n, n_outputs), float64."""
        return (numbers - self.mean) / self.scale

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return numbers (n, n_outputs), float64, in the unit of the training images."""
        return outputs * self.scale + self.mean


Targets = ClassTargets | LabelTargets | NumberTargets


def labels_of(encoded: np.ndarray) -> np.ndarray:
    """Return the positions (n,) of encoded classes."""
    return encoded if encoded.ndim == 1 else encoded.argmax(1)


def as_rows(encoded: np.ndarray, n_outputs: int) -> np.ndarray:
    """Return encoded targets as rows, those of positions too."""
    if encoded.ndim > 1:
        return encoded
    return np.eye(n_outputs, dtype=np.float32)[encoded]


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return columns one after the other; of encoded targets, where some are positions, all are."""
    if first.ndim == second.ndim:
        return np.concatenate([first, second])
    return np.concatenate([labels_of(first), labels_of(second)])


def score_outputs(
    loss: str, outputs: np.ndarray, encoded: np.ndarray, weights: np.ndarray
) -> float:
    """Return accuracy of classes or sets of labels, or R² of numbers."""
    if loss == "squared":
        return float(r2_score(encoded, outputs, sample_weight=weights))
    if loss == "sigmoid":
        return float(accuracy_score(encoded > 0.5, outputs > 0, sample_weight=weights))
    return float(accuracy_score(labels_of(encoded), outputs.argmax(1), sample_weight=weights))


class Rescale(nn.Module):
    """Maps standardised numbers to numbers in the unit of the training images."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: np.ndarray, scale: np.ndarray):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64))

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.double() * self.scale + self.mean


def prediction_of(targets: Targets) -> nn.Module:
    """Return the module that maps outputs to probabilities, or to numbers in their unit."""
    if isinstance(targets, ClassTargets):
        return nn.Softmax(dim=1)
    if isinstance(targets, LabelTargets):
        return nn.Sigmoid()
    return Rescale(targets.mean, targets.scale)
