"""Loss, learning rates and optimizer of a fit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

from ._config import TrainingConfig
from ._head import TrainablePart
from ._targets import Targets


class WeightedLoss(nn.Module):
    """Mean over a batch of each image's loss times its weight.

    Parameters
    ----------
    kind : {"softmax", "sigmoid", "squared"}
        Cross-entropy of classes, cross-entropy of labels, or squared error; the last
        two are averaged over outputs.
    label_smoothing : float
        Share of a target that is spread over all classes (arXiv 1512.00567), or that
        moves a label towards one half; in training only.
    balance : ndarray of shape (2, n_outputs), default=None
        Weights of the absence and the presence of each label, for "sigmoid".
    dtype : torch.dtype, default=torch.float32
        Precision of `balance`, that of the outputs: not every GPU has float64.
    n_outputs : int, default=0
        Number of outputs, for targets that are positions of classes.
    """

    balance: torch.Tensor | None

    def __init__(
        self,
        kind: str,
        label_smoothing: float = 0.0,
        balance: np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
        n_outputs: int = 0,
    ):
        super().__init__()
        self.kind = kind
        self.n_outputs = n_outputs
        self.label_smoothing = label_smoothing
        weights = None if balance is None else torch.from_numpy(balance).to(dtype)
        self.register_buffer("balance", weights)

    def forward(
        self, outputs: torch.Tensor, targets_and_weights: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        targets, weights = targets_and_weights
        # the loss of validation is that of the targets as they are
        smoothing = self.label_smoothing if self.training else 0.0
        if targets.is_floating_point():  # others are positions of classes
            targets = targets.to(outputs.dtype)
        losses = self._of_each(outputs, targets, smoothing)
        return (losses * weights.to(outputs.dtype)).mean()

    def _of_each(
        self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float
    ) -> torch.Tensor:
        if self.kind == "squared":
            return (outputs - targets).square().mean(1)
        if self.kind == "sigmoid":
            assert self.balance is not None
            absence, presence = self.balance
            weights = torch.lerp(absence.expand_as(targets), presence.expand_as(targets), targets)
            targets = targets + smoothing * (0.5 - targets)
            losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
            return (weights * losses).mean(1)
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=smoothing)


def make_loss(
    targets: Targets, config: TrainingConfig, dtype: torch.dtype = torch.float32
) -> WeightedLoss:
    """Return the loss of a fit, for outputs of precision `dtype`."""
    balance = getattr(targets, "balance", None)
    return WeightedLoss(targets.loss, config.label_smoothing, balance, dtype, targets.n_outputs)


@dataclass(frozen=True)
class WarmUpAndCosine:
    """Factor of the learning rate: it rises linearly and falls to zero as half a cosine.

    As in SGDR (arXiv 1608.03983) without restarts, after the warm-up of arXiv
    1706.02677.
    """

    n_steps: int
    warm_up: float = 0.1  # share of the steps

    def __call__(self, step: int) -> float:
        n_warm_up = max(1, round(self.n_steps * self.warm_up))
        if step < n_warm_up:
            return (step + 1) / n_warm_up
        done = (step - n_warm_up) / max(1, self.n_steps - n_warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def parameter_groups(
    module: TrainablePart,
    *,
    lr: float,
    backbone_lr_scale: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return the groups of the optimizer, with the learning rates of the head and the stages.

    The head learns at `lr`, the last stage at ``lr * backbone_lr_scale``, each one before it at
    `layer_decay` times the rate of the next (layer-wise decay, arXiv 1801.06146). Weights
    of layers decay; biases and the scales of normalisation, which have one dimension,
    don't. "initial_lr" stays what it is while a schedule changes "lr". Parts of the same rate
    share their groups: an optimizer takes a call, and on a GPU a kernel, for each group. A
    parameter that parts share is in the group of the one nearest the head.
    """
    stage_lr = lr * backbone_lr_scale
    parts = [(module.head, lr)]
    for stage in reversed(module.trained_stages()):
        parts.append((stage, stage_lr))
        stage_lr *= layer_decay
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    held: set[nn.Parameter] = set()
    for part, part_lr in parts:
        parameters = [p for p in part.parameters() if p not in held]
        held.update(parameters)
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            if chosen:
                decay = weight_decay if decays else 0.0
                rates = {"lr": part_lr, "initial_lr": part_lr, "weight_decay": decay}
                group = groups.setdefault((part_lr, decays), {"params": [], **rates})
                group["params"] += chosen
    return list(groups.values())


OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], Mapping[str, Any]]] = {
    "adamw": (optim.AdamW, {}),
    "adam": (optim.Adam, {}),
    "sgd": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
}
# Devices on which torch has one call for a step over all parameters. In small networks the
# calls take most of the time of a step.
_FUSED_ON = {"cpu", "cuda"}


def make_optimizer(config: TrainingConfig, groups: Sequence[dict[str, Any]]) -> optim.Optimizer:
    """Return the optimizer of a configuration over groups of parameters."""
    if not groups:
        raise ValueError(
            "no parameter is trained: the head has none, and all stages are frozen; set a lower "
            "freeze_depth, or a head with parameters"
        )
    name = config.optimizer
    params: dict[str, Any] = {}
    optimizer: Callable[..., optim.Optimizer]
    if isinstance(name, str):
        optimizer, defaults = OPTIMIZERS[name]
        device = groups[0]["params"][0].device.type
        params.update(defaults, fused=device in _FUSED_ON)
    else:
        optimizer = name
    params.update(config.optimizer_params or {})
    try:
        return optimizer(list(groups), **params)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"optimizer={name!r} can't be made with optimizer_params={config.optimizer_params!r}: "
            f"{error}; the optimizer must take groups of parameters with their own lr and "
            "weight_decay, which sktransfer sets"
        ) from error
