"""The images of a fit as the net is given them: activations, targets and weights."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ._augmented import AugmentedActivations
from ._resident import ViewsOnDevice, is_host, moved
from ._targets import joined

MIXES = ("mixup", "cutmix")
_CPU = torch.device("cpu")

Batch = tuple[torch.Tensor, Sequence[torch.Tensor]]  # activations; targets and weights


def mix_batch(
    activations: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, mix: str, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a batch in which each image is mixed with another image of the batch.

    "mixup" (arXiv 1710.09412) is a weighted mean of two images; at a cut behind the first
    stage it is a mean of activations, which is manifold mixup (arXiv 1806.05236).
    "cutmix" (arXiv 1905.04899) is a rectangle of the one in the other. The share is drawn
    from Beta(alpha, alpha), from torch's global generator.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    partner = moved(torch.randperm(len(activations)), activations.device)
    others = activations[partner]
    if mix == "mixup":
        if not activations.is_floating_point():  # 8-bit images, where nothing is frozen
            activations, others = activations.float(), others.float()
        mixed = torch.lerp(others, activations, share)
    else:
        mixed = activations.clone()
        (top, bottom), (left, right), share = _rectangle(activations.shape[-2:], share)
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    # an image of weight w counts as w images, so its share of the mixed target grows with w
    own, other = share * weights, (1 - share) * weights[partner]
    total = (own + other).clamp_min(torch.finfo(weights.dtype).tiny)
    part = (own / total).unsqueeze(1)
    return mixed, part * targets + (1 - part) * targets[partner], own + other


def _rectangle(shape: torch.Size, share: float) -> tuple[tuple[int, int], tuple[int, int], float]:
    """Return a random rectangle of about ``1 - share`` of the area, and the share outside it."""
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
    """A sample of the images that an estimator was trained on, for later calls of partial_fit.

    Each image gets a random priority when it is seen, and those with the lowest ones are
    the sample: so every image seen so far has the same chance, however many calls ago it
    was, and no other image needs to be remembered ("reservoir sampling").

    Parameters
    ----------
    activations, targets, weights, counts, priorities : ndarray
        One row or value for each image of the sample.
    n_seen : int
        Number of images that the sample was drawn from.
    """

    activations: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    counts: np.ndarray
    priorities: np.ndarray
    n_seen: int

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def draw(
        cls,
        n: int,
        activations: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray,
        counts: np.ndarray,
        *,
        seed: int,
        old: "Replay | None" = None,
    ) -> "Replay":
        """Return a sample of `n` among new images and all those that `old` was drawn from.

        All images of a rare class are taken before a common class gets more.
        """
        if old is None:
            old = cls(activations[:0], targets[:0], weights[:0], counts[:0], np.empty(0), n_seen=0)
        # calls may have the same seed, and must not draw the same numbers
        priorities = np.random.default_rng((seed, old.n_seen)).random(len(targets))
        chosen = lowest_priorities(
            joined(old.targets, targets),
            np.concatenate([old.priorities, priorities]),
            n,
        )
        # rows are chosen before they are copied: all new activations may not fit in memory
        from_old, from_new = chosen[chosen < len(old)], chosen[chosen >= len(old)] - len(old)
        new = (activations, targets, weights, counts, priorities)
        n_seen = old.n_seen + len(targets)
        pairs = zip(old._columns(), new, strict=True)
        activations, targets, weights, counts, priorities = (
            joined(before[from_old], after[from_new]) for before, after in pairs
        )
        return cls(activations, targets, weights, counts, priorities, n_seen)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.activations, self.targets, self.weights, self.counts, self.priorities


def lowest_priorities(targets: np.ndarray, priorities: np.ndarray, n: int) -> np.ndarray:
    """Return the sorted positions of `n` images: the lowest priorities of each kind of target.

    What is chosen from several parts of the images, and then from what was chosen of
    each part, is what is chosen from all of them at once.
    """
    if n >= len(targets):
        return np.arange(len(targets))
    _, kinds, n_of_kind = np.unique(targets, axis=0, return_inverse=True, return_counts=True)
    order = np.lexsort((priorities, kinds.ravel()))
    # the number of images of the same kind that have a lower priority
    rank = np.empty(len(targets), dtype=np.intp)
    rank[order] = np.arange(len(targets)) - np.repeat(np.cumsum(n_of_kind) - n_of_kind, n_of_kind)
    return np.sort(np.lexsort((priorities, rank))[:n])


class TrainingSet(Dataset):
    """Activations, encoded targets, weights (n,) in the loss and counts (n,) in scores."""

    def __init__(
        self,
        views: AugmentedActivations,
        targets: np.ndarray,
        weights: np.ndarray,
        counts: np.ndarray,
        dtype: torch.dtype = torch.float32,
    ):
        self.views = views
        self.counts = counts
        self.targets = torch.from_numpy(targets)
        if targets.ndim > 1:  # positions of classes stay integers
            self.targets = self.targets.to(dtype)
        self.weights = torch.from_numpy(weights).to(dtype)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, tuple[torch.Tensor, torch.Tensor]]:
        activations = self.views.of_epoch(0)
        return activations[index], (self.targets[index], self.weights[index])


class Batches:
    """Iterates over a training set batch by batch; with a seed, it is shuffled in each epoch.

    A batch is one indexing of an array, where a DataLoader would fetch and stack
    image by image; with a linear head that would be most of the time. The order is a
    function of the seed and the epoch alone, so that training can be resumed. Batches are on
    the device that trains (`_resident`).

    Parameters
    ----------
    dataset : TrainingSet
    batch_size : int
    seed : int, default=None
    epoch : callable
        Returns the number of the epoch that begins.
    n_epochs : int, default=0
        Views are extracted ahead for the epochs before this one.
    device : torch.device, default=cpu
    on_device : ViewsOnDevice, default=None
        Where batches are taken from, with those of other data of the same fit.
    shares_memory : bool, default=False
        Whether one batch of all images is these themselves, not a copy. What trains must not
        change them in place.
    """

    def __init__(
        self,
        dataset: TrainingSet,
        batch_size: int,
        seed: int | None = None,
        epoch: Callable[[], int] = int,
        *,
        n_epochs: int = 0,
        device: torch.device = _CPU,
        on_device: ViewsOnDevice | None = None,
        shares_memory: bool = False,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.n_epochs = n_epochs
        self.shares_memory = shares_memory
        self._device = device
        self._on_device = ViewsOnDevice(device) if on_device is None else on_device
        self._columns = [moved(column, device) for column in (dataset.targets, dataset.weights)]

    def __len__(self) -> int:
        return n_batches(len(self.dataset), self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
        n, epoch = len(self.dataset), self.epoch()
        views = self.dataset.views
        activations = self._on_device.of(views, epoch)
        if epoch + 1 < self.n_epochs and not is_host(self._device):
            views.begin(epoch + 1)  # on the CPU training has the cores for itself
        if self.seed is None or self.batch_size >= n:
            order = torch.arange(n)  # the order within one batch does not matter
        else:
            generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            order = torch.randperm(n, generator=generator)
        if len(self) == 1 and self.shares_memory:
            yield activations.all(), list(self._columns)
            return
        placed = moved(order, self._device)
        for chosen, indices in zip(self._split(order), self._split(placed), strict=True):
            yield (
                activations.take(chosen, indices),
                [column[indices] for column in self._columns],
            )

    def _split(self, order: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the positions of each batch."""
        batches = order.split(self.batch_size)
        if len(batches) > len(self):
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        return batches


def n_batches(n: int, batch_size: int) -> int:
    """Return the number of batches; a single image that is left over joins the last batch.

    Batch normalisation can't train on a batch of one.
    """
    full, left = divmod(n, batch_size)
    return max(1, full + (left > 1) if batch_size > 1 else n)


def seed_of(seed: int, epoch: int, *purpose: int) -> int:
    """Return the seed of one epoch of a fit; a `purpose` has one of its own."""
    return int(np.random.SeedSequence((seed, epoch, *purpose)).generate_state(1, np.uint64)[0]) >> 1
