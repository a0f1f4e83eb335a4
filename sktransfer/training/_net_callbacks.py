"""Callbacks of the skorch net, ours and the user's, and what a user may give to the net."""

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler

from ._epochs import EpochWatcher, ValidationOutputs, check_loss, start_epoch

# Arguments of skorch's net that follow from the configuration and the images.
_OURS = {
    "module",
    "criterion",
    "optimizer",
    "lr",
    "max_epochs",
    "batch_size",
    "iterator_train",
    "iterator_valid",
    "dataset",
    "train_split",
    "device",
    "verbose",
}


class EndOfTraining(Exception):
    """Raised between epochs by early stopping, and caught in `partial_fit`."""


class Epochs(Callback):
    """Calls the functions of `_epochs` for a `TransferNet`, after other callbacks."""

    def __init__(self, watcher: EpochWatcher | None = None):
        self.watcher = watcher

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.begin_training(net.n_epochs - len(net.history))

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.begin_epoch()
        epoch, device = len(net.history) - 1, torch.device(net.device)
        start_epoch(net.module_, net.config, net.seed, epoch, device)
        if net.adaptation is not None:
            net.adaptation.start_epoch(epoch, net.on_device_)
        self.validated_ = ValidationOutputs()

    def on_batch_end(
        self, net: Any, training: bool = False, y_pred: Any = None, **kwargs: Any
    ) -> None:
        if not training:
            self.validated_.append(y_pred)
            return
        net.duration_.end_step()
        net.bar_.update()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        epoch, loss = len(net.history), net.history[-1, "train_loss"]
        check_loss(loss, epoch, net.config.lr)
        net.history.record("lr", net.optimizer_.param_groups[0]["lr"])
        if net.adaptation is not None:
            net.history.record("adapt_loss", net.adaptation.mean_loss())
            check_loss(net.history[-1, "adapt_loss"], epoch, net.config.lr)
        if self.validated_:
            score = self.validated_.score(net.criterion_.kind, net.train_split.validation)
            net.history.record("valid_score", score)
        stop = net.best_ is not None and net.best_.update(
            epoch, net.history[-1, "valid_loss"], net.module_
        )
        if self.watcher is not None:
            stop = self.watcher.end_epoch(net.module_, epoch) or stop
        net.save_checkpoint()
        net.duration_.end_epoch()
        net.bar_.set_note(f"epoch {epoch} of {net.n_epochs}, train loss {loss:.4f}")
        if stop:
            raise EndOfTraining

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self.validated_ = ValidationOutputs()  # the last ones are on the device
        net.module_.set_trainable(None)
        if net.best_ is not None:
            net.best_.restore(net.module_)
            net.best_.state = None  # the module holds it now
        if self.watcher is not None:
            self.watcher.end_training()


def listens(callback: Any, method_name: str) -> bool:
    """Return whether a callback has a method that is not that of the base, which does nothing."""
    own = getattr(type(callback), method_name, None)
    is_own = own is not getattr(Callback, method_name, None)
    return is_own or method_name in getattr(callback, "__dict__", ())


def print_plainly(line: str) -> None:
    """Print a line of skorch's table; its colours are for terminals alone."""
    is_terminal = hasattr(sys.stdout, "isatty") and sys.stdout.isatty()
    print(line if is_terminal else re.sub(r"\x1b\[\d*m", "", line))


def check_net_params(net_params: Mapping[str, Any], owner: str) -> None:
    """Raise for a name that skorch's net does not take, or that the estimator sets itself."""
    known = set(inspect.signature(NeuralNet.__init__).parameters) - {"self", "kwargs"}
    for name in net_params:
        root = name.split("__")[0]
        if root in _OURS or name == "callbacks":
            raise ValueError(
                f"net_params must not hold {name!r}, which follows from the parameters of {owner}"
            )
        if root not in known:
            raise ValueError(
                f"net_params has {name!r}, which is no argument of skorch.NeuralNet; it takes "
                f"{', '.join(sorted(known - _OURS))}"
            )


def check_callbacks(callbacks: Sequence[Any], owner: str) -> None:
    """Raise for a callback whose effect this net would overwrite."""
    for callback in callbacks:
        callback = callback[1] if isinstance(callback, tuple) else callback
        if isinstance(callback, LRScheduler):
            raise ValueError(
                "callbacks must not hold skorch's LRScheduler: rates follow from the parameters "
                f"lr, backbone_lr_scale and layer_decay of {owner}, with a warm-up and a cosine"
            )
