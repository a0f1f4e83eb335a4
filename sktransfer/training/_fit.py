"""From activations and targets to a trained net."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn

from .._locking import own_random_state
from ..runtime._gpu_lock import gpu_lock
from ..runtime._threads import torch_threads_within_cores
from ._checkpoint import Checkpoint, name_of
from ._config import TrainingConfig
from ._data import AugmentedActivations, TrainingSet
from ._head import TrainablePart, is_linear_probe, pooled_rows, start_head
from ._net import TransferNet, make_net
from ._optim import WeightedLoss
from ._targets import Targets


@dataclass
class LabelledActivations:
    """Activations of images, their encoded targets (n, n_outputs), weights and counts (n,).

    `weights` are those in the loss. `counts` say how many images each one stands for,
    which is what the spread of features is measured over: a class that weighs a thousand
    times as much in the loss is not a thousand times as frequent.
    """

    views: AugmentedActivations
    encoded: np.ndarray
    weights: np.ndarray
    counts: np.ndarray


@dataclass
class RunOptions:
    """How one fit runs: device, seed, checkpoint, callbacks; not what is trained."""

    device: torch.device
    seed: int
    checkpoint_dir: str | None = None
    checkpoint_name: str = ""
    callbacks: Sequence[Any] = ()
    net_params: dict[str, Any] | None = None
    verbose: int = 0


def fit_net(
    start: nn.Module,
    recipe: TrainingConfig,
    targets: Targets,
    training: LabelledActivations,
    validation: LabelledActivations | None,
    options: RunOptions,
) -> TransferNet:
    """Return a trained net.

    `start` is the stages after the cut, which get a new head, or a `TrainablePart`
    that training goes on with. It is trained in place. Torch's global random state is
    left as it was.
    """
    weights = training.weights / training.weights.mean()
    # One training at a time in a process, with all of torch's threads, and on a GPU
    with (
        own_random_state(options.seed, options.device),
        gpu_lock(options.device),
        torch_threads_within_cores(),
    ):
        part = start
        if not isinstance(start, TrainablePart):
            views = training.views.for_the_head_start()
            rows = np.concatenate([pooled_rows(start, view, options.device) for view in views])
            head = start_head(recipe, rows, *_repeated(training, len(views)), targets)
            part = TrainablePart(start, head, recipe.batch_norm)
        device, dtype = options.device, torch.float32
        is_probe = is_linear_probe(recipe, part.stages)
        if is_probe and recipe.batch_size == "auto":
            # A problem as small as scikit-learn's own linear models, with one solution:
            # in their precision, and where it costs no transfers.
            device, dtype = torch.device("cpu"), torch.float64
        n = len(weights)
        n_epochs = recipe.epochs_of(n, is_probe)
        if part.trained_stages() and n_epochs <= (recipe.unfreeze_every or 0):
            raise ValueError(
                f"unfreeze_every={recipe.unfreeze_every} leaves no epoch of {n_epochs} in which a "
                "stage would train; set it lower, or more max_epochs"
            )
        net = make_net(
            # as the frozen stages: convolutions on CPUs and GPUs are faster so
            part.to(dtype=dtype, memory_format=torch.channels_last),
            WeightedLoss(targets.loss, recipe.label_smoothing, getattr(targets, "balance", None)),
            recipe,
            n_epochs=n_epochs,
            batch_size=recipe.batch_size_of(n, is_probe),
            validation=validation
            and _set(validation, validation.weights / validation.weights.mean(), dtype),
            checkpoint=_checkpoint(recipe, start, targets, training, validation, options),
            seed=options.seed,
            device=device,
            callbacks=options.callbacks,
            net_params=options.net_params,
            verbose=options.verbose,
        )
        net.fit(_set(training, weights, dtype))
        net.train_split = None  # holds the images that were validated on
        # A GPU is for others when the turn is over, and every fit has an optimizer of its own
        net.module_ = getattr(net.module_, "_orig_mod", net.module_)  # of one that was compiled
        net.module_.cpu()
        net.optimizer_.state.clear()
        return net


def _repeated(training: LabelledActivations, n_views: int) -> list[np.ndarray]:
    """Return targets, weights and counts of all views; those of an image weigh as one."""
    return [
        np.tile(training.encoded, (n_views, 1)),
        np.tile(training.weights, n_views) / n_views,
        np.tile(training.counts, n_views) / n_views,
    ]


def _set(examples: LabelledActivations, weights: np.ndarray, dtype: torch.dtype) -> TrainingSet:
    return TrainingSet(examples.views, examples.encoded, weights, dtype)


def _checkpoint(
    recipe: TrainingConfig,
    start: nn.Module,
    targets: Targets,
    training: LabelledActivations,
    validation: LabelledActivations | None,
    options: RunOptions,
) -> Checkpoint | None:
    if options.checkpoint_dir is None:
        return None
    choices = [(field.name, name_of(getattr(recipe, field.name))) for field in fields(recipe)]
    what = f"{options.checkpoint_name} {choices} {targets.loss}"
    arrays = [getattr(targets, "balance", np.empty(0))]
    for examples in (training, validation):
        if examples is not None:
            arrays += [examples.views.of_epoch(0), examples.encoded, examples.weights]
    if isinstance(start, TrainablePart):  # a fit that goes on from another one
        arrays += [tensor.numpy(force=True) for tensor in start.state_dict().values()]
    return Checkpoint(options.checkpoint_dir, what, arrays)
