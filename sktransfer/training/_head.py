"""What is trained: the stages after the cut, and a head that starts from a linear probe.

A head that starts at random sends large gradients into pretrained stages and spoils
them before it has learned anything; one that starts from a fitted probe does not:
"LP-FT", Kumar et al., arXiv 2202.10054.
"""

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from threadpoolctl import ThreadpoolController
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._config import HeadParameter, TrainingConfig
from ._targets import ClassTargets, LabelTargets, Targets


@dataclass(frozen=True)
class Penalty:
    """What the objective of a linear head that trains alone has beside the mean loss.

    It is half of `strength` times the squared distance of the coefficients from these.

    Parameters
    ----------
    strength : float
    weight : ndarray of shape (n_outputs, width) or None
        None is zeros.
    bias : ndarray of shape (n_outputs,) or None
        None: intercepts are free.
    """

    strength: float
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    def add_gradient(self, linear: nn.Linear) -> None:
        """Add its gradient to that of a layer."""
        self._add(linear.weight, self.weight)
        if self.bias is not None:
            self._add(linear.bias, self.bias)

    def _add(self, parameter: torch.Tensor, centre: np.ndarray | None) -> None:
        if parameter.grad is None:
            return  # a callback has fixed it
        distance = parameter.detach()
        if centre is not None:
            distance = distance - torch.as_tensor(
                centre, dtype=parameter.dtype, device=parameter.device
            )
        parameter.grad.add_(distance, alpha=self.strength)


class TrainablePart(nn.Module):
    """The module that is trained: the stages after the cut, followed by the head.

    Frozen stages are no part of this module, so nothing that happens to it can change
    them.

    Parameters
    ----------
    stages : nn.Module
    head : nn.Module
    batch_norm : {"frozen", "train"}
        "frozen" keeps the statistics that the backbone was trained with: those of a
        batch of a few dozen images from one task are worse. Scale and shift train
        either way.
    penalty : Penalty, default=None
        That of a linear head that trains alone.
    """

    def __init__(
        self,
        stages: nn.Module,
        head: nn.Module,
        batch_norm: str = "frozen",
        penalty: Penalty | None = None,
    ):
        super().__init__()
        self.stages = stages
        self.head = head
        self.batch_norm = batch_norm
        self.penalty = penalty

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(activations))

    def train(self, mode: bool = True) -> "TrainablePart":
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self.stages.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def add_penalty_to_gradients(self) -> None:
        """Add the gradient of the penalty, if there is one, to that of the linear head."""
        if self.penalty is not None:
            self.penalty.add_gradient(linear_of(self.head))

    def trained_stages(self) -> list[nn.Module]:
        """Return the stages that have parameters, from the cut to the head."""
        return [stage for stage in self.stages.children() if any(True for _ in stage.parameters())]

    def set_trainable(self, n_stages: int | None) -> None:
        """Make the head and the last `n_stages` trainable, and no other stage; None is all."""
        stages = self.trained_stages()
        n_fixed = 0 if n_stages is None else max(0, len(stages) - n_stages)
        for position, stage in enumerate(stages):
            stage.requires_grad_(position >= n_fixed)


def make_head(head: HeadParameter, n_in: int, n_out: int, dropout: float = 0.0) -> nn.Module:
    """Return a new head for the value of the parameter `head`.

    ``"linear"`` is one layer; a tuple of widths has a hidden layer for each before it;
    a callable makes the module itself. Dropout comes before each linear layer.
    """
    if callable(head):
        return _check_head(head, n_in, n_out)
    layers: list[nn.Module] = []
    for width in () if isinstance(head, str) else head:
        layers += [*_drop(dropout), nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    layers += [*_drop(dropout), nn.Linear(n_in, n_out)]
    return nn.Sequential(*layers)


def _drop(dropout: float) -> list[nn.Module]:
    return [nn.Dropout(dropout)] if dropout else []


def _check_head(head: Callable[[int, int], nn.Module], n_in: int, n_out: int) -> nn.Module:
    module = head(n_in, n_out)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"head={head!r} returned {module!r} for ({n_in}, {n_out}); it must return an "
            "nn.Module that maps rows (n, n_in) to (n, n_out)"
        )
    with torch.inference_mode():
        shape = tuple(module.eval()(torch.zeros(2, n_in)).shape)
    if shape != (2, n_out):
        raise ValueError(
            f"head={head!r} maps rows (2, {n_in}) to {shape}; it must map them to (2, {n_out})"
        )
    return module


def linear_of(head: nn.Module) -> nn.Linear:
    """Return the last layer of a standardisation followed by a linear head."""
    _, module = head.children()
    *_, linear = module.children()
    assert isinstance(linear, nn.Linear)
    return linear


# Inverse strength of the probe's ridge penalty, on standardised rows.
PROBE_C = 0.03
_PROBE_ITERATIONS = 500
# Strengths that a regression's probe chooses from, by leaving one out.
_PROBE_ALPHAS = np.logspace(-1, 4, 11)
_MANY_VALUES = 2**22


class Probe(NamedTuple):
    """A linear model of rows.

    Attributes
    ----------
    weight : ndarray of shape (n_outputs, width)
    bias : ndarray of shape (n_outputs,)
    strength : float
        That of the penalty on the distance of `weight` from 0, which it has been fitted
        with.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float


# Candidates of a search that differ only in how they train share one probe for each fold.
_known_probes: dict[bytes, Probe] = {}
_N_KNOWN_PROBES = 16


# Least deviation that a column of rows is divided by, as a share of the median of all. What
# hardly varies in the images of a fit varies more in others, and would be the largest of all
# values there.
_LEAST_SCALE = 0.3
_ROUNDING = 1e-10  # deviations that a column of equal numbers may have, as a share of them


def mean_and_scale(rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what to subtract from the columns of rows, and what to divide them by."""
    rows = rows.astype(np.float64)
    mean = np.average(rows, axis=0, weights=counts)
    deviations = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=counts))
    varies = deviations > _ROUNDING * np.abs(mean)
    if not varies.any():
        return mean, np.ones_like(mean)
    return mean, np.maximum(deviations, _LEAST_SCALE * np.median(deviations[varies]))


class Standardise(nn.Module):
    """Standardises rows by mean and deviation of the training rows at the start of a fit.

    It makes one learning rate fit every backbone, whatever the scale of its rows.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: np.ndarray, scale: np.ndarray):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.to(self.mean.dtype) - self.mean) / self.scale


def start_head(
    config: TrainingConfig,
    rows: np.ndarray,
    encoded: np.ndarray,
    weights: np.ndarray,
    counts: np.ndarray,
    targets: Targets,
) -> tuple[nn.Sequential, Penalty | None]:
    """Return a head for `rows`: their standardisation by `counts`, then the configured module.

    A linear head starts from a probe that is fitted here, whose penalty is returned as
    well; others start as they are made.
    """
    module = make_head(config.head, rows.shape[1], targets.n_outputs, config.dropout)
    mean, scale = mean_and_scale(rows, counts)
    head = nn.Sequential(Standardise(mean, scale), module)
    penalty = None
    if config.head == "linear":
        key = _digest((rows, encoded, weights, counts), targets)
        if key not in _known_probes:
            while len(_known_probes) >= _N_KNOWN_PROBES:
                del _known_probes[next(iter(_known_probes))]
            scaled = (rows - mean) / scale
            with threads_of_blas(scaled.size):
                _known_probes[key] = fit_probe(scaled, encoded, weights, targets)
        weight, bias, strength = _known_probes[key]
        penalty = Penalty(strength)
        linear = linear_of(head)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
    return head, penalty


def _digest(arrays: Sequence[np.ndarray], targets: Targets) -> bytes:
    """Return a digest of everything that a probe depends on."""
    digest = hashlib.blake2b(targets.loss.encode(), digest_size=16)
    for array in (*arrays, getattr(targets, "balance", None)):
        if array is not None:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def threads_of_blas(n_values: int) -> AbstractContextManager:
    """Return a context in which a small problem uses one thread: more would slow it down."""
    return nullcontext() if n_values > _MANY_VALUES else _blas().limit(limits=1, user_api="blas")


@functools.cache
def _blas() -> ThreadpoolController:
    return (
        ThreadpoolController()
    )  # it searches the loaded libraries, which takes longer than a probe


def is_linear_probe(config: TrainingConfig, stages: nn.Module) -> bool:
    """Return whether one linear layer is all that trains, so that the best head is unique."""
    trains_stages = any(True for _ in stages.parameters())
    return config.head == "linear" and not config.dropout and not trains_stages


def fit_probe(
    rows: np.ndarray, encoded: np.ndarray, weights: np.ndarray, targets: Targets
) -> Probe:
    """Return the linear model of rows (n, width) and encoded targets (n, n_outputs)."""
    strength = 1 / (PROBE_C * weights.sum())  # of scikit-learn's penalty, for the mean loss
    if isinstance(targets, ClassTargets):
        return _classes(rows, encoded.argmax(1), weights, encoded.shape[1], strength)
    if isinstance(targets, LabelTargets):
        columns = [
            _logistic(rows, column > 0.5, weights * np.where(column > 0.5, presence, absence))
            for column, absence, presence in zip(encoded.T, *targets.balance, strict=True)
        ]
        weight, bias = (np.vstack(parts) for parts in zip(*columns, strict=True))
        return Probe(weight, np.ravel(bias), strength / len(weight))
    return fit_ridge(rows, encoded, weights, _PROBE_ALPHAS)


def fit_ridge(
    rows: np.ndarray, encoded: np.ndarray, weights: np.ndarray, alphas: np.ndarray
) -> Probe:
    """Return the linear regression of least squared error, its penalty one of `alphas`."""
    # without one image, none is left
    ridge = RidgeCV(alphas) if len(rows) > 1 else Ridge(alphas[0])
    ridge.fit(rows, encoded, sample_weight=weights)
    alpha = getattr(ridge, "alpha_", alphas[0])
    strength = 2 * alpha / (encoded.shape[1] * weights.sum())  # the loss is a mean
    return Probe(np.atleast_2d(ridge.coef_), np.ravel(ridge.intercept_), strength)


def _classes(
    rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, n_classes: int, strength: float
) -> Probe:
    """Return the coefficients of all classes; a class without an image gets a low intercept."""
    present = np.unique(labels)
    weight, bias = np.zeros((n_classes, rows.shape[1])), np.full(n_classes, -np.log(len(rows)))
    if len(present) == 1:
        bias[present] = 0
    elif len(present) == 2:
        # the one logit of two classes is the difference of theirs, which get half of it each
        coefficients, intercept = _logistic(rows, labels == present[1], weights)
        weight[present] = np.vstack([-coefficients, coefficients]) / 2
        bias[present] = np.ravel([-intercept, intercept]) / 2
        strength *= 2  # the squares of two halves are half of the square
    else:
        probe = _fit_logistic(rows, labels, weights)
        weight[present], bias[present] = probe.coef_, probe.intercept_
    return Probe(weight, bias, strength)


def _logistic(
    rows: np.ndarray, is_positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (1, width) and intercept (1,) of one logit."""
    if is_positive.all() or not is_positive.any():  # there is one class only
        sign = 1 if is_positive.all() else -1
        return np.zeros((1, rows.shape[1])), np.array([sign * np.log(len(rows))])
    probe = _fit_logistic(rows, is_positive, weights)
    return probe.coef_, probe.intercept_


def _fit_logistic(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    probe = LogisticRegression(C=PROBE_C, max_iter=_PROBE_ITERATIONS)
    with warnings.catch_warnings():
        # it is trained from here on
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(rows, labels, sample_weight=weights)
