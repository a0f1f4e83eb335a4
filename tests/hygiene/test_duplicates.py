import io
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageEnhance

from sktransfer import count_forward_passes
from sktransfer.exceptions import UnreadableImageWarning
from sktransfer.hygiene import near_duplicates


@pytest.fixture
def images(scene, encode):
    """Return 0 to 5: pictures; 6: 0 again; 7: 1 saved as JPEG; 8: 2, brighter."""
    pictures = [ImageEnhance.Brightness(scene(seed, (320, 240))).enhance(0.7) for seed in range(6)]
    first = [encode(picture) for picture in pictures]
    brighter = encode(ImageEnhance.Brightness(pictures[2]).enhance(1.15))
    return [*first, first[0], encode(pictures[1], "JPEG", quality=80), brighter]


LABELS = [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_equal_and_nearly_equal_images_are_found_and_no_others(images):
    found = near_duplicates(images)
    assert [(one.positions, one.equal) for one in found] == [
        ((0, 6), True),
        ((1, 7), False),
        ((2, 8), False),
    ]
    assert found[0].cosine == 1
    assert 0.95 <= found[1].cosine < 1
    assert found.labels.tolist() == LABELS
    assert found.labels.dtype == np.int64


def test_the_same_picture_as_a_file_and_as_pixels_is_a_duplicate(scene, encode):
    found = near_duplicates([scene(0), encode(scene(0)), np.asarray(scene(0)), scene(1)])
    assert found.labels.tolist() == [0, 0, 0, 1]
    assert not found[0].equal


KINDS = {
    "list": list,
    "tuple": tuple,
    "object array": lambda images: np.array(images, dtype=object),
    "column": lambda images: np.array(images, dtype=object).reshape(-1, 1),
    "dicts": lambda images: [{"bytes": image, "path": None} for image in images],
    "pandas Series": pd.Series,
    "pandas DataFrame": lambda images: pd.DataFrame({"image": images}, index=range(9, 0, -1)),
    "polars Series": pl.Series,
    "polars DataFrame": lambda images: pl.DataFrame({"image": images}),
    "Arrow array": pa.array,
    "Arrow column": lambda images: pa.chunked_array([images[:4], images[4:]]),
    "Arrow table": lambda images: pa.table({"image": images}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_column_gives_the_same_sets(images, kind):
    assert near_duplicates(KINDS[kind](images)).labels.tolist() == LABELS


def test_an_array_and_a_tensor_give_the_same_sets(scene):
    stack = np.stack([np.asarray(scene(seed)) for seed in (0, 1, 0, 2)])
    stack[2, 0, 0] ^= 1
    assert near_duplicates(stack).labels.tolist() == [0, 1, 0, 2]
    tensor = torch.from_numpy(stack).permute(0, 3, 1, 2)
    assert near_duplicates(tensor).labels.tolist() == [0, 1, 0, 2]


def test_flattened_rows_are_read_with_image_shape_and_pixel_range():
    rows = np.random.default_rng(0).random((4, 1600)) * 16
    rows[3] = rows[1]
    found = near_duplicates(rows, image_shape=(40, 40), pixel_range="fit")
    assert found.labels.tolist() == [0, 1, 2, 1]


def test_only_candidates_pass_the_network_and_each_once(images, cache):
    with count_forward_passes() as counter:
        near_duplicates(images, feature_cache=cache)
    assert counter.computed == 4  # 1 and 7, 2 and 8: the others differ in more bits, or in none
    with count_forward_passes() as counter:
        near_duplicates(images, feature_cache=cache, min_cosine=0.9)
    assert counter.computed == 0


def test_a_higher_cosine_finds_fewer(images):
    assert near_duplicates(images, min_cosine=1.0).labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 6, 7]


def test_without_a_backbone_the_hash_decides_and_nothing_passes(images):
    with count_forward_passes() as counter:
        found = near_duplicates(images, backbone=None)
    assert counter.computed == 0
    assert found.labels.tolist() == LABELS
    assert found[1].cosine is None


def test_a_grey_copy_is_found_by_the_hash_alone(scene):
    X = [scene(0), scene(0).convert("L")]
    assert near_duplicates(X, backbone=None).labels.tolist() == [0, 0]


def test_unreadable_images_are_named_in_a_warning_and_have_no_duplicate(images):
    X = [b"GIF89a", *images, b"GIF89a", None]
    with pytest.warns(
        UnreadableImageWarning, match=r"3 of 12 .*X\[0\] bytes.*check_images"
    ) as seen:
        found = near_duplicates(X)
    assert seen[0].filename == __file__
    assert found.labels.tolist() == [0, *(1 + np.array(LABELS)), 7, 8]


def test_images_that_cannot_be_read_at_all_have_no_duplicates():
    with pytest.warns(UnreadableImageWarning):
        assert near_duplicates([b"one", b"two"]).labels.tolist() == [0, 1]


def test_a_single_image_is_alone(scene):
    found = near_duplicates([scene(0)])
    assert len(found) == 0
    assert found.labels.tolist() == [0]


def test_many_empty_pages_are_one_set(encode, scene):
    pages = np.zeros((300, 32, 32, 3), dtype=np.uint8)
    pages[np.arange(300), 0, np.arange(300) % 32] = np.arange(300)[:, np.newaxis] % 7
    found = near_duplicates(pages)
    assert found.labels.max() == 0


def test_it_prints_as_a_table_and_becomes_a_frame(images):
    found = near_duplicates(images)
    assert repr(found).splitlines()[0] == (
        "9 images: 3 sets of duplicates (1 of equal content), 3 images more than once"
    )
    assert found.to_frame()["positions"].tolist() == [(0, 6), (1, 7), (2, 8)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_distance": 32}, "'max_distance' parameter of near_duplicates"),
        ({"min_cosine": 1.5}, "'min_cosine' parameter of near_duplicates"),
        ({"backbone": 3}, "'backbone' parameter of near_duplicates"),
        ({"backbone": "unheard_of"}, "unheard_of"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(scene, options, message):
    with pytest.raises(ValueError, match=message):
        near_duplicates([scene(0), scene(0)], **options)


def test_nothing_is_warned_of_when_all_can_be_read(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near_duplicates(images)


def test_photographs_saved_smaller_or_at_low_quality_are_found(hymenoptera):
    paths, _ = hymenoptera["val"]
    photographs = []
    for path in paths[::6]:
        with Image.open(path) as image:
            photographs.append(image.convert("RGB"))
    X = list(photographs)
    for image in photographs:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=40)
        X += [file.getvalue(), image.resize((image.width // 2, image.height // 2))]
    labels = near_duplicates(X).labels
    n = len(photographs)
    assert labels[:n].tolist() == list(range(n))
    assert np.mean(labels[n:] == np.repeat(labels[:n], 2)) > 0.95
