"""The images of a fit as the net sees them: activations, targets and weights."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import Dataset


class Views:
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
    def fixed(cls, activations: np.ndarray) -> "Views":
        """Return the one view of images that are not augmented."""
        return cls(lambda number: activations, 1)

    def followed_by(self, others: np.ndarray) -> "Views":
        """Return the same views, each followed by the activations of other images."""
        return Views(lambda n: np.concatenate([self._extract(n), others]), self._n_views)

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Return the activations that an epoch trains on."""
        number = epoch if self._n_views is None else epoch % self._n_views
        if number not in self._kept:
            if self._n_views is None:
                self._kept.clear()  # the view of the epoch before is not seen again
            self._kept[number] = self._extract(number)
        return self._kept[number]

    def to_start_from(self) -> list[np.ndarray]:
        """Return the views that the head starts from: those that will be kept anyway."""
        return [self.of_epoch(number) for number in range(self._n_views or 1)]


class TrainingSet(Dataset):
    """Activations, targets (n, n_outputs) and weights (n,) that belong together."""

    def __init__(
        self,
        views: Views,
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
