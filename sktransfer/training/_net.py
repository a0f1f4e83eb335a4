"""The skorch net that trains the stages after the cut. Only this file imports skorch."""

import copy
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochTimer,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
)
from skorch.utils import TeeGenerator
from torch import nn

from ..runtime._display import Display
from ._adaptation import Adaptation
from ._checkpoint import Checkpoint
from ._config import TrainingConfig
from ._data import Batch, Batches, TrainingSet, mix_batch, n_batches
from ._epochs import (
    EarlyStop,
    EpochWatcher,
    FitDuration,
    ValidationOutputs,
    check_loss,
    start_epoch,
)
from ._head import TrainablePart
from ._optim import WarmUpAndCosine, WeightedLoss, make_optimizer, parameter_groups
from ._parts import Parts, in_parts
from ._resident import ViewsOnDevice, is_host, moved

# Images of a batch that is validated on, on other devices than the CPU: its size changes nothing.
_VALIDATION_BATCH = 256

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


class _EndOfTraining(Exception):
    """Raised between epochs by early stopping, and caught in `partial_fit`."""


class TransferNet(NeuralNet):
    """A skorch net that trains as a `TrainingConfig` says, and can be resumed."""

    config: TrainingConfig  # `make_net` gives it always
    # In training, both anew in each epoch. A walk over all modules takes as long as the rest of a
    # step does in Python.

    def __init__(
        self,
        *args: Any,
        config: Any = None,
        n_epochs: int = 1,
        seed: int = 0,
        checkpoint: Checkpoint | None = None,
        adaptation: Adaptation | None = None,
        part_size: int | None = None,
        **kwargs: Any,
    ):
        self.config = config
        self.part_size = part_size
        self.n_epochs = n_epochs
        self.seed = seed
        self.checkpoint = checkpoint
        self.adaptation = adaptation
        super().__init__(*args, **kwargs)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        callbacks = [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring(name="valid_loss")),
        ]
        # PrintLog makes its table even when it does not print it
        if self.verbose > 1:
            callbacks.append(("print_log", PrintLog(sink=_print_plainly)))
        return callbacks

    def initialize_optimizer(self, triggered_directly: Any = None) -> "TransferNet":
        groups = parameter_groups(
            self.module_,
            lr=self.config.lr,
            backbone_lr_scale=self.config.backbone_lr_scale,
            layer_decay=self.config.layer_decay,
            weight_decay=self.config.weight_decay,
        )
        self.optimizer_ = make_optimizer(self.config, groups)
        self.n_steps_done_ = 0
        return self

    # one step

    def _set_training(self, training: bool = True) -> None:
        # a walk over all modules takes longer than a step of a linear head
        if self.module_.training != training:
            super()._set_training(training)

    def train_step(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        """Train on a batch, without the closure of skorch, which no optimizer here needs."""
        factor = self.schedule_(self.n_steps_done_)
        for group in self.optimizer_.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._drop_gradients()
        step = self._step_with_gradients(self._mixed(batch))
        self.module_.add_penalty_to_gradients()
        if self.config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.module_.parameters(), self.config.max_grad_norm)
        self.notify(
            "on_grad_computed",
            named_parameters=TeeGenerator(self.get_all_learnable_params()),
            batch=batch,
            training=True,
        )
        self.optimizer_.step()
        self.n_steps_done_ += 1
        return step

    def _step_with_gradients(self, batch: Batch) -> dict[str, Any]:
        """Add the gradients of a batch, and of one of the target, to none; return its loss."""
        n, adaptation = len(batch[0]), self.adaptation
        if adaptation is None:
            return self.parts_.run(
                n, lambda size: in_parts(self.train_step_single, batch, size), self._drop_gradients
            )
        of_target = adaptation.next_batch()
        undo_statistics = adaptation.undo_of(self.module_)

        def undo() -> None:
            self._drop_gradients()
            undo_statistics()

        def compute(size: int) -> dict[str, Any]:
            # rows are standardised by their batch, and pairs of classes compared over all of it
            self.module_.pass_at_once(size)
            step = self.train_step_single(batch)
            adaptation.add_gradients(self.module_, self.infer, of_target)
            return step

        return self.parts_.run(max(n, len(of_target)), compute, undo)

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        step = super().validation_step
        return self.parts_.run(len(batch[0]), lambda size: in_parts(step, batch, size))

    def _drop_gradients(self) -> None:
        self.optimizer_.zero_grad(set_to_none=True)

    def _mixed(self, batch: Batch) -> Batch:
        if self.config.mix is None:
            return batch
        activations, (targets, weights) = batch
        if targets.ndim == 1:
            targets = F.one_hot(targets, self.criterion_.n_outputs).to(weights.dtype)
        activations, targets, weights = mix_batch(
            activations, targets, weights, self.config.mix, self.config.mix_alpha
        )
        return activations, [targets, weights]

    def infer(self, x: torch.Tensor, **fit_params: Any) -> torch.Tensor:
        x = moved(x, torch.device(self.device))  # a part of what has no room there at once
        if self.config.training_precision == "float32":
            return super().infer(x, **fit_params)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            return super().infer(x, **fit_params).float()

    # a whole fit

    def get_iterator(self, dataset: TrainingSet, training: bool = False) -> Batches:
        device = torch.device(self.device)
        # nothing that is trained changes the rows of a head in place
        shares = self.part_size is not None and not self.module_.trained_stages()
        on_device = getattr(self, "on_device_", None)  # outside of a fit nothing is kept there
        if training:
            return Batches(
                dataset,
                self.batch_size,
                self.seed,
                lambda: len(self.history) - 1,
                n_epochs=self.n_epochs,
                device=device,
                on_device=on_device,
                shares_memory=shares,
            )
        size = self.batch_size if is_host(device) else max(self.batch_size, _VALIDATION_BATCH)
        return Batches(dataset, size, device=device, on_device=on_device, shares_memory=shares)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Do as skorch does, but ask a GPU for the losses at the end: an answer waits for it."""
        if is_host(torch.device(self.device)):
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        if iterator is None:
            return
        losses = []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            losses.append(step["loss"].detach())
            self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
        for record, loss in zip(
            self.history[-1]["batches"][-len(losses) :], torch.stack(losses).tolist(), strict=True
        ):
            record[f"{prefix}_loss"] = loss
        self.history.record(f"{prefix}_batch_count", len(losses))

    def partial_fit(
        self, X: TrainingSet, y: Any = None, classes: Any = None, **fit_params: Any
    ) -> "TransferNet":
        """Train as skorch does, but resume from the checkpoint, and raise when interrupted.

        skorch's own method takes Ctrl-C as a request to stop training early. It returns a
        half-trained net, which a grid search would score.
        """
        if not self.initialized_:
            self.initialize()
        self.schedule_ = WarmUpAndCosine(self.n_epochs * n_batches(len(X), self.batch_size))
        # batch normalisation can't train on one image
        least = 3 if self.config.batch_norm == "train" else 1
        device = torch.device(self.device)
        self.on_device_ = ViewsOnDevice(device)
        self.parts_ = Parts(
            device,
            self.part_size,
            least,
            largest_step=self.batch_size + 1,  # an image that is left over joins a batch
            make_room=self.on_device_.drop,
        )
        self._resume_from_checkpoint()
        super()._set_training(False)  # all modules have one mode, as `_set_training` expects
        self.notify("on_train_begin", X=X, y=y)
        n_left = self.n_epochs - len(self.history)
        if self.best_ is not None and self.best_.is_over(len(self.history)):
            n_left = 0  # it was interrupted after it had stopped
        self.duration_ = FitDuration(
            n_left, n_batches(len(X), self.batch_size), len(self.module_.trained_stages())
        )
        with self._progress(len(X)) as self.bar_:
            try:
                self.fit_loop(X, y, epochs=n_left, **fit_params)
            except _EndOfTraining:
                pass
            except KeyboardInterrupt:
                if not self._was_stopped_by_skorch():
                    raise
        self.module_.pass_at_once(None)  # it may be trained further
        self.on_device_.drop()
        del self.bar_, self.duration_, self.parts_, self.on_device_
        self.notify("on_train_end", X=X, y=y)
        super()._set_training(False)  # predictions do not change the mode
        if self.checkpoint is not None:
            self.checkpoint.delete()
        return self

    def _progress(self, n_samples: int) -> Display:
        """Return a display of steps, which tells the time that is left after the first of them."""
        n_steps = n_batches(n_samples, self.batch_size)
        return Display(
            "training",
            self.n_epochs * n_steps,
            "steps",
            initial=len(self.history) * n_steps,
            # at 2 and above skorch prints a line for each epoch
            verbose=self.verbose if self.verbose < 2 else -1,
        )

    def _was_stopped_by_skorch(self) -> bool:
        """Return whether skorch's early stopping raised KeyboardInterrupt, not the user."""
        return any(
            isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience
            for _, callback in self.callbacks_
        )

    def _resume_from_checkpoint(self) -> None:
        state = None if self.checkpoint is None else self.checkpoint.load()
        if state is None:
            return
        self.module_.load_state_dict(state["module"])
        self.optimizer_.load_state_dict(state["optimizer"])
        self.n_steps_done_ = state["n_steps_done"]
        for record in state["history"]:
            self.history.new_epoch()
            for name, value in record.items():
                self.history.record(name, value)
        if state["best"] is not None:
            assert self.best_ is not None
            self.best_.load_state_dict(state["best"])

    def save_checkpoint(self) -> None:
        """Save the state from which the next epoch starts."""
        if self.checkpoint is not None:
            self.checkpoint.save(
                {
                    "module": self.module_.state_dict(),
                    "optimizer": self.optimizer_.state_dict(),
                    "n_steps_done": self.n_steps_done_,
                    "history": records(self),
                    "best": None if self.best_ is None else self.best_.state_dict(),
                }
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what only training needs, on the CPU."""
        state = self.__dict__
        bare = object.__new__(type(self))
        bare.__dict__.update(state, callbacks=None, train_split=None, checkpoint=None)
        bare.__dict__["adaptation"] = None
        for name in (
            "optimizer_",
            "callbacks_",
            "best_",
            "bar_",
            "duration_",
            "parts_",
            "on_device_",
        ):
            bare.__dict__.pop(name, None)
        module = copy.deepcopy(self.module_).cpu()
        bare.__dict__.update(module=TrainablePart, module_=module, device="cpu")
        return super(TransferNet, bare).__getstate__()

    def initialize_history(self) -> "TransferNet":
        super().initialize_history()
        patience = self.config.n_iter_no_change
        self.best_ = None if patience is None else EarlyStop(patience)
        return self


def _print_plainly(line: str) -> None:
    """Print a line of skorch's table; its colours are for terminals alone."""
    is_terminal = hasattr(sys.stdout, "isatty") and sys.stdout.isatty()
    print(line if is_terminal else re.sub(r"\x1b\[\d*m", "", line))


class _Epochs(Callback):
    """Calls the functions of `_epochs`, after the callbacks of skorch and of the user."""

    def __init__(self, watcher: EpochWatcher | None = None):
        self.watcher = watcher

    def on_train_begin(self, net: TransferNet, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.begin_training(net.n_epochs - len(net.history))

    def on_epoch_begin(self, net: TransferNet, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.begin_epoch()
        epoch, device = len(net.history) - 1, torch.device(net.device)
        start_epoch(net.module_, net.config, net.seed, epoch, device)
        if net.adaptation is not None:
            net.adaptation.start_epoch(epoch, net.on_device_)
        self.validated_ = ValidationOutputs()

    def on_batch_end(
        self, net: TransferNet, training: bool = False, y_pred: Any = None, **kwargs: Any
    ) -> None:
        if not training:
            self.validated_.append(y_pred)
            return
        net.duration_.end_step()
        net.bar_.update()

    def on_epoch_end(self, net: TransferNet, **kwargs: Any) -> None:
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
            raise _EndOfTraining

    def on_train_end(self, net: TransferNet, **kwargs: Any) -> None:
        self.validated_ = ValidationOutputs()  # the last ones are on the device
        net.module_.set_trainable(None)
        if net.best_ is not None:
            net.best_.restore(net.module_)
            net.best_.state = None  # the module holds it now
        if self.watcher is not None:
            self.watcher.end_training()


def make_net(
    module: TrainablePart,
    loss: WeightedLoss,
    config: TrainingConfig,
    *,
    n_epochs: int,
    batch_size: int,
    part_size: int | None = None,
    validation: TrainingSet | None = None,
    checkpoint: Checkpoint | None = None,
    adaptation: Adaptation | None = None,
    seed: int,
    device: torch.device,
    callbacks: Sequence[Any] = (),
    net_params: dict[str, Any] | None = None,
    watcher: EpochWatcher | None = None,
    verbose: int = 0,
) -> TransferNet:
    """Return a net that is ready for ``fit(training_set)``.

    It trains for `n_epochs`, or until the loss on `validation` stops decreasing. A step passes
    at most `part_size` images of a batch at once; None is all of them, as long as memory suffices.
    """
    return TransferNet(
        module,
        criterion=loss,
        config=config,
        n_epochs=n_epochs,
        max_epochs=n_epochs,
        batch_size=batch_size,
        part_size=part_size,
        seed=seed,
        checkpoint=checkpoint,
        adaptation=adaptation,
        train_split=None if validation is None else _Validation(validation),
        callbacks=[*callbacks, ("epochs", _Epochs(watcher))],
        device=device,
        verbose=verbose,
        **(net_params or {}),
    )


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


class _Validation:
    """A `train_split` of skorch that trains on all given samples and validates on others."""

    def __init__(self, validation: TrainingSet):
        self.validation = validation

    def __call__(
        self, dataset: TrainingSet, y: Any = None, **fit_params: Any
    ) -> tuple[TrainingSet, TrainingSet]:
        return dataset, self.validation


def records(net: TransferNet) -> list[dict[str, Any]]:
    """Return a dict of plain values for each epoch, without skorch's internal ones."""
    return [
        {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in epoch.items()
            if isinstance(value, (int, float, str)) and not name.endswith(("_best", "_batch_count"))
        }
        for epoch in net.history
    ]
