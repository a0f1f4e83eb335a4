"""The axes of arrays; arrays that could be read in two ways are refused."""

import math
from collections.abc import Sequence

import numpy as np

_CHANNELS = (1, 3, 4)


class LayoutError(ValueError):
    """The shape of an array is not that of images, or could be read in two ways."""


def check_image_shape(shape: tuple[int, ...], image_shape: Sequence[int] | None) -> None:
    """Raise LayoutError unless `shape` is that of one image, (H, W) or (H, W, C)."""
    if len(shape) == 2:
        return
    if len(shape) != 3:
        raise LayoutError(f"array of shape {shape}; one image is (H, W) or (H, W, C)")
    channels_first = "np.moveaxis(image, 0, -1)"
    if shape[2] not in _CHANNELS:
        hint = f"; channels come last: {channels_first}" if shape[0] in _CHANNELS else ""
        raise LayoutError(f"array of shape {shape}; expected 1, 3 or 4 channels last{hint}")
    if shape[0] in _CHANNELS and not _says(image_shape, shape):
        raise LayoutError(
            f"array of shape {shape} that could be read two ways: pass {channels_first} when "
            f"its channels come first, image_shape={shape} when they come last"
        )


def check_stack(X: np.ndarray, image_shape: Sequence[int] | None) -> None:
    """Raise LayoutError unless `X` is a stack (n, H, W) or (n, H, W, C) of images."""
    if X.ndim not in (3, 4):
        raise LayoutError(
            f"X is an array of shape {X.shape}; a stack of images is (n, H, W) or (n, H, W, C)"
        )
    if X.ndim == 3 and X.shape[2] in _CHANNELS and not _says(image_shape, X.shape[1:]):
        raise LayoutError(
            f"X of shape {X.shape} could be read two ways: pass X[np.newaxis] when it is one "
            f"image, image_shape={X.shape[1:]} when it is {X.shape[0]} grey ones"
        )
    if X.ndim == 4 and X.shape[3] not in _CHANNELS:
        hint = ""
        if X.shape[1] in _CHANNELS:
            hint = "; channels come last: X.transpose(0, 2, 3, 1), or pass a torch tensor"
        raise LayoutError(
            f"X of shape {X.shape} is no stack (n, H, W, C) with 1, 3 or 4 channels{hint}"
        )
    if X.ndim == 4 and X.shape[1] in _CHANNELS and not _says(image_shape, X.shape[1:]):
        raise LayoutError(
            f"X of shape {X.shape} could be read two ways: pass X.transpose(0, 2, 3, 1) when "
            f"its channels come first, image_shape={X.shape[1:]} when they come last"
        )


def check_tensor(shape: tuple[int, ...], image_shape: Sequence[int] | None) -> None:
    """Raise LayoutError unless `shape` is a torch tensor's (n, C, H, W)."""
    if len(shape) != 4 or shape[1] not in _CHANNELS:
        hint = ""
        if len(shape) == 4 and shape[3] in _CHANNELS:
            hint = "; its channels seem to come last: X.permute(0, 3, 1, 2), or X.numpy()"
        raise LayoutError(
            f"X is a torch tensor of shape {shape}; a tensor of images has shape "
            f"(n, C, H, W) with 1, 3 or 4 channels{hint}"
        )
    _, channels, height, width = shape
    if width in _CHANNELS and not _says(image_shape, (height, width, channels)):
        raise LayoutError(
            f"X is a torch tensor of shape {shape} and could be read two ways: pass X.numpy() "
            f"when its channels come last, image_shape={(height, width, channels)} when first"
        )


def row_shape(n_values: int, image_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of the image in a row of `n_values`; one -1 is computed."""
    if image_shape is None:
        raise LayoutError(
            f"X is a 2-D array of rows of {n_values} numbers. Where a row is an image, say how "
            "with image_shape=(H, W) or (H, W, C). Where it holds the features that a "
            "transformer made of an image, give it to a scikit-learn model such as "
            "LogisticRegression: the estimators of sktransfer read images"
        )
    shape = [int(side) for side in image_shape]
    if shape.count(-1) == 1:
        known = -math.prod(shape)
        if known > 0 and n_values % known == 0:
            shape[shape.index(-1)] = n_values // known
    fits = math.prod(shape) == n_values and min(shape, default=0) > 0
    if not fits or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in _CHANNELS):
        raise LayoutError(
            f"image_shape={tuple(image_shape)!r} does not fit rows of {n_values} numbers; "
            "expected (H, W) or (H, W, C) with 1, 3 or 4 channels"
        )
    return tuple(shape)


def _says(image_shape: Sequence[int] | None, shape: tuple[int, ...]) -> bool:
    """Return whether the user's image shape is this shape; -1 is any number."""
    return (
        image_shape is not None
        and len(image_shape) == len(shape)
        and all(said in (-1, side) for said, side in zip(image_shape, shape, strict=True))
    )
