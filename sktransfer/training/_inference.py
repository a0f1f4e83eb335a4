"""Forward passes without training: from activations to rows, and to outputs.

A fitted module may be in use by several threads at once, so none of them changes it: it
is used as it is on the CPU, and a copy of it on any other device.
"""

from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from torch import nn

from ..runtime._device_copies import copy_on
from ..runtime._memory import BatchLimit, in_fitting_parts
from ..runtime._threads import torch_threads_within_cores
from ._head import TrainablePart
from ._resident import is_host, moved

# On a CPU a batch is small, so that one image alone costs little more than its own pass.
_PREDICTION_BATCH = {"cpu": 4}
_PREDICTION_BATCH_ON_GPU = 64
_BATCH_SIZE = {"cpu": 64}
_BATCH_SIZE_ON_GPU = 256
# Batches that a GPU is given before their results are waited for.
_BATCHES_IN_A_ROW = 32


def pooled_rows(stages: nn.Module, activations: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the rows (n, width) that stages make of activations before they are trained.

    The stages are moved to `device`, where they will be trained, and stay there. Rows that no
    stage is left for are returned as they are, and are not copied.
    """
    if isinstance(stages, nn.Identity) and activations.dtype == np.float32:
        return activations
    # before inference mode: parameters that move within it can't be trained any more
    stages = stages.to(device).eval()
    size = _BATCH_SIZE.get(device.type, _BATCH_SIZE_ON_GPU)
    return _in_batches(activations, size, device, lambda batch: stages(batch).float())


def outputs(module: nn.Module, activations: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the outputs of a fitted module for each image, (n, n_outputs), float64.

    Every batch has the same size, the last one filled up: another size is another
    order of summation, and a prediction would depend on its neighbours in the last
    digits. Where memory runs out, it is smaller.

    Parameters
    ----------
    module : nn.Module
        A module on the CPU, in evaluation mode. It is not changed. On another device a
        copy of its parameters is made for the call, and released after it: memory for
        one copy there, and the time to transfer it.
    activations : ndarray of shape (n, ...)
    device : torch.device
        Where to compute. A module in float64 computes on the CPU, where it was trained:
        not every GPU has float64.
    """
    device = device_of(module, device)
    if device.type != "cpu":
        module = copy_on(module, device)
    size = _PREDICTION_BATCH.get(device.type, _PREDICTION_BATCH_ON_GPU)
    threads = module.threads_for(size) if isinstance(module, TrainablePart) else None
    with torch_threads_within_cores(threads):
        return _in_batches(activations, size, device, module, fills=True).astype(np.float64)


def device_of(module: nn.Module, device: torch.device) -> torch.device:
    """Return where a fitted module computes: one in float64 on the CPU."""
    return torch.device("cpu") if _dtype_of(module) == torch.float64 else device


def _in_batches(
    activations: np.ndarray,
    size: int,
    device: torch.device,
    compute: Callable[[torch.Tensor], torch.Tensor],
    *,
    fills: bool = False,
) -> np.ndarray:
    """Return what a function computes of batches on a device.

    Where memory runs out, a batch is computed in parts. `fills` says whether the last batch is
    filled up, with copies of an image.
    """

    def of(start: int, limit: BatchLimit) -> torch.Tensor:
        batch = activations[start : start + size]
        n = len(batch)
        if fills and n < size:  # here, so that parts are smaller than the filled batch
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - n, axis=0)])

        def part_of(part: slice) -> torch.Tensor:
            return compute(moved(torch.from_numpy(batch[part]), device))

        return torch.cat(in_fitting_parts(len(batch), part_of, limit, device))[:n]

    limit, computed, waiting = BatchLimit(), [], []
    with torch.inference_mode():
        for start in range(0, len(activations), size):
            waiting.append(of(start, limit))
            if is_host(device) or len(waiting) == _BATCHES_IN_A_ROW:
                computed.append(torch.cat(waiting).cpu())  # which waits for the device
                waiting = []
        if waiting:
            computed.append(torch.cat(waiting).cpu())
    return torch.cat(computed).numpy()


def _dtype_of(module: nn.Module) -> torch.dtype:
    """Return the precision of a module, which need not have parameters: a head may have none."""
    return next(
        (
            tensor.dtype
            for tensor in chain(module.parameters(), module.buffers())
            if tensor.is_floating_point()
        ),
        torch.float32,
    )
