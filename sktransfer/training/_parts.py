"""Batches that pass in parts, where memory has no room for all of their images at once."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from ..runtime._memory import first_line, release_cached, says_out_of_memory
from ._data import Batch

Step = Callable[[Batch], dict[str, Any]]  # a loss, and outputs


class Parts:
    """How many images of a batch pass at once: fewer from when memory runs out.

    Parameters
    ----------
    device : torch.device
    size : int, default=None
        The most images; None is a whole batch.
    least : int, default=1
        The fewest images that are tried.
    """

    def __init__(self, device: torch.device, size: int | None = None, least: int = 1):
        self.device = device
        self.size = size
        self.least = least

    def run(self, step: Step, batch: Batch, undo: Callable[[], None]) -> dict[str, Any]:
        """Return what a step returns for a batch; losses and gradients of its parts add up.

        `undo` drops the gradients of parts that passed before memory ran out.

        Raises
        ------
        torch.OutOfMemoryError
            When memory runs out on the fewest images.
        """
        n = len(batch[0])
        while True:
            size = n if self.size is None else min(n, self.size)
            try:
                if size == n:
                    return step(batch)
                return _sum_of(step(part) for part in parts_of(batch, size))
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not says_out_of_memory(error):
                    raise
                reason = str(error)
            # outside the handler: the traceback holds references to the tensors in memory
            undo()
            release_cached(self.device)
            if size <= self.least:
                raise torch.OutOfMemoryError(
                    f"the memory of the device {str(self.device)!r} ran out in training on {size} "
                    f"of {n} images at a time; freeze more stages (freeze_depth), use a smaller "
                    "image_size or backbone, training_precision='bfloat16' or device='cpu', or see "
                    f"which other processes use the device (torch says: {first_line(reason)})"
                )
            self.size = max(self.least, (size + 1) // 2)


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
