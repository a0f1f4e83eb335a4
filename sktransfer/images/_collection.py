"""What the user passed as ``X``, as a sequence of references to single images."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ._colour import PixelRange
from ._image_ref import (
    ArrayImage,
    EncodedImage,
    FileImage,
    ImageReference,
    NoImage,
    PillowImage,
    RemoteImage,
)
from ._layout import LayoutError, check_image_shape, check_stack, check_tensor, row_shape
from ._url import described, is_url

__all__ = [
    "ImageCollection",
    "ImageReference",
    "PixelRange",
    "as_images",
    "row_shape",
    "value_range",
]

_ALLOWED = (
    "a list, tuple, 1-D object array, Series or one-column DataFrame of paths, URLs, bytes, "
    "PIL images, {'bytes': ..., 'path': ...} dicts or arrays (H, W) or (H, W, 3); an array "
    "(n, H, W, C) or (n, H, W); a torch tensor (n, C, H, W); or, with image_shape, a 2-D "
    "array of flattened rows"
)
_NUMERIC = "uifb"  # dtype kinds: unsigned, signed, float, bool


class ImageCollection(Sequence):
    """A sequence of image references over `items`, which are made on access."""

    def __init__(
        self,
        items: Sequence | np.ndarray,
        *,
        image_shape: tuple[int, ...] | None = None,
        pixel_range: PixelRange | None = None,
    ):
        self._items = items
        self._is_stack = isinstance(items, np.ndarray)  # of numbers and of a shape that are checked
        self._image_shape = image_shape
        self._pixel_range = pixel_range

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(  # type: ignore[override]  # nothing asks for slices
        self, index: int
    ) -> ImageReference:
        if self._is_stack:
            return ArrayImage(self._items[index], self._pixel_range)
        return _make_ref(self._items[index], self._image_shape, self._pixel_range)

    def take(self, positions: Sequence[int]) -> "ChosenImages":
        """Return the images at these positions, in this order; none is read or copied."""
        return ChosenImages(self, positions)


class ChosenImages(Sequence):
    """Some images of a collection."""

    def __init__(self, images: Sequence, positions: Sequence[int]):
        self._images = images
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(  # type: ignore[override]  # nothing asks for slices
        self, index: int
    ) -> ImageReference:
        return self._images[self._positions[index]]


def as_images(
    X: Any,
    *,
    image_shape: tuple[int, ...] | None = None,
    pixel_range: PixelRange | None = None,
) -> ImageCollection:
    """Return the images of `X`, whatever kind `X` is of.

    A cell without an image becomes a reference that can't be read and holds the cause.

    Parameters
    ----------
    X : object
        Any kind that the estimators take.
    image_shape : tuple of int, default=None
        The shape of one image, for rows of numbers and for arrays whose axes could be
        read in two ways.
    pixel_range : PixelRange, default=None
        What black and white are in arrays, and in files of more than 8 bits.

    Raises
    ------
    TypeError
        When `X` is not a container of images, or none of its cells is an image.
    ValueError
        When an array can't hold images, or its axes could be read in two ways.
    """
    if isinstance(X, (str, bytes, bytearray, os.PathLike, Mapping, Image.Image)):
        raise TypeError(f"X must hold several images, got one {type(X).__name__}; pass a list: [X]")
    items: Sequence | np.ndarray
    if isinstance(X, torch.Tensor):
        items = _tensor_items(X, image_shape)
    else:
        items = _items(X, image_shape)
    images = ImageCollection(items, image_shape=image_shape, pixel_range=pixel_range)
    _check_kind(images)
    return images


def value_range(images: ImageCollection) -> PixelRange:
    """Return the range of the values of all arrays, for ``pixel_range="fit"``."""
    low, high = np.inf, -np.inf
    for image in images:
        if isinstance(image, ArrayImage):
            values = image.pixels
            if values.dtype.kind == "f":
                values = values[np.isfinite(values)]
            if values.size:
                low = min(low, float(values.min()))
                high = max(high, float(values.max()))
    if low > high:
        raise ValueError(
            "pixel_range='fit' takes the range of the arrays in X, and X holds none; "
            "encoded images know their range: leave pixel_range=None, or say (low, high) "
            "for files of more than 8 bits"
        )
    return PixelRange(low, high, clip=True)


def _items(X: Any, image_shape: tuple[int, ...] | None) -> Sequence | np.ndarray:
    """Return the cells of a column, or the images of a stack of arrays."""
    X = _column(X, image_shape)
    if isinstance(X, np.ndarray):
        if X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUT":
            X = X[:, 0]
        if X.ndim == 1 and X.dtype.kind in "OUT":
            return X.tolist()
        if X.dtype.kind == "S":
            raise TypeError(
                f"X is an array of dtype {X.dtype}, which cuts zero bytes off the end of "
                "each image; use dtype=object"
            )
        if X.dtype.kind not in _NUMERIC or X.ndim < 2:
            raise TypeError(
                f"X is an array of shape {X.shape} and dtype {X.dtype}; allowed are {_ALLOWED}"
            )
        if X.ndim == 2:
            return X.reshape(len(X), *row_shape(X.shape[1], image_shape))
        check_stack(X, image_shape)
    return X


def _column(X: Any, image_shape: tuple[int, ...] | None) -> Sequence | np.ndarray:
    """Return the cells of whatever table, series or sequence holds them."""
    if isinstance(X, np.ndarray):
        return X
    if hasattr(type(X), "collect"):  # polars, where even the names of columns cost
        raise TypeError(f"X is a {type(X).__name__}; pass X.collect()")
    names = getattr(X, "column_names", getattr(X, "columns", None))  # pyarrow has both
    if names is not None:
        if len(names) != 1:
            if image_shape is not None and hasattr(X, "to_numpy"):
                return X.to_numpy()  # a table of pixels, one column each
            raise ValueError(
                f"X is a {type(X).__name__} of {len(names)} columns; images are in one. Pass "
                "the column, or use ColumnTransformer to give it to this estimator"
            )
        X = X.iloc[:, 0] if hasattr(X, "iloc") else X[names[0]]
    if hasattr(X, "to_pylist"):  # Arrow arrays
        return X.to_pylist()
    if hasattr(X, "to_numpy") and hasattr(X, "dtype"):  # pandas and polars series
        return list(X)
    if not isinstance(X, Sequence):
        raise TypeError(f"X is a {type(X).__name__}; allowed are {_ALLOWED}")
    return X


def _tensor_items(X: torch.Tensor, image_shape: tuple[int, ...] | None) -> np.ndarray:
    values = _as_numpy(X)
    if values.dtype.kind not in _NUMERIC:
        raise TypeError(f"X is a torch tensor of dtype {X.dtype}; allowed are {_ALLOWED}")
    if X.ndim == 2:
        return values.reshape(len(X), *row_shape(X.shape[1], image_shape))
    check_tensor(tuple(X.shape), image_shape)
    return values.transpose(0, 2, 3, 1)


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type; float32 holds each value
        tensor = tensor.float()
    return tensor.numpy()


def _check_kind(images: ImageCollection) -> None:
    """Raise TypeError when no cell holds an image: then `X` is wrong, not one image."""
    wrong = None
    for image in images:
        if not isinstance(image, NoImage):
            return
        if wrong is None and not image.is_missing:
            wrong = image
    if wrong is not None:
        raise TypeError(
            f"no cell of X is an image, the first is {wrong.reason}; allowed are {_ALLOWED}"
        )


def _make_ref(
    cell: Any, image_shape: tuple[int, ...] | None, pixel_range: PixelRange | None
) -> ImageReference:
    if isinstance(cell, (str, os.PathLike)):
        path = os.fsdecode(cell)
        if "://" in path and is_url(path):
            return RemoteImage(path, pixel_range)
        return FileImage(path, pixel_range)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return EncodedImage(bytes(cell), pixel_range=pixel_range)
    if isinstance(cell, Image.Image):
        return PillowImage(cell, pixel_range)
    if isinstance(cell, Mapping):  # a Hugging Face data set's cell
        return _ref_of_mapping(cell, pixel_range)
    if isinstance(cell, (np.ndarray, torch.Tensor)):
        try:
            return ArrayImage(_image_array(cell, image_shape), pixel_range)
        except (LayoutError, TypeError) as error:
            return NoImage(f"an {error}")
    if is_missing(cell):
        return NoImage("a missing value", is_missing=True)
    return NoImage(f"of type {type(cell).__name__}, which is no image")


def _ref_of_mapping(cell: Mapping, pixel_range: PixelRange | None) -> ImageReference:
    data, path = cell.get("bytes"), cell.get("path")
    if isinstance(data, (bytes, bytearray, memoryview)):
        name = described(path) if isinstance(path, str) and is_url(path) else path
        return EncodedImage(bytes(data), name, pixel_range)
    if data is None and isinstance(path, (str, os.PathLike)):
        return _make_ref(path, None, pixel_range)
    if {"bytes", "path"} & set(cell) and data is None and path is None:
        return NoImage("a dict with neither bytes nor a path", is_missing=True)
    return NoImage("a dict without 'bytes' of type bytes or 'path' of type str")


def _image_array(
    cell: np.ndarray | torch.Tensor, image_shape: tuple[int, ...] | None
) -> np.ndarray:
    """Return one image (H, W) or (H, W, C); a torch tensor has its channels first."""
    if isinstance(cell, torch.Tensor):
        cell = _as_numpy(cell)
        if cell.ndim == 3:
            check_tensor((1, *cell.shape), image_shape)
            return cell.transpose(1, 2, 0)
    if cell.dtype.kind not in _NUMERIC:
        raise TypeError(f"array of dtype {cell.dtype}, expected numbers")
    if cell.ndim == 1 and image_shape is not None:
        return cell.reshape(row_shape(len(cell), image_shape))
    check_image_shape(cell.shape, image_shape)
    return cell


def is_missing(cell: Any) -> bool:
    """Return whether a value is None, NaN, NaT or pandas.NA."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, (float, np.floating)) and cell != cell
