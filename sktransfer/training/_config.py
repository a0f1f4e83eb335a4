"""The configuration of a training: every parameter that says how, in one record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ._data import n_batches

HeadParameter = str | Sequence[int] | Callable[[int, int], nn.Module]

# Least number of epochs when `max_epochs` is not given.
_FEWEST_EPOCHS = 5
_EPOCHS_OF_A_PROBE = 30


@dataclass(frozen=True)
class TrainingConfig:
    """The parameters of training, as the estimators name and document them."""

    head: HeadParameter = "linear"
    dropout: float = 0.0
    optimizer: str | type[Optimizer] = "adamw"
    optimizer_params: Mapping[str, Any] | None = None
    lr: float = 1e-3
    backbone_lr_scale: float = 0.5
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    max_epochs: int | None = None
    n_steps: int = 400
    most_epochs: int = 200
    batch_size: int | str = "auto"
    label_smoothing: float = 0.0
    max_grad_norm: float | None = None
    batch_norm: str = "frozen"
    unfreeze_every: int | None = None
    training_precision: str = "float32"
    mix: str | None = None
    mix_alpha: float = 0.2
    probe_weight: float = 0.0
    n_iter_no_change: int | None = None
    adapt: str | None = None
    adapt_weight: float = 1.0

    def batch_size_of(self, n_samples: int, is_linear_probe: bool) -> int:
        """Return the number of images in a step: all of them where the best head is unique."""
        if isinstance(self.batch_size, str):  # "auto"
            return n_samples if is_linear_probe else min(32, n_samples)
        return min(self.batch_size, n_samples)

    def epochs_of(self, n_samples: int, is_linear_probe: bool) -> int:
        """Return the number of epochs, which follows from that of the images when not given."""
        if self.max_epochs is not None:
            return self.max_epochs
        if is_linear_probe:
            return _EPOCHS_OF_A_PROBE
        n_steps = n_batches(n_samples, self.batch_size_of(n_samples, False))
        return min(self.most_epochs, max(_FEWEST_EPOCHS, round(self.n_steps / n_steps)))
