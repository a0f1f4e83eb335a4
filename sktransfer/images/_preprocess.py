"""The evaluation transform: from 8-bit RGB pixels to the network's 8-bit square.

`preprocess` calls a kernel of torch that resizes 8-bit images in fixed-point numbers, as
Pillow does. `Resampling` computes the same numbers with two matrix products, so that a graph
that knows nothing of resizing, such as ONNX's, gives the same pixels.
"""

import numpy as np
import torch
from torch import nn

from .._spec import InputSpec

# An ingredient of every key: raise it when the same pixels would give another square.
PREPROCESSING_VERSION = 1

# The shorter side is resized and the middle square is taken, as in the training of the
# networks. Of an image this many times longer than wide that square would show almost
# nothing, so such an image is resized to the square as a whole.
MAX_ASPECT = 4


def preprocess(pixels: np.ndarray, spec: InputSpec) -> torch.Tensor:
    """Resize and crop uint8 (H, W, 3) to uint8 (3, size, size); no normalisation.

    On 8-bit data with antialiasing, as torchvision's presets do it. Pixels may have a fourth
    value, which is left out.
    """
    height, width = pixels.shape[:2]
    shape = resized_shape(height, width, spec)
    square = torch.from_numpy(_middle(resize(pixels, shape, spec.interpolation), spec.size))
    # an image of the right size is not resampled, and would still be the user's array
    return square.clone() if shape == [height, width] else square


def _middle(image: np.ndarray, size: int) -> np.ndarray:
    """Return the middle square of (3, H, W), as torchvision's ``center_crop`` does in more time."""
    height, width = image.shape[1:]
    if min(height, width) < size:  # padded with black
        from torchvision.transforms.v2 import functional as F

        return F.center_crop(torch.from_numpy(image), [size, size]).numpy()
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[:, top : top + size, left : left + size]


def resize(pixels: np.ndarray, shape: list[int], interpolation: str) -> np.ndarray:
    """Return uint8 (H, W, 3) as (3, H, W) of another shape, the same bits on every processor.

    A fourth value of the pixels is left out. Arrays are cut and turned by numpy: each of torch's
    calls releases the interpreter's lock, which other threads wait for.
    """
    if not pixels.flags.writeable:  # torch takes no others
        pixels = pixels.copy()
    image = pixels.transpose(2, 0, 1)
    if not _resizes_four_channels():
        image = image[:3]
    if interpolation not in ("bilinear", "bicubic"):
        # imported where it is used: it takes longer than all else
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        mode = InterpolationMode(interpolation)
        return F.resize(torch.from_numpy(image[:3]), shape, mode, antialias=True).numpy()
    if shape == list(image.shape[1:]):
        return image[:3]
    # torch's own, in fixed-point numbers on every machine. torchvision's takes 32-bit floats
    # on some processors (0.21 with AVX-512), and rows would depend on where they are made.
    # The first stride says that channels come last; by image[None]'s, which is 0, torch would
    # not know, and repack.
    strides = (image.size, *image.strides)
    batch = np.lib.stride_tricks.as_strided(image, (1, *image.shape), strides)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(batch), shape, mode=interpolation, antialias=True
    )
    return resized.numpy()[0, :3]


def _resizes_four_channels() -> bool:
    """Tell whether a fourth channel is left out after resizing, and not before.

    torch's kernel for these processors works on four bytes a pixel, and packs and unpacks those
    of three. The one for others takes each channel for itself.
    """
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def resized_shape(height: int, width: int, spec: InputSpec) -> list[int]:
    """Return height and width of the picture that the middle square is taken from."""
    if spec.crop == "squash":
        return [spec.resize, spec.resize]
    if max(height, width) > MAX_ASPECT * min(height, width):
        return [spec.size, spec.size]
    if height <= width:
        return [spec.resize, max(spec.size, int(spec.resize * width / height))]
    return [max(spec.size, int(spec.resize * height / width)), spec.resize]


# As in torch's UpSampleKernel.cpp: weights are 16-bit integers, of as many binary places
# as the largest of them allows, and never more than 22.
_WEIGHT_BITS = 15
_MOST_PLACES = 22

_BICUBIC = -0.5  # Pillow's coefficient, which torch takes with antialiasing
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # of a filter, in pixels


class Resampling(nn.Module):
    """8-bit images (n, H, W, 3) to the 8-bit squares (n, 3, size, size) of `preprocess`."""

    def __init__(self, spec: InputSpec):
        super().__init__()
        if spec.interpolation not in _REACH:
            raise ValueError(
                f"interpolation={spec.interpolation!r} can't be exported; "
                f"{' and '.join(repr(name) for name in _REACH)} can"
            )
        self.spec = spec
        # the longer side after resizing; a fixed number of rows, for a fixed graph
        longest = spec.resize if spec.crop == "squash" else MAX_ASPECT * spec.resize
        self.n_positions = max(spec.size, longest)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n, height, width, _ = images.shape
        new_height, new_width = self._resized(_number(height), _number(width))
        across, unit_across = self._weights(width, new_width)
        down, unit_down = self._weights(height, new_height)
        # Plain products of two matrices: torch 2.6 exports others of unknown size badly.
        rows = images.permute(0, 1, 3, 2).reshape(n * height * 3, width).double()
        rows = _to_8_bit(torch.mm(rows, across.T), unit_across).reshape(
            n, height, 3, self.spec.size
        )
        columns = rows.permute(0, 2, 3, 1).reshape(n * 3 * self.spec.size, height)
        columns = _to_8_bit(torch.mm(columns, down.T), unit_down)
        square = columns.reshape(n, 3, self.spec.size, self.spec.size).transpose(2, 3)
        return square.to(torch.uint8)

    def _resized(
        self, height: torch.Tensor, width: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return height and width after resizing, before the square is cut out."""
        size, resize = self.spec.size, self.spec.resize
        if self.spec.crop == "squash":
            return _number(resize), _number(resize)
        shorter, longer = torch.minimum(height, width), torch.maximum(height, width)
        is_long = longer > MAX_ASPECT * shorter
        new_longer = torch.clamp(torch.floor(resize * longer / shorter), min=size)
        new_longer = torch.where(is_long, _number(size), new_longer)
        new_shorter = torch.where(is_long, _number(size), _number(resize))
        is_wide = height <= width
        return (
            torch.where(is_wide, new_shorter, new_longer),
            torch.where(is_wide, new_longer, new_shorter),
        )

    def _weights(self, n_old: int, n_new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weights (size, n_old) of one axis, as whole numbers, and their unit."""
        positions = torch.arange(self.n_positions, dtype=torch.float64)[:, None]
        scale = _number(n_old) / n_new
        pixels = torch.arange(n_old, dtype=torch.float64)[None, :]
        offsets = pixels - scale * (positions + 0.5) + 0.5
        weights = self._filter(offsets / torch.clamp(scale, min=1.0))
        weights = torch.where(positions < n_new, weights, torch.zeros_like(weights))
        total = weights.sum(1, keepdim=True)
        weights = weights / torch.where(total == 0, torch.ones_like(total), total)

        # the largest weight is at an edge, so it is found before the edges are cut off
        doublings = _number(2) ** torch.arange(1, _MOST_PLACES + 1, dtype=torch.float64)
        fits = torch.floor(0.5 + weights.max() * doublings) < 2**_WEIGHT_BITS
        unit = _number(2) ** fits.double().sum()

        size = self.spec.size
        surplus = n_new - size
        # torch.round as Python's: halves to even; a side that is too short is padded
        start = torch.where(surplus >= 0, torch.round(surplus / 2), torch.ceil(surplus / 2))
        rows = torch.arange(size, dtype=torch.float64) + start
        inside = (rows >= 0) & (rows < n_new)
        chosen = weights[torch.clamp(rows, 0, self.n_positions - 1).long()]
        whole = torch.sign(chosen) * torch.floor(torch.abs(chosen) * unit + 0.5)
        return torch.where(inside[:, None], whole, torch.zeros_like(whole)), unit

    def _filter(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.abs(x)
        if self.spec.interpolation == "bilinear":
            return torch.clamp(1.0 - x, min=0.0)
        a = _BICUBIC
        near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
        return torch.where(x < 1.0, near, torch.where(x < 2.0, far, torch.zeros_like(x)))


def _number(value: int) -> torch.Tensor:
    # one axis, because exporters round numbers without any to 32 bits
    return torch.full((1,), value, dtype=torch.float64)


def _to_8_bit(sums: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Divide, round halves up, and cut off: exact, since sums are below 2**53."""
    return torch.clamp(torch.floor(sums / unit + 0.5), 0.0, 255.0)
