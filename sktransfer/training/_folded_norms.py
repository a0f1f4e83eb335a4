"""Train faster where batch norms are frozen: a convolution does what the norm after it does.

A batch norm in evaluation mode multiplies and adds a number per channel. Multiplying the
weights of the convolution before it gives the same activations and gradients, without reading
and writing the activation twice more.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..extraction._fold import agree, convolutions_before_norms


class _ScaledConv2d(nn.Conv2d):
    """A convolution whose weights are multiplied by the scale of the norm after it."""

    norm: nn.BatchNorm2d  # no submodule: it has a place of its own in the network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias * scale
        return self._conv_forward(x, self.weight * scale[:, None, None, None], shift)


class _PassedNorm(nn.BatchNorm2d):
    """A norm that the convolution before it has done."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@contextmanager
def folded_norms(stages: nn.Module, probe: torch.Tensor) -> Iterator[None]:
    """Let convolutions do the work of the frozen norms after them, as long as this lasts.

    Parameters, buffers and their names stay as they are. The stages must not be used by
    another thread meanwhile.

    Parameters
    ----------
    stages : nn.Module
        In evaluation mode.
    probe : torch.Tensor
        An activation (1, ...) that shows which norm follows which convolution.
    """
    with torch.no_grad():
        expected = stages(probe.clone())
        pairs = [
            pair
            for pair in convolutions_before_norms(stages, probe.clone())
            if type(pair[1]) is nn.BatchNorm2d and pair[1].weight is not None
        ]
    try:
        for conv, norm in pairs:
            conv.__dict__["norm"] = norm
            conv.__class__, norm.__class__ = _ScaledConv2d, _PassedNorm
        with torch.no_grad():
            is_same = agree(expected, stages(probe.clone()))
        if not is_same:  # the output of a convolution is used a second time
            _restore(pairs)
        yield
    finally:
        _restore(pairs)


def _restore(pairs: list[tuple[nn.Conv2d, nn.Module]]) -> None:
    for conv, norm in pairs:
        conv.__dict__.pop("norm", None)
        conv.__class__, norm.__class__ = nn.Conv2d, nn.BatchNorm2d
