"""Train faster where batch norms are frozen: a convolution does what the norm after it does.

A batch norm in evaluation mode multiplies and adds a number per channel. Multiplying the
weights of the convolution before it gives the same activations and gradients, without reading
and writing the activation twice more. The weights are read and written instead, with their
gradients, so this is done where the activation is not smaller than they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..extraction._fold import agree, convolutions_before_norms

# Least number of values of the activation of a batch, which must be as many as those of the
# weights too. Otherwise the norm takes less time (benchmarks/bench_folded_norms.py). What is
# folded follows from the problem and not from the machine, so that a fit is the same everywhere.
_LEAST_VALUES = 2**17


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
def folded_norms(stages: nn.Module, probe: torch.Tensor, batch_size: int) -> Iterator[None]:
    """Let convolutions do the work of the frozen norms after them, as long as this lasts.

    Those do whose output of a batch is large. Parameters, buffers and their names stay as they
    are. The stages must not be used by another thread meanwhile.

    Parameters
    ----------
    stages : nn.Module
        In evaluation mode.
    probe : torch.Tensor
        An activation (1, ...) that shows which norm follows which convolution.
    batch_size : int
        Images of a step.
    """
    with torch.no_grad():
        expected, n_values = _passed(stages, probe.clone())
        pairs = [
            (conv, norm)
            for conv, norm in convolutions_before_norms(stages, probe.clone())
            if type(norm) is nn.BatchNorm2d
            and norm.weight is not None
            and _is_worth_it(conv, n_values[conv] * batch_size)
        ]
    if not pairs:
        yield
        return
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


def _is_worth_it(conv: nn.Conv2d, n_values: int) -> bool:
    """Return whether a convolution takes less time than the norm of its output."""
    return n_values >= max(conv.weight.numel(), _LEAST_VALUES)


def _passed(stages: nn.Module, probe: torch.Tensor) -> tuple[torch.Tensor, dict[nn.Module, int]]:
    """Return what stages make of a probe, and the number of values that each convolution makes."""
    n_values: dict[nn.Module, int] = {}

    def after(conv: nn.Module, args: tuple, output: torch.Tensor) -> None:
        n_values[conv] = output.numel()

    hooks = [
        module.register_forward_hook(after)
        for module in stages.modules()
        if type(module) is nn.Conv2d
    ]
    try:
        return stages(probe), n_values
    finally:
        for hook in hooks:
            hook.remove()


def _restore(pairs: Sequence[tuple[nn.Conv2d, nn.Module]]) -> None:
    for conv, norm in pairs:
        conv.__dict__.pop("norm", None)
        conv.__class__, norm.__class__ = nn.Conv2d, nn.BatchNorm2d
