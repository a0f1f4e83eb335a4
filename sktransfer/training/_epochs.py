"""The state of a training between its epochs: random numbers, validation, early stopping."""

import copy
import statistics
import time
import warnings
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..exceptions import SlowFitWarning
from ._config import TrainingConfig
from ._data import TrainingSet, seed_of
from ._head import TrainablePart
from ._targets import score_outputs

# A fit that takes longer warns, as told by the median time between the ends of its first
# steps, and by its second epoch. The first of all take longer than others.
_SLOW_FIT = 300.0  # s
_STEPS_TO_TELL = 10


class EpochWatcher(Protocol):
    """Is told of the epochs of a training, and may end it."""

    def begin_training(self, n_epochs: int) -> None: ...

    def begin_epoch(self) -> None: ...

    def end_epoch(self, module: nn.Module, epoch: int) -> bool:
        """Return whether training is to stop; epochs are numbered from 1."""

    def end_training(self) -> None: ...


def start_epoch(
    module: TrainablePart, config: TrainingConfig, seed: int, epoch: int, device: torch.device
) -> None:
    """Seed an epoch, numbered from 0, and set which stages train in it.

    What is drawn in an epoch is a function of the seed and the epoch alone, so that
    training can be resumed. The caller restores the state of the generators after the fit.
    """
    seed_generators(seed_of(seed, epoch), device)
    if config.unfreeze_every is not None:
        module.set_trainable(epoch // config.unfreeze_every)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of `device`, and that of no other device.

    ``torch.manual_seed`` seeds those of all devices, and ``torch.cuda.manual_seed`` that
    of the current GPU, which need not be the one that trains.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def check_loss(loss: float, epoch: int, lr: float) -> None:
    """Raise when the training loss of an epoch, numbered from 1, is not a finite number."""
    if not np.isfinite(loss):
        raise ValueError(
            f"training diverged: the loss of epoch {epoch} is not a finite number. Lower "
            f"lr={lr}, or set max_grad_norm=1"
        )


class ValidationOutputs:
    """Collects the outputs for a validation set, batch by batch, and scores them."""

    def __init__(self) -> None:
        self._outputs: list[torch.Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._outputs)

    def append(self, outputs: torch.Tensor) -> None:
        """Add the outputs of the next batch."""
        self._outputs.append(outputs)  # where they are: a copy would wait for the device

    def score(self, kind: str, validation: TrainingSet) -> float:
        """Return accuracy or R² over the images, by their counts, for a kind of loss."""
        outputs = torch.cat(self._outputs).cpu().numpy()
        return score_outputs(kind, outputs, validation.targets.numpy(), validation.counts)


class EarlyStop:
    """Keeps the state of a module at the epoch of least validation loss.

    Parameters
    ----------
    patience : int
        Number of epochs without a lower loss after which training stops.

    Attributes
    ----------
    epoch : int
        The epoch of the least loss, from 1; 0 before the first epoch.
    loss : float
        The least loss.
    state : dict or None
        State of the module at the end of that epoch.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.epoch = 0
        self.loss = float("inf")
        self.state: dict[str, Any] | None = None

    def update(self, epoch: int, loss: float, module: nn.Module) -> bool:
        """Compare the loss of an epoch with the least one; return whether training should stop."""
        if self.state is None or loss < self.loss:
            self.epoch, self.loss = epoch, float(loss)
            self.state = copy.deepcopy(module.state_dict())
        return self.is_over(epoch)

    def is_over(self, epoch: int) -> bool:
        """Return whether the epoch of the least loss is at least `patience` epochs ago."""
        return epoch - self.epoch >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Load the state of the best epoch into the module."""
        assert self.state is not None  # an epoch has ended
        module.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"epoch": self.epoch, "loss": self.loss, "state": self.state}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Set the state that `state_dict` returned."""
        self.epoch, self.loss, self.state = values["epoch"], values["loss"], values["state"]


class FitDuration:
    """Estimates the time of a fit from its first steps and epochs; warns once if it takes minutes.

    The steps tell soonest. The second epoch tells what is done once an epoch as well: new
    views of all images, and validation.

    Parameters
    ----------
    n_epochs : int
    n_steps : int
        Steps of an epoch.
    n_stages : int
        Stages of the backbone that train.
    """

    def __init__(self, n_epochs: int, n_steps: int, n_stages: int):
        self._n_epochs = n_epochs
        self._n_steps = n_steps
        self._n_stages = n_stages
        self._step_ends: list[float] = []  # of the first ones
        self._epoch_ends: list[float] = []
        self._has_warned = False

    def end_step(self) -> None:
        """Note that a step has ended."""
        if len(self._step_ends) > _STEPS_TO_TELL:
            return
        self._step_ends.append(time.monotonic())
        if len(self._step_ends) > _STEPS_TO_TELL:
            pairs = zip(self._step_ends, self._step_ends[1:], strict=False)
            median = statistics.median(end - start for start, end in pairs)
            self._check(median * self._n_epochs * self._n_steps)

    def end_epoch(self) -> None:
        """Note that an epoch has ended."""
        if len(self._epoch_ends) < 2:
            self._epoch_ends.append(time.monotonic())
            if len(self._epoch_ends) == 2:
                start, end = self._epoch_ends
                self._check((end - start) * self._n_epochs)

    def _check(self, seconds: float) -> None:
        if seconds < _SLOW_FIT or self._has_warned:
            return
        self._has_warned = True
        trained = "a head"
        if self._n_stages:
            trained += f" and {self._n_stages} stage{'s' * (self._n_stages > 1)} of the backbone"
        warnings.warn(
            f"this fit, which trains {trained}, takes up to about {max(1, round(seconds / 60))} "
            f"minutes ({self._n_epochs} epochs of {self._n_steps} steps), and a search takes "
            "that for each candidate and fold. A lower max_epochs, a freeze_depth nearer to the "
            "end, a smaller image_size, and recipe='fast' take less",
            SlowFitWarning,
            stacklevel=2,
        )
