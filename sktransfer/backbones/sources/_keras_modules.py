"""What Keras' layers do and torch has no layer for, channels first."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_KERAS_EPSILON = 1e-7  # keras.config.epsilon(), by which its Normalization is bounded
_Pair = tuple[int, int]


class SamePadding(nn.Module):
    """Pad as ``padding="same"``: the image is divided by the stride, and odd pixels are behind.

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        Of the layer that follows.
    value : float
    """

    def __init__(
        self,
        kernel: _Pair,
        stride: _Pair,
        dilation: _Pair,
        value: float,
    ):
        super().__init__()
        self.kernel, self.stride, self.dilation, self.value = kernel, stride, dilation, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # torch takes the last axis first
            size, kernel, stride = x.shape[2 + axis], self.kernel[axis], self.stride[axis]
            span = (kernel - 1) * self.dilation[axis] + 1
            total = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads, value=self.value)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


class ReverseChannels(nn.Module):
    """RGB to BGR."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(1)


class Rescaling(nn.Module):
    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, scale: Any, offset: Any):
        super().__init__()
        for name, value in (("scale", scale), ("offset", offset)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.offset


class Normalization(nn.Module):
    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, mean: Any, variance: Any):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("variance", torch.tensor(variance, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation = self.variance.sqrt().clamp(min=_KERAS_EPSILON)
        return (x - self.mean[:, None, None]) / deviation[:, None, None]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    def __init__(self, n_channels: int, value: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((n_channels,), value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma[:, None, None]


class GlobalAverage(nn.Module):
    def __init__(self, keepdims: bool):
        super().__init__()
        self.keepdims = keepdims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=self.keepdims)


class AsPixel(nn.Module):
    """Maps of one pixel stay what they are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], -1, 1, 1)


class Concatenate(nn.Module):
    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        return torch.cat(xs, 1)


class Add(nn.Module):
    """The sum of activations and a number; all but the first are multiplied by `scale`."""

    def __init__(self, number: float = 0.0, scale: float = 1.0):
        super().__init__()
        self.number, self.scale = number, scale

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        for other in others:
            x = x + (other if self.scale == 1 else other * self.scale)
        return x + self.number if self.number else x


class Multiply(nn.Module):
    """The product of activations and a number."""

    def __init__(self, number: float = 1.0):
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        for other in others:
            x = x * other
        return x * self.number if self.number != 1 else x
