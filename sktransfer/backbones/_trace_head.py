"""Find what a network computes between its last activation and its last linear layer."""

import inspect
from typing import Any, cast

import torch
from torch import fx, nn

from ._stages import Layout, Pool
from ._trace import (
    TracedStage,
    _channels_last,
    _computing_nothing,
    _defaults,
    _images,
    _Layers,
    _prune,
    _result,
)

_SAME = 1e-5  # relative, between two orders of one sum


def trace_pre_logits(
    model: nn.Module, size: int, layout: Layout, channels_first: bool, last_layer: bool = False
) -> tuple[TracedStage, ...]:
    """Return ``model.forward_head(x, pre_logits=True)`` as steps over its own layers.

    With `last_layer` it is ``model.forward_head(x)``.

    The result is empty where the method is the pooling that `layout` names and nothing
    else, where the network has no head, and where it returns several activations.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, with the methods of timm's networks.
    size : int
        Pixels of a square image that the network takes.
    layout : Layout
    channels_first : bool
        Whether the last stage gives maps (n, C, H, W) where ``model.forward_features``
        gives (n, H, W, C).

    Raises
    ------
    ValueError
        When the method can't be traced.
    """
    images = _images(model, size)
    with torch.no_grad(), _computing_nothing(images):
        activation = cast(Any, model).forward_features(images)
    if not isinstance(activation, torch.Tensor):
        return ()
    tracer = _HeadLayers("forward_head", activation, fixed=False)
    arguments = {**_defaults(cast(Any, model).forward_head), "pre_logits": not last_layer}
    try:
        graph = tracer.trace(model, concrete_args=arguments)
    except NotImplementedError:  # an encoder, which says so
        return ()
    except Exception as error:  # networks fail to trace in ways of their own
        raise ValueError(f"{type(model).__name__}.forward_head can't be traced: {error}") from error
    _prune(graph)
    shape = tuple(activation.shape)
    if channels_first and _channels_last(activation):
        _take_channels_first(graph)
        shape = (shape[0], shape[3], *shape[1:3])
    _flatten_result(graph)
    step = TracedStage(graph)
    return () if _only_pools(step(model), layout, shape) else (step,)


class _HeadLayers(_Layers):
    """Trace into modules that hold a linear layer and other layers before it."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if "pre_logits" in inspect.signature(type(module).forward).parameters:
            return False
        return super().is_leaf_module(module, name)


def _take_channels_first(graph: fx.Graph) -> None:
    images = next(iter(graph.nodes))
    with graph.inserting_after(images):
        channels_last = graph.call_method("permute", (images, 0, 2, 3, 1))
    images.replace_all_uses_with(channels_last, lambda user: user is not channels_last)


def _flatten_result(graph: fx.Graph) -> None:
    """Make rows of maps of one pixel, which a 1 x 1 convolution reads as a linear layer does."""
    result = _result(graph)
    output = next(iter(result.users))
    with graph.inserting_before(output):
        rows = graph.call_method("flatten", (result, 1))
    result.replace_all_uses_with(rows, lambda user: user is not rows)


def _only_pools(pre_logits: nn.Module, layout: Layout, shape: tuple[int, ...]) -> bool:
    """Return whether a traced head equals the plain pooling for random values."""
    if any(True for _ in (*pre_logits.parameters(), *pre_logits.buffers())):
        return False
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pooled, rows = Pool(layout.head, layout.n_prefix_tokens)(drawn), pre_logits(drawn)
    return pooled.shape == rows.shape and torch.allclose(pooled, rows, rtol=_SAME, atol=_SAME)
