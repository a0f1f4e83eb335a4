"""The evaluation transform: from 8-bit RGB pixels to the network's 8-bit square."""

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .._spec import InputSpec

# Resizing by the shorter side and taking the middle shows a network what it was
# trained on. Of an image this many times longer than wide it would show next to
# nothing, so such an image is shown whole, stretched.
MAX_ASPECT = 4


def preprocess(pixels: np.ndarray, spec: InputSpec) -> torch.Tensor:
    """Resize and crop uint8 (H, W, 3) to uint8 (3, size, size); no normalisation.

    On 8-bit data with antialiasing, as torchvision's presets do it.
    """
    image = as_tensor(pixels)
    height, width = image.shape[1:]
    shape = resized_shape(height, width, spec)
    resized = _resized(image, shape, spec.interpolation)
    cropped = F.center_crop(resized, [spec.size, spec.size])
    # an image of the right size is not resampled, and would still be the user's array
    return cropped.clone() if resized is image or shape == [height, width] else cropped


def _resized(image: torch.Tensor, shape: list[int], interpolation: str) -> torch.Tensor:
    if interpolation not in ("bilinear", "bicubic"):
        return F.resize(image, shape, InterpolationMode(interpolation), antialias=True)
    if shape == list(image.shape[1:]):
        return image
    # torch's own, in fixed-point numbers on every machine. torchvision's takes 32-bit floats
    # on some processors (0.21 with AVX-512), and rows would depend on where they are made.
    # The first stride says that channels come last; by image[None]'s torch would not know,
    # and repack.
    batch = image.as_strided((1, *image.shape), (image.numel(), *image.stride()))
    return torch.nn.functional.interpolate(batch, shape, mode=interpolation, antialias=True)[0]


def resized_shape(height: int, width: int, spec: InputSpec) -> list[int]:
    """Return height and width of the picture that the middle square is taken from."""
    if spec.crop == "squash":
        return [spec.resize, spec.resize]
    if max(height, width) > MAX_ASPECT * min(height, width):
        return [spec.size, spec.size]
    if height <= width:
        return [spec.resize, max(spec.size, int(spec.resize * width / height))]
    return [max(spec.size, int(spec.resize * height / width)), spec.resize]


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Return uint8 (H, W, 3) as a tensor (3, H, W), without a copy where it may be written to."""
    image = torch.from_numpy(np.array(pixels, copy=not pixels.flags.writeable))
    return image.permute(2, 0, 1)
