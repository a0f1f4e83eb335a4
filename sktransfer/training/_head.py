"""What is trained: the stages after the cut, and a head that starts from a linear probe.

A head that starts at random sends large gradients into pretrained stages and spoils
them before it has learned anything; one that starts from a fitted probe does not:
"LP-FT", Kumar et al., arXiv 2202.10054.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ._config import HeadParameter, TrainingConfig
from ._large_probe import known_large_probe
from ._probe import is_large, known_probe, mean_and_scale
from ._scaled_rows import ScaledRows
from ._targets import Targets

_CPU = torch.device("cpu")
# Multiplications of a pass of a head alone, up to which one thread is faster than two
# (benchmarks/bench_grid_search.py: 82 thousand).
_SMALL_PASS = 2**21


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

    probe: nn.Sequential | None
    _images_at_once: int | None = None

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
        self.probe, self.probe_weight = None, 0.0

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        outputs = self._trained(activations)
        if self.probe is None or self.training:
            return outputs
        weight = self.probe_weight
        return (1 - weight) * outputs + weight * self.probe(activations)

    def _trained(self, activations: torch.Tensor) -> torch.Tensor:
        n, most = len(activations), self._images_at_once
        if not self.training or most is None or n <= most:
            return self.head(self.stages(activations))
        # What the stages compute is not kept for the backward pass, which computes it again with
        # the same random numbers. Their rows are small, and a head may need those of all images.
        stages_train = bool(self.trained_stages())
        passed = self.stages if stages_train else nn.Sequential(self.stages, self.head)
        outputs = torch.cat(
            [
                checkpoint(passed, part, use_reentrant=False)
                for part in activations.tensor_split(-(-n // most))
            ]
        )
        return self.head(outputs) if stages_train else outputs

    def pass_at_once(self, n_images: int | None) -> None:
        """Let at most so many images of a batch pass the stages at once in training, None all.

        Outputs and gradients are those of the whole batch, whatever the head computes of it.
        """
        self._images_at_once = n_images

    def train(self, mode: bool = True) -> "TrainablePart":
        super().train(mode)
        if self.probe is not None:
            self.probe.eval()
        if self.batch_norm == "frozen":
            for module in self.stages.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def add_probe(self, weight: float) -> None:
        """Give the stages and the head as they are now a share in the outputs after training.

        The copy does not train. Few images teach the stages what other images contradict;
        the copy makes up for it in part ("output-space ensembles", arXiv 2109.01903).
        """
        copies = copy.deepcopy(self.stages), copy.deepcopy(self.head)
        self.probe = nn.Sequential(*copies).requires_grad_(False).eval()
        self.probe_weight = weight

    def add_penalty_to_gradients(self) -> None:
        """Add the gradient of the penalty, if there is one, to that of the linear head."""
        if self.penalty is not None:
            self.penalty.add_gradient(linear_of(self.head))

    def trained_stages(self) -> list[nn.Module]:
        """Return the stages that have parameters, from the cut to the head."""
        return [stage for stage in self.stages.children() if any(True for _ in stage.parameters())]

    def threads_for(self, n_images: int) -> int | None:
        """Return the threads that a pass of some images is worth; None is all of them.

        Two threads wait for each other longer than one takes for a small head. The number
        follows from the problem and not from the machine, so that a fit and its predictions
        are the same everywhere.
        """
        if self.trained_stages():
            return None
        n_weights = sum(parameter.numel() for parameter in self.parameters())
        return 1 if n_weights * n_images <= _SMALL_PASS else None

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
    device: torch.device = _CPU,
) -> tuple[nn.Sequential, Penalty | None]:
    """Return a head for `rows`: their standardisation by `counts`, then the configured module.

    A linear head starts from a probe that is fitted here, on `device` where rows are many. Its
    penalty is returned as well; others start as they are made.
    """
    module = make_head(config.head, rows.shape[1], targets.n_outputs, config.dropout)
    mean, scale = mean_and_scale(rows, counts, targets.n_outputs)
    head = nn.Sequential(Standardise(mean, scale), module)
    if config.head != "linear":
        return head, None
    if is_large(rows.shape, targets.n_outputs):
        scaled = ScaledRows(rows, mean, scale)
        probe = known_large_probe(scaled, encoded, weights, targets, device)
    else:
        probe = known_probe((rows - mean) / scale, encoded, weights, targets)
    linear = linear_of(head)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(probe.weight))
        linear.bias.copy_(torch.from_numpy(probe.bias))
    return head, Penalty(probe.strength)


def is_linear_probe(config: TrainingConfig, stages: nn.Module) -> bool:
    """Return whether one linear layer is all that trains, so that the best head is unique.

    With a loss on images of another domain there may be several.
    """
    trains_stages = any(True for _ in stages.parameters())
    is_convex = not config.dropout and config.adapt is None
    return config.head == "linear" and is_convex and not trains_stages
