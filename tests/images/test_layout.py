import numpy as np
import pytest
import torch

from sktransfer.images._collection import as_images
from sktransfer.images._layout import LayoutError, row_shape


@pytest.mark.parametrize(
    ("shape", "words", "image_shape"),
    [
        ((5, 8, 3), "X\\[np.newaxis\\]", (8, 3)),
        ((5, 8, 1), "image_shape=\\(8, 1\\)", (8, 1)),
        ((5, 3, 8, 3), "transpose\\(0, 2, 3, 1\\)", (3, 8, 3)),
        ((5, 1, 8, 4), "image_shape=\\(1, 8, 4\\)", (-1, 8, 4)),
    ],
)
def test_an_array_of_two_readings_is_refused_until_image_shape_says_which(
    shape, words, image_shape
):
    X = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(LayoutError, match=f"two ways.*{words}"):
        as_images(X)
    with pytest.raises(LayoutError, match="two ways"):
        as_images(X, image_shape=(99, 99))
    image = as_images(X, image_shape=image_shape)[0]
    assert image.read().shape == (*shape[1:3], 3)


def test_a_tensor_of_two_readings_is_refused_until_image_shape_says_which():
    X = torch.zeros(5, 3, 8, 4)
    with pytest.raises(LayoutError, match=r"two ways.*X\.numpy"):
        as_images(X)
    assert as_images(X, image_shape=(8, 4, 3))[0].read().shape == (8, 4, 3)


@pytest.mark.parametrize("cell", [np.zeros((3, 8, 3)), torch.zeros(3, 8, 3)])
def test_a_cell_of_two_readings_is_refused_until_image_shape_says_which(cell):
    X = [np.zeros((9, 9)), cell]
    with pytest.raises(Exception, match="two ways"):
        as_images(X)[1].read()
    image_shape = (3, 8, 3) if isinstance(cell, np.ndarray) else (8, 3, 3)
    assert as_images(X, image_shape=image_shape)[1].read().shape == image_shape


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros((5, 3, 8, 8)), "channels come last: X.transpose"),
        (np.zeros((5, 8, 8, 2)), "1, 3 or 4 channels"),
        (np.zeros((5, 8, 8, 8, 3)), "\\(5, 8, 8, 8, 3\\)"),
        (np.zeros((5, 64)), "image_shape"),
        (torch.zeros(5, 8, 8, 3), "X.permute"),
        (torch.zeros(5, 8, 8), "\\(n, C, H, W\\)"),
        (torch.zeros(5, 64), "image_shape"),
    ],
)
def test_what_is_no_stack_of_images_is_an_error_that_says_what_to_do(X, words):
    with pytest.raises(LayoutError, match=words):
        as_images(X)


def test_the_number_of_images_does_not_change_how_they_are_read():
    """A fold of 1, 3 or 4 grey images is not taken for one image of as many channels."""
    for n_images in (1, 2, 3, 4, 5):
        assert len(as_images(np.zeros((n_images, 8, 9), dtype=np.uint8))) == n_images


@pytest.mark.parametrize(
    ("n_values", "image_shape", "expected"),
    [
        (64, (8, 8), (8, 8)),
        (64, (-1, 16), (4, 16)),
        (192, (8, 8, 3), (8, 8, 3)),
        (192, [8, -1, 3], (8, 8, 3)),
        (64, np.array([8, 8]), (8, 8)),
    ],
)
def test_one_side_of_a_row_is_worked_out(n_values, image_shape, expected):
    assert row_shape(n_values, image_shape) == expected


@pytest.mark.parametrize(
    ("n_values", "image_shape"),
    [
        (64, (8, 9)),
        (64, (-1, 9)),
        (64, (-1, -1)),
        (64, (64,)),
        (64, ()),
        (0, (0, 8)),
        (64, (8, 4, 2)),
        (64, (-8, -8)),
        (64, (-1, 0)),
        (64, (2, 4, 8, 1)),
    ],
)
def test_an_image_shape_that_does_not_fit_is_an_error(n_values, image_shape):
    with pytest.raises(LayoutError, match="does not fit"):
        row_shape(n_values, image_shape)
