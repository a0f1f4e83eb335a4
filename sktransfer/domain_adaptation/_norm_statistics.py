"""Batch-norm statistics of a set of images, layer after layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..backbones._backbone import Backbone
from ..runtime._result_array import ResultArray

# Pixels that pass at once: half a gigabyte of activations in a ResNet-50. A set of no more passes
# a stage once, whatever its norms.
_PIXELS_AT_ONCE = 2**21


@dataclass(frozen=True)
class NormChange:
    """What became of the statistics of one batch norm.

    Attributes
    ----------
    name : str
        The module's name in the network.
    mean : tuple of ndarray of shape (n_channels,)
        Running means before and after.
    deviation : tuple of ndarray of shape (n_channels,)
        Roots of the running variances before and after.
    """

    name: str
    mean: tuple[np.ndarray, np.ndarray]
    deviation: tuple[np.ndarray, np.ndarray]


def norms_of(backbone: Backbone) -> dict[nn.Module, str]:
    """Return the batch norms that have statistics, with their names."""
    used = {module for part in _parts(backbone) for module in part.modules()}
    return {
        module: name
        for name, module in backbone.model.named_modules()
        if module in used and _has_statistics(module)
    }


def recalibrate(
    backbone: Backbone, squares: np.ndarray, n_source: float, device: torch.device
) -> list[NormChange]:
    """Set the statistics of all batch norms from images, in place; return what changed.

    A norm sees its inputs as they are once all norms before it have their new statistics,
    as it will when the network is used. Its moments are those of all images together. So each
    norm takes a pass of the images through the layers of its stage before it; a set that
    is one batch needs a single pass.

    Parameters
    ----------
    backbone : Backbone
        Not shared with others.
    squares : ndarray of shape (n_images, 3, size, size), uint8
    n_source : float
        The number of images as which the present statistics count.
    device : torch.device
    """
    names = norms_of(backbone)
    batch_size = max(1, _PIXELS_AT_ONCE // (squares.shape[2] * squares.shape[3]))
    changes: list[NormChange] = []
    inputs: np.ndarray = squares
    first: list[nn.Module] = [backbone.normalise()]
    parts = _parts(backbone)
    with torch.inference_mode(False), torch.no_grad():
        for i, part in enumerate(parts):
            stage = nn.Sequential(*first, part).eval().to(device)
            changes += _recalibrate_stage(stage, names, inputs, n_source, batch_size, device)
            if i + 1 < len(parts):
                inputs = _outputs(stage, inputs, batch_size, device)
            first = []
            part.to("cpu")
    return changes


def _parts(backbone: Backbone) -> list[nn.Module]:
    """Return the stages, and what the network computes after its pooling."""
    stages: list[nn.Module] = list(backbone.stages.values())
    return stages if backbone.pre_logits is None else [*stages, backbone.pre_logits]


def _recalibrate_stage(
    stage: nn.Module,
    names: dict[nn.Module, str],
    inputs: np.ndarray,
    n_source: float,
    batch_size: int,
    device: torch.device,
) -> list[NormChange]:
    changes: list[NormChange] = []
    left = {module for module in stage.modules() if module in names}
    weight = len(inputs) / (n_source + len(inputs))
    while left:
        moments = _Moments()
        n_left = len(left)

        def see(norm: nn.Module, arguments: tuple[torch.Tensor, ...], m: _Moments = moments):
            if norm not in left or (m.norm is not None and m.norm is not norm):
                return
            # A norm that a network applies twice has the moments of the first time.
            m.add(norm, arguments[0])
            if m.n_images < len(inputs):
                raise _Seen
            changes.append(_set(norm, names[norm], *m.result(), weight))
            left.discard(norm)
            if m.n_in_batch < len(inputs):
                raise _Seen
            m.clear()  # all images are in this batch: go on to the next norm with it

        hooks = [norm.register_forward_pre_hook(see) for norm in left]
        try:
            for batch in _batches(inputs, batch_size, device):
                moments.begin(len(batch))
                try:
                    stage(batch)
                except _Seen:
                    continue
        finally:
            for hook in hooks:
                hook.remove()
        if len(left) == n_left:  # layers that no image passes keep what they have
            break
    return changes


class _Seen(Exception):
    """The norm in question has seen a batch, which need not go further."""


class _Moments:
    """Mean and variance of the input of one norm, over images and places, joined in float64."""

    def __init__(self) -> None:
        self.n_images = self.n_in_batch = 0
        self.clear()

    def begin(self, n_images: int) -> None:
        """Begin a batch; a norm in it may be given one row for each patch of an image."""
        self.n_images += n_images
        self.n_in_batch = n_images

    def clear(self) -> None:
        self.norm: nn.Module | None = None
        self._n_values = 0
        self._mean: torch.Tensor | float = 0.0
        self._squares: torch.Tensor | float = 0.0  # summed differences from the mean

    def add(self, norm: nn.Module, x: torch.Tensor) -> None:
        self.norm = norm
        channels = x.shape[1]
        axes = [axis for axis in range(x.ndim) if axis != 1]
        n = x.numel() // channels
        variance, mean = (v.cpu().double() for v in torch.var_mean(x.float(), axes, correction=0))
        # as Chan, Golub and LeVeque join the moments of two samples
        difference, total = mean - self._mean, self._n_values + n
        self._squares = self._squares + n * variance + difference**2 * (self._n_values * n / total)
        self._mean = self._mean + difference * (n / total)
        self._n_values = total

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance; the latter without bias, as torch's running variance."""
        assert isinstance(self._mean, torch.Tensor)
        assert isinstance(self._squares, torch.Tensor)
        return self._mean, self._squares / max(1, self._n_values - 1)


def _set(
    norm: nn.Module, name: str, mean: torch.Tensor, variance: torch.Tensor, weight: float
) -> NormChange:
    """Mix the statistics of a norm with those of images, which have a weight from 0 to 1."""
    running_mean, running_var = norm.running_mean, norm.running_var
    assert isinstance(running_mean, torch.Tensor)
    assert isinstance(running_var, torch.Tensor)
    old_mean, old_variance = running_mean.cpu().double(), running_var.cpu().double()
    new_mean = (1 - weight) * old_mean + weight * mean
    new_variance = (1 - weight) * old_variance + weight * variance
    running_mean.copy_(new_mean)
    running_var.copy_(new_variance)
    eps: float = getattr(norm, "eps", 0.0)
    return NormChange(
        name,
        (old_mean.numpy(), new_mean.numpy()),
        ((old_variance + eps).sqrt().numpy(), (new_variance + eps).sqrt().numpy()),
    )


def _outputs(
    stage: nn.Module, inputs: np.ndarray, batch_size: int, device: torch.device
) -> np.ndarray:
    """Return the activations after a stage; in a temporary file where they are large."""
    result, start = ResultArray(len(inputs)), 0
    for batch in _batches(inputs, batch_size, device):
        values = stage(batch).float().cpu().numpy()
        result.write(dict(enumerate(values, start)))
        start += len(values)
    return result.finish()


def _batches(inputs: np.ndarray, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, len(inputs), batch_size):
        # copied: a stage may work in place, and the array may be mapped from a file
        batch = torch.from_numpy(np.array(inputs[start : start + batch_size]))
        yield batch.to(device)


def _has_statistics(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):  # those are of each image
        return False
    # also of frozen batch norms, which torchvision and timm have as classes of their own
    return all(
        isinstance(getattr(module, name, None), torch.Tensor)
        for name in ("running_mean", "running_var")
    )
