import pathlib

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

from sktransfer.images._collection import ImageCollection, PixelRange, as_images, value_range
from sktransfer.images._decode import DecodeError


def _path(picture, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    return path


def _bytes(picture, tmp_path):
    return _path(picture, tmp_path).read_bytes()


CELLS = {
    "str": lambda picture, tmp: str(_path(picture, tmp)),
    "pathlib": _path,
    "numpy str": lambda picture, tmp: np.str_(_path(picture, tmp)),
    "bytes": _bytes,
    "bytearray": lambda picture, tmp: bytearray(_bytes(picture, tmp)),
    "memoryview": lambda picture, tmp: memoryview(_bytes(picture, tmp)),
    "PIL": lambda picture, tmp: Image.fromarray(picture),
    "opened PIL": lambda picture, tmp: Image.open(_path(picture, tmp)),
    "dict of bytes": lambda picture, tmp: {"bytes": _bytes(picture, tmp), "path": "a.png"},
    "dict of path": lambda picture, tmp: {"bytes": None, "path": str(_path(picture, tmp))},
    "array": lambda picture, tmp: picture,
    "reversed view": lambda picture, tmp: picture[::-1, ::-1].copy()[::-1, ::-1],
    "read-only array": lambda picture, tmp: np.frombuffer(picture.tobytes(), np.uint8).reshape(
        picture.shape
    ),
    "float array": lambda picture, tmp: picture / 255,
    "float16 array": lambda picture, tmp: (picture / 255).astype(np.float16),
    "int64 array": lambda picture, tmp: picture.astype(np.int64),
    "big-endian array": lambda picture, tmp: picture.astype(">i4"),
    "opaque RGBA array": lambda picture, tmp: np.dstack(
        [picture, np.full(picture.shape[:2], 255, np.uint8)]
    ),
    "tensor": lambda picture, tmp: torch.from_numpy(picture).permute(2, 0, 1),
    "float tensor": lambda picture, tmp: torch.from_numpy(picture).permute(2, 0, 1) / 255,
    "tensor with gradient": lambda picture, tmp: (
        torch.from_numpy(picture).permute(2, 0, 1) / 255
    ).requires_grad_(),
}


@pytest.mark.parametrize("kind", CELLS)
def test_the_same_picture_gives_the_same_pixels_in_any_cell(kind, picture, tmp_path):
    (image,) = as_images([CELLS[kind](picture, tmp_path)])
    pixels = image.read()
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, picture)
    torch.from_numpy(np.array(pixels))  # no strides that torch refuses


def test_all_kinds_of_cells_may_stand_in_one_list(picture, tmp_path):
    images = as_images([make(picture, tmp_path) for make in CELLS.values()])
    assert len(images) == len(CELLS)
    for image in images:
        np.testing.assert_array_equal(image.read(), picture)


def _object_array(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _arrow(values):
    return pytest.importorskip("pyarrow").array(values)


def _arrow_dtype(values):
    pyarrow = pytest.importorskip("pyarrow")
    kind = pyarrow.string() if isinstance(values[0], str) else pyarrow.binary()
    return pd.Series(values, dtype=pd.ArrowDtype(kind))


COLUMNS = {
    "list": list,
    "tuple": tuple,
    "object array": _object_array,
    "object array of one column": lambda values: _object_array(values)[:, np.newaxis],
    "pandas Series": pd.Series,
    "pandas Series with labels": lambda values: pd.Series(values, index=[7, 3]),
    "pandas Index": pd.Index,
    "pandas object Series": lambda values: pd.Series(values, dtype=object),
    "pandas DataFrame": lambda values: pd.DataFrame({"image": values}),
    "pandas Arrow Series": _arrow_dtype,
    "polars Series": pl.Series,
    "polars DataFrame": lambda values: pl.DataFrame({"image": values}),
    "Arrow array": _arrow,
    "Arrow chunks": lambda values: pytest.importorskip("pyarrow").chunked_array([_arrow(values)]),
    "Arrow table": lambda values: pytest.importorskip("pyarrow").table({"image": _arrow(values)}),
}
STRING_COLUMNS = {
    "array of str": np.array,
    "array of str, one column": lambda values: np.array(values)[:, np.newaxis],
    "pandas str": lambda values: pd.Series(values, dtype="str"),
    "pandas category": lambda values: pd.Series(values, dtype="category"),
    "polars category": lambda values: pl.Series(values, dtype=pl.Categorical),
}
if hasattr(np.dtypes, "StringDType"):  # from NumPy 2.0
    STRING_COLUMNS["array of variable str"] = lambda values: np.array(
        values, dtype=np.dtypes.StringDType()
    )


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_bytes_may_be_of_any_kind(kind, picture, tmp_path):
    values = [_bytes(picture, tmp_path), _bytes(picture[::-1], tmp_path)]
    images = as_images(COLUMNS[kind](values))
    assert [image.read().tolist() for image in images] == [
        picture.tolist(),
        picture[::-1].tolist(),
    ]


@pytest.mark.parametrize("kind", COLUMNS | STRING_COLUMNS)
def test_a_column_of_paths_may_be_of_any_kind(kind, picture, tmp_path):
    paths = []
    for name, pixels in {"a.png": picture, "b.png": picture[::-1]}.items():
        paths.append(str(tmp_path / name))
        Image.fromarray(pixels).save(paths[-1])
    images = as_images((COLUMNS | STRING_COLUMNS)[kind](paths))
    assert [image.describe() for image in images] == paths
    np.testing.assert_array_equal(images[1].read(), picture[::-1])


@pytest.mark.parametrize(
    "column",
    [
        lambda cell: pl.Series([cell]),
        lambda cell: pd.Series([cell]),
        lambda cell: pytest.importorskip("pyarrow").array([cell]),
    ],
    ids=["polars", "pandas", "Arrow"],
)
def test_a_column_of_structs_is_read_as_hugging_face_writes_it(column, picture, tmp_path):
    (image,) = as_images(column({"bytes": _bytes(picture, tmp_path), "path": "ant.png"}))
    assert image.describe() == "ant.png"
    np.testing.assert_array_equal(image.read(), picture)


STACKS = {
    "uint8": lambda X: X,
    "float64": lambda X: X / 255,
    "float32": lambda X: (X / 255).astype(np.float32),
    "tensor": lambda X: torch.from_numpy(X).permute(0, 3, 1, 2),
    "float tensor": lambda X: torch.from_numpy(X).permute(0, 3, 1, 2) / 255,
    "list of arrays": list,
    "tuple of arrays": tuple,
}


@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_of_colour_images_is_read_by_its_first_axis(kind, picture):
    X = np.stack([picture, picture[::-1]])
    images = as_images(STACKS[kind](X))
    assert len(images) == 2
    np.testing.assert_array_equal(np.stack([image.read() for image in images]), X)


@pytest.mark.parametrize(
    "stack",
    [
        lambda X: X,
        lambda X: X[..., np.newaxis],
        lambda X: torch.from_numpy(X)[:, None],
        lambda X: X / 255,
        list,
    ],
    ids=["(n, H, W)", "(n, H, W, 1)", "tensor (n, 1, H, W)", "float", "list of (H, W)"],
)
def test_grey_images_get_three_equal_channels(stack, picture):
    X = picture[np.newaxis, :, :, 0]
    (image,) = as_images(stack(X))
    np.testing.assert_array_equal(image.read(), np.repeat(X[0, :, :, np.newaxis], 3, axis=2))


@pytest.mark.parametrize("rows", [lambda X: X, torch.from_numpy, pd.DataFrame, pl.DataFrame, list])
def test_flattened_rows_are_read_with_image_shape(rows):
    X = np.arange(2 * 12).reshape(2, 12) % 17
    images = as_images(rows(X), image_shape=(3, 4), pixel_range=PixelRange(0, 16))
    expected = np.rint(X.reshape(2, 3, 4) * 255 / 16)
    for image, pixels in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image.read()[..., 0], pixels)


def test_boolean_arrays_are_black_and_white():
    (image,) = as_images([np.array([[False, True]])])
    np.testing.assert_array_equal(image.read()[0, :, 0], [0, 255])


def test_transparent_pixels_of_arrays_lie_on_white():
    (image,) = as_images(np.array([[[[9, 9, 9, 0], [8, 7, 6, 255]]] * 5], dtype=np.uint8))
    np.testing.assert_array_equal(image.read()[0], [[255, 255, 255], [8, 7, 6]])


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ("ant.png", "got one str; pass a list"),
        (b"...", "got one bytes"),
        (pathlib.Path("ant.png"), "pass a list"),
        ({"bytes": b"", "path": ""}, "got one dict"),
        (Image.new("L", (2, 2)), "got one Image"),
        (None, "NoneType; allowed are a list"),
        (7, "int; allowed are a list"),
        ({1, 2}, "set; allowed"),
        (np.array(7), r"shape \(\) and dtype int64"),
        (np.arange(5.0), r"shape \(5,\) and dtype float64"),
        (np.zeros((2, 3, 3), dtype=complex), "complex"),
        (np.zeros((2, 2), dtype=object), "object"),
        (np.array([b"abc"]), "dtype=object"),
        ([1, 2, 3], "first is of type int"),
        ([[1, 2], [3, 4]], "first is of type list"),
        (pd.Series([0.5, 1.5]), "first is of type float"),
        (pl.Series([5, 6]), "first is of type int"),
        (pl.LazyFrame({"a": ["b"]}), "collect()"),
        ([np.array(["a"])], "dtype <U1"),
    ],
)
def test_what_holds_no_images_is_a_type_error_that_says_what_came(X, words):
    with pytest.raises(TypeError, match=words):
        as_images(X)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_frame_of_several_columns_is_an_error_that_names_their_number(frame):
    with pytest.raises(ValueError, match="2 columns"):
        as_images(frame({"a": ["b"], "c": ["d"]}))


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (None, "missing"),
        (float("nan"), "missing"),
        (np.nan, "missing"),
        (pd.NA, "missing"),
        (pd.NaT, "missing"),
        ({"bytes": None, "path": None}, "neither bytes nor a path"),
        ({"image": 3}, "without 'bytes'"),
        ({"bytes": "text"}, "without 'bytes'"),
        (3, "type int"),
        (object(), "type object"),
        (np.zeros((2, 2, 2, 2)), r"\(2, 2, 2, 2\)"),
        (np.zeros((3, 8, 8)), "moveaxis"),
        (np.zeros((0, 8)), "no pixels"),
        (np.array([[object()]]), "dtype object"),
        (torch.zeros(8, 8, 3), "permute"),
        (np.array([[np.nan]]), "NaN"),
        (np.array([[np.inf]]), "infinite"),
        (np.array([[1.5]]), "pixel_range"),
        (np.array([[-1]]), "pixel_range"),
        (np.array([[256]]), "pixel_range"),
        (np.array([[3]], dtype=np.uint16), r"pixel_range=\(0, 65535\)"),
    ],
)
def test_a_bad_cell_fails_alone_and_says_why(cell, words, picture):
    images = as_images([picture, cell])
    np.testing.assert_array_equal(images[0].read(), picture)
    with pytest.raises(DecodeError, match=words):
        images[1].read()
    assert images[1].describe()


@pytest.mark.parametrize("cell", [None, pd.NA, 3, {"image": 3}, "no/such/file.png"])
def test_a_bad_cell_has_no_digest(cell, picture):
    images = as_images([picture, cell])
    with pytest.raises(DecodeError):
        images[1].digest()


def test_a_column_of_missing_values_is_of_the_right_kind():
    assert len(as_images([None, float("nan"), pd.NA])) == 3


def test_an_empty_collection_has_no_images():
    assert len(as_images([])) == 0


def test_making_a_collection_opens_no_file():
    images = as_images(["no/such/file.png"] * 3)
    assert isinstance(images, ImageCollection)
    assert images[2].describe() == "no/such/file.png"


def test_the_range_is_taken_over_all_arrays(picture, tmp_path):
    X = [np.array([[2.0, 7.0]]), np.array([[-1.0, np.nan]]), _path(picture, tmp_path)]
    assert value_range(as_images(X)) == PixelRange(-1, 7, clip=True)


def test_the_range_of_encoded_images_can_not_be_fitted(picture, tmp_path):
    with pytest.raises(ValueError, match="pixel_range"):
        value_range(as_images([_path(picture, tmp_path)]))


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 144)])
def test_a_tensor_of_complex_numbers_is_refused(shape):
    with pytest.raises(TypeError, match=r"torch\.complex64; allowed are"):
        as_images(torch.ones(shape, dtype=torch.complex64), image_shape=(8, 6, 3))
