"""A whole fit: from activations and targets to a trained net."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .._locking import own_random_state
from ..runtime._device_copies import device_call
from ..runtime._gpu_lock import gpu_lock
from ..runtime._threads import torch_threads_within_cores
from ._adaptation import (
    SOURCE,
    TARGET,
    Adaptation,
    StandardiseDomains,
    set_domain,
    standardise_of,
)
from ._augmented import AugmentedActivations
from ._checkpoint import Checkpoint
from ._config import TrainingConfig
from ._continued import Continued, solve_again
from ._data import TrainingSet
from ._epochs import EpochWatcher
from ._folded_norms import folded_norms
from ._head import Penalty, Standardise, TrainablePart, is_linear_probe, start_head
from ._inference import pooled_rows
from ._naming import name_of
from ._net import TransferNet, make_net
from ._optim import make_loss
from ._probe import is_large, mean_and_scale
from ._resident import moved
from ._targets import Targets

# Images of a head alone that pass at once where they are many.
_IMAGES_AT_ONCE = 2**13


@dataclass
class LabelledActivations:
    """Activations of images, their encoded targets (n, n_outputs), weights and counts (n,).

    `weights` are those in the loss. `counts` are the numbers of images that each one stands
    for; features are standardised and validation is scored by them: a class that weighs a
    thousand times as much in the loss is not a thousand times as frequent.
    """

    views: AugmentedActivations
    encoded: np.ndarray
    weights: np.ndarray
    counts: np.ndarray


@dataclass
class RunOptions:
    """The device, seed, checkpoint and callbacks of one fit."""

    device: torch.device
    seed: int
    checkpoint_dir: str | None = None
    # parameters that the fit depends on and that are not in its configuration
    checkpoint_choices: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Any] = ()
    net_params: dict[str, Any] | None = None
    watcher: EpochWatcher | None = None
    verbose: int = 0


def fit_net(
    start: nn.Module | Continued,
    config: TrainingConfig,
    targets: Targets,
    training: LabelledActivations,
    validation: LabelledActivations | None,
    options: RunOptions,
    target: AugmentedActivations | None = None,
) -> TransferNet:
    """Return a trained net.

    `start` is the stages after the cut, which get a new head, or a fitted part that is
    trained further. It is trained in place. Torch's global random state is left as it was.
    `target` is images without labels, which a new head is adapted to.
    """
    # One training at a time in a process, with all of torch's threads. A GPU is locked where
    # something is computed on it: not while images are read, and not for a head on the CPU.
    with (
        own_random_state(options.seed, options.device),
        device_call(options.device),
        torch_threads_within_cores(),
    ):
        checkpoint = _checkpoint(config, start, targets, training, validation, target, options)
        device, dtype = options.device, torch.float32
        part = _with_head(start, config, targets, training, target, device)
        is_probe = is_linear_probe(config, part.stages)
        n = len(training.weights)
        n_epochs, batch_size = config.epochs_of(n, is_probe), config.batch_size_of(n, is_probe)
        part_size = None
        if is_probe and config.batch_size == "auto":
            # one solution, which the head has already
            if not is_large((n, _width_of(part)), targets.n_outputs):
                # A problem as small as scikit-learn's own linear models: in their precision,
                # and where it costs no transfers.
                device, dtype = torch.device("cpu"), torch.float64
            elif config.max_epochs is None and not config.label_smoothing and config.mix is None:
                # of the loss that trains: one epoch measures it, and changes nothing
                config, n_epochs, batch_size = replace(config, lr=0.0), 1, _IMAGES_AT_ONCE
            else:
                part_size = _IMAGES_AT_ONCE
        if part.trained_stages() and n_epochs <= (config.unfreeze_every or 0):
            raise ValueError(
                f"unfreeze_every={config.unfreeze_every} leaves no epoch of {n_epochs} in which a "
                "stage would train; set it lower, or more max_epochs"
            )
        adaptation = None
        if target is not None:
            assert config.adapt is not None
            if batch_size == 1 and part.trained_stages():
                raise ValueError(
                    f"adapt={config.adapt!r} standardises each batch where stages train, and a "
                    "batch of one image is all zeros then; set batch_size=2 at least, better 16"
                )
            adaptation = Adaptation(
                config.adapt, config.adapt_weight, target, batch_size, options.seed
            )
        net = make_net(
            # the order of the frozen stages; convolutions are faster in it
            part.to(dtype=dtype).to(memory_format=torch.channels_last),
            make_loss(targets, config, dtype),
            config,
            n_epochs=n_epochs,
            batch_size=batch_size,
            part_size=part_size,
            validation=None if validation is None else _set(validation, dtype),
            checkpoint=checkpoint,
            adaptation=adaptation,
            seed=options.seed,
            device=device,
            callbacks=options.callbacks,
            net_params=options.net_params,
            watcher=options.watcher,
            verbose=options.verbose,
        )
        training.views.of_epoch(0)  # which is read before
        with gpu_lock(device):
            threads = torch_threads_within_cores(part.threads_for(net.batch_size))
            with threads, _faster(part, training, net.batch_size):
                try:
                    net.fit(_set(training, dtype))
                except BaseException as error:
                    # Ctrl-C does not wait for a view; after an error nothing goes on
                    training.views.end(waits=isinstance(error, Exception))
                    raise
                training.views.end()
            net.train_split = None  # it holds the images that were validated on
            net.adaptation = None
            net.module_ = getattr(net.module_, "_orig_mod", net.module_)  # of one that was compiled
            net.module_.penalty = None  # it belongs to this fit
            if target is not None:
                _standardise_by_domain(net.module_, training, target, device)
            # The memory of a GPU is released for others. From here on the module is not changed
            # in place: several threads may predict with it at once.
            net.module_.cpu()
            net.optimizer_.state.clear()
        return net


def _faster(
    part: TrainablePart, training: LabelledActivations, batch_size: int
) -> AbstractContextManager[None]:
    """Return a context in which the frozen batch norms of trained stages cost nothing."""
    if part.batch_norm != "frozen" or not part.trained_stages():
        return nullcontext()
    device = next(part.parameters()).device
    probe = moved(torch.from_numpy(training.views.of_epoch(0)[:1]), device)
    return folded_norms(part.stages.eval(), probe, batch_size)


def _with_head(
    start: nn.Module | Continued,
    config: TrainingConfig,
    targets: Targets,
    training: LabelledActivations,
    target: AugmentedActivations | None,
    device: torch.device,
) -> TrainablePart:
    """Return the part to train: with a new head, or with its own, solved again if linear."""
    if isinstance(start, Continued) and config.head != "linear":
        return start.part
    goes_on = None  # a part that is trained further, with its own head
    if isinstance(start, Continued) and (start.part.trained_stages() or not start.has_all_images):
        goes_on = start
    stages = start.part.stages if isinstance(start, Continued) else start
    probe = None if goes_on is None else goes_on.part.probe
    networks = [stages] if probe is None else [stages, probe[0]]
    of_views = []
    for view in training.views.for_the_head_start():
        # without stages nothing is computed
        with nullcontext() if isinstance(stages, nn.Identity) else gpu_lock(device):
            of_views.append([pooled_rows(network, view, device) for network in networks])
    rows, *probe_rows = (
        np.concatenate(of) if len(of) > 1 else of[0] for of in zip(*of_views, strict=True)
    )
    encoded, weights, counts = _repeated(training, len(of_views))
    penalty: Penalty | None
    if goes_on is not None:
        part, seen = goes_on.part, goes_on.seen
        if probe is not None:
            with _lock_for(probe_rows[0], targets, device):
                solve_again(probe[1], probe_rows[0], encoded, weights, targets, seen, device)
        with _lock_for(rows, targets, device):
            penalty = solve_again(part.head, rows, encoded, weights, targets, seen, device)
    else:
        with _lock_for(rows, targets, device):
            head, penalty = start_head(config, rows, encoded, weights, counts, targets, device)
        if target is not None:
            head[0] = _by_domain(head[0], stages, target, device)
        part = TrainablePart(stages, head, config.batch_norm)
        if config.probe_weight and part.trained_stages():
            part.add_probe(config.probe_weight)
    if not part.trained_stages():  # what else trains has no one solution
        part.penalty = penalty
    return part


def _by_domain(
    of_source: nn.Module, stages: nn.Module, target: AugmentedActivations, device: torch.device
) -> StandardiseDomains:
    """Return what standardises by domain, in the place of what standardises by the source."""
    assert isinstance(of_source, Standardise)
    of_views = []
    for view in target.for_the_head_start():  # which is read where others may use the device
        with gpu_lock(device):
            of_views.append(pooled_rows(stages, view, device))
    rows = np.concatenate(of_views)
    standardise = StandardiseDomains(
        (of_source.mean.numpy(), of_source.scale.numpy()),
        mean_and_scale(rows, np.ones(len(rows))),
        follows=any(True for _ in stages.parameters()),
    )
    standardise.domain = SOURCE  # in training, but for the batches of the target
    return standardise


def _standardise_by_domain(
    part: TrainablePart,
    training: LabelledActivations,
    target: AugmentedActivations,
    device: torch.device,
) -> None:
    """Set the statistics of the rows that trained stages make of each domain."""
    standardise = standardise_of(part)
    if standardise.follows:
        of_target = target.of_epoch(0)
        for domain, activations, counts in (
            (SOURCE, training.views.of_epoch(0), training.counts),
            (TARGET, of_target, np.ones(len(of_target))),
        ):
            rows = pooled_rows(part.stages, activations, device)
            standardise.set_statistics(domain, rows, counts)
    set_domain(part, TARGET)  # what is predicted from now on


def _lock_for(
    rows: np.ndarray, targets: Targets, device: torch.device
) -> AbstractContextManager[None]:
    """Return the lock of a device where a linear head is solved on it, as that of many rows is."""
    return gpu_lock(device) if is_large(rows.shape, targets.n_outputs) else nullcontext()


def _width_of(part: TrainablePart) -> int:
    """Return the width of the rows that the head standardises."""
    standardise = next(part.head.children())
    assert isinstance(standardise, Standardise)
    return len(standardise.mean)


def _repeated(training: LabelledActivations, n_views: int) -> list[np.ndarray]:
    """Return targets, weights and counts of all views; the views of an image weigh as one."""
    if n_views == 1:
        return [training.encoded, training.weights, training.counts]
    encoded = training.encoded
    return [
        np.tile(encoded, n_views if encoded.ndim == 1 else (n_views, 1)),
        np.tile(training.weights, n_views) / n_views,
        np.tile(training.counts, n_views) / n_views,
    ]


def _set(examples: LabelledActivations, dtype: torch.dtype) -> TrainingSet:
    """Return a set with weights of mean 1: the loss does not depend on their unit."""
    weights = examples.weights / examples.weights.mean()
    return TrainingSet(examples.views, examples.encoded, weights, examples.counts, dtype)


def _checkpoint(
    config: TrainingConfig,
    start: nn.Module | Continued,
    targets: Targets,
    training: LabelledActivations,
    validation: LabelledActivations | None,
    target: AugmentedActivations | None,
    options: RunOptions,
) -> Checkpoint | None:
    if options.checkpoint_dir is None:
        return None
    choices = {field.name: getattr(config, field.name) for field in fields(config)}
    choices |= {"callbacks": options.callbacks, "net_params": options.net_params}
    choices |= options.checkpoint_choices
    names = {parameter: name_of(value, parameter) for parameter, value in choices.items()}
    arrays = [getattr(targets, "balance", np.empty(0))]
    for examples in (training, validation):
        if examples is not None:
            arrays += [examples.views.of_epoch(0), examples.encoded]
            arrays += [examples.weights, examples.counts]
    if target is not None:
        arrays.append(target.of_epoch(0))
    if isinstance(start, Continued):
        arrays += [start.seen, np.array(start.has_all_images)]
        arrays += [tensor.numpy(force=True) for tensor in start.part.state_dict().values()]
    return Checkpoint(options.checkpoint_dir, f"{names} {targets.loss}", arrays)
