"""Adaptation to a target domain: its images have no labels, and add a loss of their own.

Two things are done. Rows are standardised by the statistics of their own domain, which takes
away what shifts and scales all images of a domain ("AdaBN", arXiv 1603.04779; domain-specific
batch normalisation, arXiv 1906.03950). And classes are to be told apart on the images of the
target, whatever these are ("minimum class confusion", arXiv 1912.03699).
"""

import copy
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ._augmented import AugmentedActivations
from ._data import seed_of
from ._head import Standardise, TrainablePart
from ._inference import outputs
from ._probe import LEAST_SCALE, mean_and_scale
from ._resident import Activations, ViewsOnDevice, moved

SOURCE = "source"
TARGET = "target"

# Of the paper; logits of a network are too sure on images of another domain.
_TEMPERATURE = 2.5
_STEP_OF_STATISTICS = 0.1  # that of torch's batch norms
# Least scale of a batch, as a share of the median at the start. Where more than half of the columns
# are constant, the running median is that of their least scales, and would fall with every step.
_LOWEST = 0.1
_OF_TARGET = 1  # tells the seed of the target's batches from that of the source's


def class_confusion(logits: torch.Tensor) -> torch.Tensor:
    """Return the share of probability that pairs of different classes have in common.

    Images about which the network is surer weigh more.
    """
    scaled = logits / _TEMPERATURE
    probabilities, logs = functional.softmax(scaled, 1), functional.log_softmax(scaled, 1)
    certainty = 1 + torch.exp((probabilities * logs).sum(1).detach())
    weights = len(certainty) * certainty / certainty.sum()
    together = (weights.unsqueeze(1) * probabilities).T @ probabilities
    # 0 for a class whose probabilities are all too small for a float
    of_class = together.sum(1, keepdim=True).clamp_min(torch.finfo(together.dtype).tiny)
    shares = together / of_class
    return (shares.sum() - shares.trace()) / len(shares)


LOSSES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {"mcc": class_confusion}


class StandardiseDomains(Standardise):
    """Standardises rows by mean and deviation of the domain that they are from.

    In training these are the statistics of each batch, where stages train: those of all images
    change with every step. A running mean of them is used meanwhile in evaluation.

    Parameters
    ----------
    source, target : tuple of ndarray
        Mean and scale of the rows of each domain.
    follows : bool, default=False
        Whether the statistics change in training.

    Attributes
    ----------
    domain : {"source", "target"}
        Where the rows are from.
    """

    target_mean: torch.Tensor
    target_scale: torch.Tensor

    def __init__(
        self,
        source: tuple[np.ndarray, np.ndarray],
        target: tuple[np.ndarray, np.ndarray],
        follows: bool = False,
    ):
        super().__init__(*source)
        for name, values in zip(("target_mean", "target_scale"), target, strict=True):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))
        self._lowest = {
            SOURCE: _LOWEST * float(np.median(source[1])),
            TARGET: _LOWEST * float(np.median(target[1])),
        }
        self.domain = TARGET
        self.follows = follows

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        mean, scale = self._statistics()
        rows = rows.to(mean.dtype)
        if self.training and self.follows:
            least = (LEAST_SCALE * scale.median()).clamp_min(self._lowest[self.domain])
            deviation, centre = torch.std_mean(rows, 0, correction=0)
            own = centre, torch.maximum(deviation, least)
            with torch.no_grad():
                for running, of_batch in zip((mean, scale), own, strict=True):
                    running.lerp_(of_batch, _STEP_OF_STATISTICS)
            mean, scale = own
        return (rows - mean) / scale

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.domain == SOURCE:
            return self.mean, self.scale
        return self.target_mean, self.target_scale

    def set_statistics(self, domain: str, rows: np.ndarray, counts: np.ndarray) -> None:
        """Set the statistics of a domain to those of all its rows."""
        self.domain = domain
        with torch.no_grad():
            for buffer, values in zip(
                self._statistics(), mean_and_scale(rows, counts), strict=True
            ):
                buffer.copy_(torch.as_tensor(values, dtype=torch.float32))


def standardise_of(part: TrainablePart) -> StandardiseDomains:
    """Return what standardises the rows of a part that is adapted."""
    first, *_ = part.head.children()
    assert isinstance(first, StandardiseDomains)
    return first


def is_adapted(part: TrainablePart) -> bool:
    """Return whether rows of a part are standardised by domain."""
    return any(isinstance(module, StandardiseDomains) for module in part.head.children())


def set_domain(module: nn.Module, domain: str) -> None:
    """Say of which domain the images are that a module gets from now on, and its probe too."""
    for part in module.modules():
        if isinstance(part, StandardiseDomains):
            part.domain = domain


def for_source(part: TrainablePart) -> TrainablePart:
    """Return a part that predicts images of the source, and shares all parameters.

    A fitted part may be in use by other threads, and is not changed.
    """
    adapted = copy.copy(part)
    adapted._modules = {**part._modules, "head": _of_source(part.head)}
    if part.probe is not None:
        stages, head = part.probe.children()
        adapted._modules["probe"] = nn.Sequential(stages, _of_source(head))
    return adapted


def _of_source(head: nn.Module) -> nn.Sequential:
    standardise, *others = head.children()
    first = copy.copy(standardise)
    assert isinstance(first, StandardiseDomains)
    first.domain = SOURCE
    return nn.Sequential(first, *others)


def outputs_by_domain(
    part: TrainablePart,
    activations: np.ndarray,
    device: torch.device,
    sample_domain: np.ndarray | None = None,
) -> np.ndarray:
    """Return the outputs of a fitted part for images of domains, sources above 0.

    None is the target for all. Where a part is not adapted, domains make no difference.
    """
    if sample_domain is None or not is_adapted(part) or not (sample_domain > 0).any():
        return outputs(part, activations, device)
    values: np.ndarray | None = None
    for of_domain, chosen in ((for_source(part), sample_domain > 0), (part, sample_domain < 0)):
        if chosen.any():
            some = outputs(of_domain, activations[chosen], device)
            if values is None:
                values = np.empty((len(activations), *some.shape[1:]))
            values[chosen] = some
    assert values is not None
    return values


class Adaptation:
    """The loss on the images of the target in one fit.

    Parameters
    ----------
    loss : {"mcc"}
    weight : float
        What it is multiplied by.
    views : AugmentedActivations
        Of the images of the target.
    batch_size : int
        Images of the target in a step; all of them where there are fewer.
    seed : int
    """

    def __init__(
        self, loss: str, weight: float, views: AugmentedActivations, batch_size: int, seed: int
    ):
        self._loss = LOSSES[loss]
        self._weight = weight
        self._views = views
        self._batch_size = batch_size
        self._seed = seed
        self._batches: Iterator[torch.Tensor] = iter(())
        self._of_steps: list[torch.Tensor] = []

    def start_epoch(self, epoch: int, on_device: ViewsOnDevice) -> None:
        """Draw the batches of an epoch, which are a function of the seed and the epoch alone."""
        generator = torch.Generator().manual_seed(seed_of(self._seed, epoch, _OF_TARGET))
        activations = on_device.of(self._views, epoch)
        n = len(self._views.of_epoch(epoch))
        self._batches = self._drawn(activations, n, on_device.device, generator)
        self._of_steps = []

    def _drawn(
        self, activations: Activations, n: int, device: torch.device, generator: torch.Generator
    ) -> Iterator[torch.Tensor]:
        """Yield batches without end; none is smaller than another."""
        size = min(self._batch_size, n)
        while True:
            order = torch.randperm(n, generator=generator)
            placed = moved(order, device)
            for start in range(0, n - size + 1, size):
                chosen = slice(start, start + size)
                yield activations.take(order[chosen], placed[chosen])

    def next_batch(self) -> torch.Tensor:
        """Return the images of the target in the next step."""
        return next(self._batches)

    def undo_of(self, part: TrainablePart) -> Callable[[], None]:
        """Return what sets running statistics back to those of now."""
        standardise = standardise_of(part)
        if not standardise.follows:
            return lambda: None
        before = {name: values.clone() for name, values in standardise.state_dict().items()}

        def undo() -> None:
            standardise.load_state_dict(before)

        return undo

    def add_gradients(
        self,
        part: TrainablePart,
        infer: Callable[[torch.Tensor], torch.Tensor],
        activations: torch.Tensor,
    ) -> None:
        """Add the gradients of a batch of the target to those of the source.

        `infer` returns the outputs of the part in training.
        """
        standardise = standardise_of(part)
        standardise.domain = TARGET
        try:
            # all gradients are 0 without a weight; random numbers are drawn as with one
            with torch.set_grad_enabled(self._weight > 0):
                loss = self._loss(infer(activations))
            if self._weight > 0:
                (self._weight * loss).backward()
        finally:  # memory may run out, and the step is tried again
            standardise.domain = SOURCE
        self._of_steps.append(loss.detach())

    def mean_loss(self) -> float:
        """Return the mean over the steps of the epoch so far."""
        return float(torch.stack(self._of_steps).mean())
