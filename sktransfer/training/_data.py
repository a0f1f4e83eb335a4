"""The images of a fit as the net sees them: activations, targets and weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.utils.data import Dataset

MIXES = ("mixup", "cutmix")


def mix_batch(
    activations: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, mix: str, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a batch in which each image is mixed with another one of it.

    "mixup" (arXiv 1710.09412) is a weighted mean of two images; at a cut behind the first
    stage it is a mean of activations, which is manifold mixup (arXiv 1806.05236).
    "cutmix" (arXiv 1905.04899) is a rectangle of the one in the other. The share is drawn
    from Beta(alpha, alpha), from torch's global generator.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    partner = torch.randperm(len(activations))
    others = activations[partner]
    if mix == "mixup":
        if not activations.is_floating_point():  # 8-bit images, where nothing is frozen
            activations, others = activations.float(), others.float()
        mixed = torch.lerp(others, activations, share)
    else:
        mixed = activations.clone()
        (top, bottom), (left, right), share = _rectangle(activations.shape[-2:], share)
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    # an image of weight w is w images: its share of the mixture grows with it
    own, other = share * weights, (1 - share) * weights[partner]
    total = (own + other).clamp_min(torch.finfo(weights.dtype).tiny)
    part = (own / total).unsqueeze(1)
    return mixed, part * targets + (1 - part) * targets[partner], own + other


def _rectangle(shape: torch.Size, share: float) -> tuple[tuple[int, int], tuple[int, int], float]:
    """Draw a rectangle over ``1 - share`` of the area; return it with the share that is left."""
    height, width = shape
    side = (1 - share) ** 0.5
    spans = []
    for n in (height, width):
        centre = torch.randint(n, ()).item()
        half = n * side / 2
        spans.append((max(0, round(centre - half)), min(n, round(centre + half))))
    (top, bottom), (left, right) = spans
    left_over = 1 - (bottom - top) * (right - left) / (height * width)
    return (top, bottom), (left, right), left_over


@dataclass(frozen=True)
class Replay:
    """Activations, targets, weights and counts of images that were trained on before."""

    activations: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def concatenated_with(self, other: "Replay") -> "Replay":
        """Return these images and then those of `other`."""
        pairs = zip(self._columns(), other._columns(), strict=True)
        return Replay(*(np.concatenate(pair) for pair in pairs))

    def sample(self, n: int, rng: np.random.RandomState) -> "Replay":
        """Return `n` images drawn at random, of each kind of target as many as there are room for.

        Rare classes are kept whole before common ones get more.
        """
        if n >= len(self):
            return self
        order = rng.permutation(len(self))
        _, kinds = np.unique(self.targets[order], axis=0, return_inverse=True)
        # how many of its kind come before each image in the order
        turn = np.empty(len(self), dtype=np.intp)
        for kind in np.unique(kinds):
            members = np.flatnonzero(kinds.ravel() == kind)
            turn[members] = np.arange(len(members))
        chosen = np.sort(order[np.argsort(turn, kind="stable")[:n]])
        return Replay(*(column[chosen] for column in self._columns()))

    def _columns(self) -> list[np.ndarray]:
        return [getattr(self, field.name) for field in fields(self)]


class AugmentedActivations:
    """Activations of the training images: one array for each random view of them.

    Parameters
    ----------
    extract : callable
        Returns the activations of view number v, in the order of the images.
    n_views : int or None
        How many there are. Epochs take turns; None is a new view for each epoch.
    """

    def __init__(self, extract: Callable[[int], np.ndarray], n_views: int | None):
        self._extract = extract
        self._n_views = n_views
        self._kept: dict[int, np.ndarray] = {}

    @classmethod
    def fixed(cls, activations: np.ndarray) -> "AugmentedActivations":
        """Return the one view of images that are not augmented."""
        return cls(lambda number: activations, 1)

    def concatenated_with(self, others: np.ndarray) -> "AugmentedActivations":
        """Return the same views, each followed by the activations of other images."""
        return AugmentedActivations(
            lambda n: np.concatenate([self._extract(n), others]), self._n_views
        )

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Return the activations that an epoch trains on."""
        number = epoch if self._n_views is None else epoch % self._n_views
        if number not in self._kept:
            if self._n_views is None:
                self._kept.clear()  # the view of the epoch before is not seen again
            self._kept[number] = self._extract(number)
        return self._kept[number]

    def for_the_head_start(self) -> list[np.ndarray]:
        """Return the views that the head starts from: those that will be kept anyway."""
        return [self.of_epoch(number) for number in range(self._n_views or 1)]


class TrainingSet(Dataset):
    """Activations, targets (n, n_outputs) and weights (n,) that belong together."""

    def __init__(
        self,
        views: AugmentedActivations,
        targets: np.ndarray,
        weights: np.ndarray,
        dtype: torch.dtype = torch.float32,
    ):
        self.views = views
        self.targets = torch.from_numpy(targets).to(dtype)
        self.weights = torch.from_numpy(weights).to(dtype)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index):
        activations = self.views.of_epoch(0)
        return activations[index], (self.targets[index], self.weights[index])


class Batches:
    """Iterates over a training set batch by batch; with a seed, shuffled for each epoch.

    A batch is one indexing of an array, where a DataLoader would fetch and stack
    image by image; with a linear head that would be most of the time. The order is a
    function of the seed and the epoch alone, so that training can be resumed.
    """

    def __init__(self, dataset: TrainingSet, batch_size: int, seed: int | None = None, epoch=int):
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch  # returns the number of the epoch that begins

    def __len__(self) -> int:
        return n_batches(len(self.dataset), self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
        n, epoch = len(self.dataset), self.epoch()
        activations = self.dataset.views.of_epoch(epoch)
        if self.seed is None or self.batch_size >= n:
            order = torch.arange(n)  # of one batch the order does not matter
        else:
            generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            order = torch.randperm(n, generator=generator)
        batches = order.split(self.batch_size)
        if len(batches) > len(self):
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        for chosen in batches:
            yield (
                torch.from_numpy(activations[chosen.numpy()]),
                [self.dataset.targets[chosen], self.dataset.weights[chosen]],
            )


def n_batches(n: int, batch_size: int) -> int:
    """Return the number of batches; one image that is left over joins the last of them.

    Batch normalisation can't train on a batch of one.
    """
    full, left = divmod(n, batch_size)
    return max(1, full + (left > 1) if batch_size > 1 else n)


def seed_of(seed: int, epoch: int) -> int:
    """Return the seed of one epoch of a fit."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]) >> 1
