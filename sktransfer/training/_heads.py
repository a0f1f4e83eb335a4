"""From a pooled row to logits."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

HeadParameter = str | Sequence[int] | Callable[[int, int], nn.Module]


def make_head(head: HeadParameter, n_in: int, n_out: int) -> nn.Module:
    """Return the module that a parameter's value asks for.

    ``"linear"`` is one layer; a tuple of widths has a hidden layer for each before it;
    a callable makes the module itself.
    """
    if isinstance(head, str):
        return nn.Linear(n_in, n_out)
    if callable(head):
        module = head(n_in, n_out)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"head={head!r} returned {module!r} for ({n_in}, {n_out}); it must return an "
                "nn.Module that maps rows (n, n_in) to (n, n_out)"
            )
        with torch.inference_mode():
            shape = tuple(module.eval()(torch.zeros(2, n_in)).shape)
        if shape != (2, n_out):
            raise ValueError(
                f"head={head!r} maps rows (2, {n_in}) to {shape}; it must map them to (2, {n_out})"
            )
        return module
    layers: list[nn.Module] = []
    for width in head:
        layers += [nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_out))
