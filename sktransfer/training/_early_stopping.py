"""Early stopping: remember the best epoch, and say when to stop."""

import copy
from typing import Any

from torch import nn


class EarlyStop:
    """Keeps the state of a module at the epoch of least validation loss.

    Parameters
    ----------
    patience : int
        Epochs without a lower loss after which training stops.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.number = 0  # from 1; 0 before the first epoch
        self.loss = float("inf")
        self.state: dict[str, Any] | None = None

    def update(self, epoch: int, loss: float, module: nn.Module) -> bool:
        """Take an epoch's loss; return whether training should stop."""
        if self.state is None or loss < self.loss:
            self.number, self.loss = epoch, float(loss)
            self.state = copy.deepcopy(module.state_dict())
        return self.is_over(epoch)

    def is_over(self, epoch: int) -> bool:
        """Tell whether the best epoch is so long ago that training should stop."""
        return epoch - self.number >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Give the module the weights of the best epoch."""
        module.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number, "loss": self.loss, "state": self.state}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        self.number, self.loss, self.state = values["number"], values["loss"], values["state"]
