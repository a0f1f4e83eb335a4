"""Keras' layers as torch's own: the same numbers, channels first.

Keras' layers are torch modules on its torch backend, but they take longer than
torch's, keep moving averages as parameters, and read neither ``train()`` nor ``eval()``. So a
layer's configuration is read and its counterpart in `torch.nn` is made.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ._keras_graph import KerasLayer
from ._keras_modules import (
    Add,
    AsPixel,
    ChannelNorm,
    Concatenate,
    GlobalAverage,
    LayerScale,
    Multiply,
    Normalization,
    Rescaling,
    SamePadding,
)

_Pair = tuple[int, int]
Order = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TorchLayer:
    """What a layer of Keras is in torch.

    Attributes
    ----------
    steps : dict of str to nn.Module
        Called one after the other; by the ending of their name, which is "" for one.
    weights : dict of int to (str, callable)
        For each of Keras' weights, the name of torch's, and what reorders the axes.
    """

    steps: Mapping[str, nn.Module]
    weights: Mapping[int, tuple[str, Order]] = field(default_factory=dict)


def torch_layer(layer: KerasLayer) -> TorchLayer:
    """Return what a layer of Keras is in torch, with weights that are not those of Keras.

    Raises
    ------
    ValueError
        For a layer, or a setting of one, that no network of `keras.applications` had when this
        was written.
    """
    make = _MAKERS.get(layer.kind)
    if make is None:
        raise _unknown(layer)
    if layer.config.get("data_format", "channels_last") != "channels_last":
        raise _unknown(layer, "data_format")
    return make(layer)


def _unknown(layer: KerasLayer, setting: str | None = None) -> ValueError:
    what = f"{layer.kind}({setting}={layer.config[setting]!r})" if setting else layer.kind
    return ValueError(f"the layer {layer.name!r} of Keras is a {what}, which can't be translated")


def _convolution(layer: KerasLayer) -> TorchLayer:
    height, width, n_in, n_out = layer.shapes[0]
    groups = layer.config["groups"]
    conv = _conv2d(layer, n_in * groups, n_out, (height, width), groups)
    return _with_bias(layer, conv, _of_kernel)


def _depthwise(layer: KerasLayer) -> TorchLayer:
    height, width, n_in, multiplier = layer.shapes[0]
    conv = _conv2d(layer, n_in, n_in * multiplier, (height, width), n_in)
    return _with_bias(layer, conv, _of_depthwise_kernel)


def _separable(layer: KerasLayer) -> TorchLayer:
    height, width, n_in, multiplier = layer.shapes[0]
    n_between, n_out = n_in * multiplier, layer.shapes[1][-1]
    depthwise = _conv2d(layer, n_in, n_between, (height, width), n_in, bias=False)
    pointwise = nn.Conv2d(n_between, n_out, 1, bias=layer.config["use_bias"])
    weights: dict[int, tuple[str, Order]] = {
        0: ("_depthwise.weight", _of_depthwise_kernel),
        1: (".weight", _of_kernel),
    }
    if layer.config["use_bias"]:
        weights[2] = (".bias", _as_it_is)
    steps = {**_padding(layer), "_depthwise": depthwise, "": pointwise, **_activation(layer)}
    return TorchLayer(steps, weights)


def _conv2d(
    layer: KerasLayer,
    n_in: int,
    n_out: int,
    kernel: _Pair,
    groups: int,
    bias: bool | None = None,
) -> nn.Conv2d:
    c = layer.config
    return nn.Conv2d(
        n_in,
        n_out,
        kernel,
        stride=tuple(c["strides"]),
        padding=_symmetric(layer, kernel),
        dilation=tuple(c["dilation_rate"]),
        groups=groups,
        bias=c["use_bias"] if bias is None else bias,
    )


def _with_bias(layer: KerasLayer, module: nn.Module, order: Order) -> TorchLayer:
    weights: dict[int, tuple[str, Order]] = {0: (".weight", order)}
    if layer.config["use_bias"]:
        weights[1] = (".bias", _as_it_is)
    return TorchLayer({**_padding(layer), "": module, **_activation(layer)}, weights)


def _window(layer: KerasLayer) -> tuple[_Pair, _Pair, _Pair]:
    """Return kernel, stride and dilation of a convolution or pooling."""
    c = layer.config
    kernel = c.get("kernel_size") or c["pool_size"]
    return tuple(kernel), tuple(c["strides"]), tuple(c.get("dilation_rate", (1, 1)))


def _pads_by_size(layer: KerasLayer) -> bool:
    """Tell whether Keras pads one side more than the other, or according to the image's size."""
    kernel, stride, dilation = _window(layer)
    spans = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    is_even = all(span % 2 == 0 for span in spans)
    return layer.config.get("padding") == "same" and not (stride == (1, 1) and is_even)


def _symmetric(layer: KerasLayer, kernel: _Pair) -> _Pair:
    if layer.config["padding"] == "valid" or _pads_by_size(layer):
        return 0, 0
    vertical, horizontal = layer.config.get("dilation_rate", (1, 1))
    return (kernel[0] - 1) * vertical // 2, (kernel[1] - 1) * horizontal // 2


def _padding(layer: KerasLayer, value: float = 0.0) -> dict[str, nn.Module]:
    if "strides" not in layer.config or not _pads_by_size(layer):
        return {}
    return {"_padding": SamePadding(*_window(layer), value)}


def _max_pooling(layer: KerasLayer) -> TorchLayer:
    kernel, stride, _ = _window(layer)
    pool = nn.MaxPool2d(kernel, stride, padding=_symmetric(layer, kernel))
    return TorchLayer({**_padding(layer, -math.inf), "": pool})


def _average_pooling(layer: KerasLayer) -> TorchLayer:
    kernel, stride, _ = _window(layer)
    if _pads_by_size(layer):
        raise _unknown(layer, "strides")
    padding = _symmetric(layer, kernel)
    return TorchLayer({"": nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)})


def _zero_padding(layer: KerasLayer) -> TorchLayer:
    (top, bottom), (left, right) = layer.config["padding"]
    return TorchLayer({"": nn.ZeroPad2d((left, right, top, bottom))})


def _batch_norm(layer: KerasLayer) -> TorchLayer:
    c = layer.config
    axis = c["axis"][0] if isinstance(c["axis"], list | tuple) else c["axis"]
    if axis not in (-1, 3) or layer.n_dims != 4:
        raise _unknown(layer, "axis")
    if c.get("renorm"):
        raise _unknown(layer, "renorm")
    norm = nn.BatchNorm2d(layer.shapes[-1][0], eps=c["epsilon"], momentum=1 - c["momentum"])
    names = []
    for name, used in (("weight", c["scale"]), ("bias", c["center"])):
        if used:
            names.append(name)
        else:
            norm.register_parameter(name, None)
    names += ["running_mean", "running_var"]
    return TorchLayer({"": norm}, {i: (f".{name}", _as_it_is) for i, name in enumerate(names)})


def _layer_norm(layer: KerasLayer) -> TorchLayer:
    c = layer.config
    if c["axis"] not in (-1, [-1], (-1,), layer.n_dims - 1) or c.get("rms_scaling"):
        raise _unknown(layer, "axis")
    if not (c["scale"] and c["center"]):
        raise _unknown(layer, "scale")
    kind = ChannelNorm if layer.n_dims == 4 else nn.LayerNorm
    norm = kind(layer.shapes[0][0], eps=c["epsilon"])
    return TorchLayer({"": norm}, {0: (".weight", _as_it_is), 1: (".bias", _as_it_is)})


def _dense(layer: KerasLayer) -> TorchLayer:
    n_in, n_out = layer.shapes[0]
    if layer.n_dims == 4:  # of each pixel
        conv = nn.Conv2d(n_in, n_out, 1, bias=layer.config["use_bias"])
        return _with_bias(layer, conv, _of_pixels)
    linear = nn.Linear(n_in, n_out, bias=layer.config["use_bias"])
    return _with_bias(layer, linear, _transposed)


def _layer_scale(layer: KerasLayer) -> TorchLayer:
    scale = LayerScale(layer.config["projection_dim"], layer.config["init_values"])
    return TorchLayer({"": scale}, {0: (".gamma", _as_it_is)})


def _activation(layer: KerasLayer) -> dict[str, nn.Module]:
    """Return the activation function that is a part of a layer."""
    name = layer.config["activation"]
    if name in (None, "linear"):
        return {}
    if name not in _ACTIVATIONS:
        raise _unknown(layer, "activation")
    return {"_activation": _ACTIVATIONS[name]()}


def _activation_layer(layer: KerasLayer) -> TorchLayer:
    return TorchLayer({"": _activation(layer).get("_activation", nn.Identity())})


def _relu(layer: KerasLayer) -> TorchLayer:
    c = layer.config
    if c["negative_slope"] or c["threshold"] or c["max_value"] not in (None, 6):
        raise _unknown(layer, "max_value")
    return TorchLayer({"": nn.ReLU() if c["max_value"] is None else nn.ReLU6()})


def _dropout(layer: KerasLayer) -> TorchLayer:
    rate, noise = layer.config["rate"], layer.config.get("noise_shape")
    if noise is None:
        return TorchLayer({"": nn.Dropout(rate)})
    if list(noise)[1:] != [1, 1, 1]:
        raise _unknown(layer, "noise_shape")
    return _per_image(rate)


def _stochastic_depth(layer: KerasLayer) -> TorchLayer:
    return _per_image(layer.config["drop_path_rate"])


def _per_image(rate: float) -> TorchLayer:
    from torchvision.ops import StochasticDepth  # its import takes long

    return TorchLayer({"": StochasticDepth(rate, "row")})


def _reshape(layer: KerasLayer) -> TorchLayer:
    target = list(layer.config["target_shape"])
    if len(target) != 3 or target[:2] != [1, 1]:
        raise _unknown(layer, "target_shape")
    return TorchLayer({"": nn.Unflatten(1, (target[2], 1, 1)) if layer.n_dims == 2 else AsPixel()})


def _concatenate(layer: KerasLayer) -> TorchLayer:
    if layer.config["axis"] not in (-1, 3):
        raise _unknown(layer, "axis")
    return TorchLayer({"": Concatenate()})


def _global_average(layer: KerasLayer) -> TorchLayer:
    return TorchLayer({"": GlobalAverage(bool(layer.config["keepdims"]))})


def _rescaling(layer: KerasLayer) -> TorchLayer:
    return TorchLayer({"": Rescaling(layer.config["scale"], layer.config["offset"])})


def _normalization(layer: KerasLayer) -> TorchLayer:
    c = layer.config
    if c.get("invert"):
        raise _unknown(layer, "invert")
    if c["mean"] is not None:
        return TorchLayer({"": Normalization(c["mean"], c["variance"])})
    n = layer.shapes[0][0]
    names = {0: (".mean", _as_it_is), 1: (".variance", _as_it_is)}  # the third is a counter
    return TorchLayer({"": Normalization([0.0] * n, [1.0] * n)}, names)


def _numbers(layer: KerasLayer) -> list[float]:
    return [value for value in layer.inputs if not isinstance(value, str)]


def _of_kernel(w: torch.Tensor) -> torch.Tensor:
    return w.permute(3, 2, 0, 1)


def _of_depthwise_kernel(w: torch.Tensor) -> torch.Tensor:
    return w.permute(2, 3, 0, 1).flatten(0, 1)[:, None]


def _of_pixels(w: torch.Tensor) -> torch.Tensor:
    return w.T[:, :, None, None]


def _transposed(w: torch.Tensor) -> torch.Tensor:
    return w.T


def _as_it_is(w: torch.Tensor) -> torch.Tensor:
    return w


_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_silu": nn.Hardswish,
    "hard_swish": nn.Hardswish,
}

_MAKERS: Mapping[str, Callable[[KerasLayer], TorchLayer]] = {
    "Activation": _activation_layer,
    "Add": lambda layer: TorchLayer({"": Add(number=sum(_numbers(layer)))}),
    "AveragePooling2D": _average_pooling,
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "CustomScaleLayer": lambda layer: TorchLayer({"": Add(scale=layer.config["scale"])}),
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _dropout,
    "GlobalAveragePooling2D": _global_average,
    "LayerNormalization": _layer_norm,
    "LayerScale": _layer_scale,
    "MaxPooling2D": _max_pooling,
    "Multiply": lambda layer: TorchLayer({"": Multiply(math.prod(_numbers(layer)))}),
    "Normalization": _normalization,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "StochasticDepth": _stochastic_depth,
    "ZeroPadding2D": _zero_padding,
}
