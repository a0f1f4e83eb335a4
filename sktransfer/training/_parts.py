"""Batches that pass in parts, where memory has no room for all of their images at once.

What lives on the device beside a step is dropped first: a batch that is copied instead has the same
sums. Those of smaller parts round otherwise, and batch statistics of parts are others.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

from ..runtime._memory import first_line, release_cached, says_out_of_memory
from ._data import Batch

Step = Callable[[Batch], dict[str, Any]]  # a loss, and outputs
Result = TypeVar("Result")


class Parts:
    """How many images of a batch pass at once: fewer from when memory runs out.

    Parameters
    ----------
    device : torch.device
    size : int, default=None
        The most images; None is a whole batch.
    least : int, default=1
        The fewest images that are tried.
    largest_step : int, default=sys.maxsize
        The most images of a training step. Larger batches, which are only validated on, are
        divided down to it before anything is dropped for them.
    make_room : callable
        Drops what lives on the device beside a step; returns whether there was anything.
    """

    def __init__(
        self,
        device: torch.device,
        size: int | None = None,
        least: int = 1,
        largest_step: int = sys.maxsize,
        make_room: Callable[[], bool] = lambda: False,
    ):
        self.device = device
        self.size = size
        self.least = least
        self._largest_step = largest_step
        self._make_room = make_room

    def run(
        self, n: int, compute: Callable[[int], Result], undo: Callable[[], None] = lambda: None
    ) -> Result:
        """Return ``compute(size)`` for a batch of `n` images, which passes `size` at a time.

        `undo` drops the gradients of parts that passed before memory ran out.

        Raises
        ------
        torch.OutOfMemoryError
            When memory runs out on the fewest images.
        """
        while True:
            size = n if self.size is None else min(n, self.size)
            try:
                return compute(size)
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not says_out_of_memory(error):
                    raise
                reason = str(error)
            # outside the handler: the traceback holds references to the tensors in memory
            undo()
            is_step = size <= self._largest_step
            has_more_room = is_step and self._make_room()
            release_cached(self.device)
            if has_more_room:
                continue
            if size <= self.least:
                raise torch.OutOfMemoryError(
                    f"the memory of the device {str(self.device)!r} ran out in training on {size} "
                    f"of {n} images at a time; freeze more stages (freeze_depth), use a smaller "
                    "batch_size, image_size or backbone, training_precision='bfloat16' or "
                    "device='cpu', or see which other processes use the device (torch says: "
                    f"{first_line(reason)})"
                )
            self.size = max(self.least if is_step else self._largest_step, (size + 1) // 2)


def in_parts(step: Step, batch: Batch, size: int) -> dict[str, Any]:
    """Return what a step returns for a batch of which at most `size` images pass at once.

    Losses and gradients of the parts add up.
    """
    if size >= len(batch[0]):
        return step(batch)
    return _sum_of(step(part) for part in parts_of(batch, size))


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield parts of a batch of at most `size` images, about equal ones.

    Their weights are scaled so that the mean losses of the parts add up to that of the batch.
    """
    activations, (targets, weights) = batch
    n_parts = -(-len(weights) // size)
    for columns in zip(
        *(column.tensor_split(n_parts) for column in (activations, targets, weights)), strict=True
    ):
        share = len(columns[0]) / len(weights)
        yield columns[0], [columns[1], columns[2] * share]


def _sum_of(steps: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the loss and the outputs of a batch, whose parts have the given ones."""
    losses, outputs = [], []
    for step in steps:
        losses.append(step["loss"].detach())
        outputs.append(step["y_pred"].detach())  # without what a backward pass would need
    return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(outputs)}
