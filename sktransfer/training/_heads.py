"""From a pooled row to the network's outputs."""

import torch
from torch import nn

from ._recipe import HeadParameter


def make_head(head: HeadParameter, n_in: int, n_out: int, dropout: float = 0.0) -> nn.Module:
    """Return the module that a parameter's value asks for.

    ``"linear"`` is one layer; a tuple of widths has a hidden layer for each before it;
    a callable makes the module itself. Dropout comes before each linear layer.
    """
    if callable(head):
        return _check_head(head, n_in, n_out)
    layers: list[nn.Module] = []
    for width in () if isinstance(head, str) else head:
        layers += [*_drop(dropout), nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    layers += [*_drop(dropout), nn.Linear(n_in, n_out)]
    return nn.Sequential(*layers)


def _drop(dropout: float) -> list[nn.Module]:
    return [nn.Dropout(dropout)] if dropout else []


def _check_head(head, n_in: int, n_out: int) -> nn.Module:
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
