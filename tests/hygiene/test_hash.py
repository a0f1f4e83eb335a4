import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from sktransfer.hygiene import _hash
from sktransfer.hygiene._hash import HASH_BITS, hash_image, near_pairs


def distance(one, other):
    first, second = (hash_image(np.asarray(image.convert("RGB"))) for image in (one, other))
    return int((first != second).sum())


def all_pairs(hashes, max_distance):
    found = [np.stack(pair, axis=1) for pair in near_pairs(hashes, max_distance)]
    return {tuple(pair) for pair in np.concatenate([np.empty((0, 2), int), *found]).tolist()}


@pytest.mark.parametrize("seed", range(5))
def test_brightness_contrast_and_size_hardly_change_the_hash(scene, seed):
    # not too bright to start with: what is cut off at white is another picture
    image = ImageEnhance.Brightness(scene(seed, (320, 240))).enhance(0.7)
    assert distance(image, ImageEnhance.Brightness(image).enhance(1.2)) <= 12
    assert distance(image, ImageEnhance.Contrast(image).enhance(0.7)) <= 12
    assert distance(image, image.resize((160, 120))) <= 12
    assert distance(image, image.convert("L")) == 0


def test_other_pictures_have_other_hashes(scene):
    hashes = np.array([hash_image(np.asarray(scene(seed))) for seed in range(40)])
    assert all_pairs(hashes, 12) == set()


def test_even_pictures_have_one_hash_whatever_their_noise_of_rounding():
    rng = np.random.default_rng(0)
    hashes = [
        hash_image((level + rng.integers(0, 2, (64, 64, 1)) + np.zeros(3)).astype(np.uint8))
        for level in (0, 100, 200)
    ]
    assert (np.array(hashes) == -1).all()


def test_a_picture_of_one_pixel_has_a_hash():
    assert hash_image(np.zeros((1, 1, 3), np.uint8)).shape == (HASH_BITS,)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 40), most=st.integers(0, 31))
def test_near_pairs_are_all_pairs_within_the_distance_each_once(seed, n, most):
    rng = np.random.default_rng(seed)
    base = rng.choice([-1, 1], (5, HASH_BITS))
    flips = rng.random((n, HASH_BITS)) < 0.2
    hashes = (base[rng.integers(0, 5, n)] * np.where(flips, -1, 1)).astype(np.int8)
    expected = {
        (i, j) for i in range(n) for j in range(i + 1, n) if (hashes[i] != hashes[j]).sum() <= most
    }
    assert all_pairs(hashes, most) == expected


def test_near_pairs_does_not_depend_on_the_blocks(monkeypatch):
    hashes = np.random.default_rng(0).choice([-1, 1], (50, HASH_BITS)).astype(np.int8)
    whole = all_pairs(hashes, 28)
    monkeypatch.setattr(_hash, "_ROWS", 7)
    monkeypatch.setattr(_hash, "_COLUMNS", 11)
    assert whole == all_pairs(hashes, 28)
    assert len(whole) > 50


def test_a_picture_turned_around_has_another_hash(scene):
    image = scene(3)
    assert distance(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 12
