"""A network made of Keras' layers, translated to torch's, and its stages."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from .._architecture import NetworkStructure
from .._stages import Step
from .._trace import _computing_nothing, _images
from ._keras_graph import IMAGES, KerasLayer
from ._keras_layers import Order, torch_layer
from ._keras_modules import ChannelNorm, ReverseChannels, SamePadding

_BLOCK = re.compile(r"(.*?block_?\d+[a-z]?|expanded_conv_\d+)_")  # in names of layers

_READ_BY_NEXT = (ChannelNorm, nn.ZeroPad2d, SamePadding)  # they belong to the layer after them


@dataclass(frozen=True)
class Call:
    """One call of a module; the result has the module's name."""

    module: str
    inputs: tuple[str, ...]
    layer: str  # of Keras


@dataclass(frozen=True)
class WeightOf:
    """Where Keras has a weight of this network.

    Attributes
    ----------
    layer : str
    index : int
        Among the layer's weights.
    order : callable
        From Keras' order of axes to torch's.
    """

    layer: str
    index: int
    order: Order


class KerasNetwork(nn.Module):
    """Layers that are called one after the other, on images (n, 3, H, W).

    Parameters
    ----------
    layers : sequence of KerasLayer
    bgr : bool
        Whether the first of them takes images in the order blue, green, red.
    image_size : int or None
        The only size of images, in pixels, for which Keras has padded them.
    """

    def __init__(self, layers: Sequence[KerasLayer], bgr: bool, image_size: int | None = None):
        super().__init__()
        self.image_size = image_size
        self.layers = tuple(layers)
        self.weights: dict[str, WeightOf] = {}
        calls: list[Call] = []
        results = {IMAGES: IMAGES}
        if bgr:
            self.add_module("bgr", ReverseChannels())
            calls.append(Call("bgr", (IMAGES,), "bgr"))
            results[IMAGES] = "bgr"
        for layer in self.layers:
            translated = torch_layer(layer)
            inputs = tuple(results[name] for name in layer.inputs if isinstance(name, str))
            for ending, module in translated.steps.items():
                name = layer.name + ending
                self.add_module(name, module)
                calls.append(Call(name, inputs, layer.name))
                inputs = (name,)
            (results[layer.name],) = inputs
            for index, (ending, order) in translated.weights.items():
                self.weights[layer.name + ending] = WeightOf(layer.name, index, order)
        self.calls = tuple(calls)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _run(self, self.calls, IMAGES, x)

    def draw(self) -> None:
        """Draw the weights as Keras' layers do by default (Glorot and Bengio, 2010)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class _Part(nn.Module):
    """A part of the calls of a network, over its own modules."""

    def __init__(self, calls: Sequence[Call], start: str, model: nn.Module):
        super().__init__()
        self.calls, self.start = tuple(calls), start
        for call in self.calls:
            self.add_module(call.module, model.get_submodule(call.module))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _run(self, self.calls, self.start, x)


def _run(model: nn.Module, calls: Iterable[Call], start: str, x: torch.Tensor) -> torch.Tensor:
    values = {start: x}
    for call in calls:
        x = getattr(model, call.module)(*(values[name] for name in call.inputs))
        values[call.module] = x
    return x


def structure_of(model: KerasNetwork, size: int, only_size: int | None) -> NetworkStructure:
    """Return the stages of a network: one for each resolution, named after their last layer.

    Parameters
    ----------
    model : KerasNetwork
        In evaluation mode.
    size : int
        Pixels of a square image.
    only_size : int or None
        The only size that it takes.
    """
    shapes = _shapes(model, size)
    ends = _ends(model, shapes, size)
    stages: dict[str, tuple[Step, ...]] = {}
    first, start = 0, IMAGES
    for end in ends:
        last = model.calls[end]
        stages[last.layer] = (partial(_Part, model.calls[first : end + 1], start),)
        first, start = end + 1, last.module
    pooling = model.calls[first:]
    is_average = [type(model.get_submodule(c.module)).__name__ for c in pooling] == [
        "GlobalAverage"
    ]
    pre_logits = () if is_average else (partial(_Part, pooling, start),)
    return NetworkStructure(stages, head=(), image_size=only_size, pre_logits=pre_logits)


def _shapes(model: KerasNetwork, size: int) -> list[tuple[int, ...]]:
    """Return the shape of what each call returns, without computing it."""
    images = _images(model, size)
    values, shapes = {IMAGES: images}, []
    with torch.no_grad(), _computing_nothing(images):
        for call in model.calls:
            value = getattr(model, call.module)(*(values[name] for name in call.inputs))
            values[call.module] = value
            shapes.append(tuple(value.shape))
    return shapes


def _ends(model: KerasNetwork, shapes: Sequence[tuple[int, ...]], size: int) -> list[int]:
    """Return the positions of the calls with which stages end, in order."""
    cuts = _cuts(model.calls, shapes)
    levels = {cut: round(math.log2(size / shapes[cut][2])) for cut in cuts}
    ends: list[int] = []
    for level in sorted(set(levels.values())):
        of_level = [cut for cut in cuts if levels[cut] == level]
        ends.append(_before_block(model, of_level, cuts))
    return _with_parameters(model, ends)


def _cuts(calls: Sequence[Call], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the positions of calls whose result is all that later calls read."""
    positions = {call.module: i for i, call in enumerate(calls)}
    last_use: dict[int, int] = {}
    for i, call in enumerate(calls):
        last_use.update({positions[name]: i for name in call.inputs if name in positions})
    cuts, open_until = [], 0
    for i in range(len(calls)):
        if open_until <= i and len(shapes[i]) == 4:
            cuts.append(i)
        open_until = max(open_until, last_use.get(i, i))
    return cuts


def _before_block(model: KerasNetwork, of_level: list[int], cuts: list[int]) -> int:
    """Return the last cut of a resolution, not one inside the block that lowers it."""
    last = of_level[-1]
    following = range(last + 1, len(model.calls))
    lowering = [i for i in following if isinstance(_module(model, i), nn.Conv2d | nn.MaxPool2d)]
    if not lowering or last == cuts[-1]:
        return last
    positions = {call.module: i for i, call in enumerate(model.calls)}
    start = lowering[0]
    layer, is_convolution = model.calls[start].layer, isinstance(_module(model, start), nn.Conv2d)
    while (before := positions.get(model.calls[start].inputs[0])) is not None and isinstance(
        _module(model, before), _READ_BY_NEXT
    ):
        start = before
    if is_convolution and (block := _BLOCK.match(layer)):
        named = (i for i in range(of_level[0], start) if model.calls[i].layer.startswith(block[0]))
        start = min([start, *named])
    outside = [i for i in of_level if i < start]
    return outside[-1] if outside else last


def _with_parameters(model: KerasNetwork, ends: list[int]) -> list[int]:
    """Return the ends of stages that have parameters; the others are joined to a neighbour."""
    joined: list[int] = []
    first = 0
    for end in ends:
        calls = range(first, end + 1)
        if any(True for i in calls for _ in _module(model, i).parameters()):
            joined.append(end)
        elif joined:
            joined[-1] = end
        else:
            continue
        first = end + 1
    return joined


def _module(model: KerasNetwork, position: int) -> nn.Module:
    return model.get_submodule(model.calls[position].module)


def state_from(
    model: KerasNetwork, arrays: Mapping[tuple[str, int], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return a state dict of weights by Keras' layer and index.

    What no file has, such as the scale of a `Rescaling`, is that of `model`.
    """
    state = {k: v for k, v in model.state_dict().items() if k not in model.weights}
    for name, weight in model.weights.items():
        if (value := arrays.get((weight.layer, weight.index))) is not None:
            state[name] = weight.order(value)
    return state
