import numpy as np
import pytest
from PIL import Image

from sktransfer.exceptions import DecodeError
from sktransfer.images import _image_ref
from sktransfer.images._collection import as_images
from sktransfer.images._remembered import RememberedImages


@pytest.fixture
def n_decoded(monkeypatch):
    """Return a list with an entry for each time that bytes are decoded."""
    calls = []
    decode = _image_ref.decode_bytes

    def counting(data, *arguments):
        calls.append(len(data))
        return decode(data, *arguments)

    monkeypatch.setattr(_image_ref, "decode_bytes", counting)
    return calls


def pixels_of(images):
    return [image.load().decode(lambda n_bytes: None) for image in images]


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return paths


def test_an_image_is_decoded_once_and_its_pixels_are_the_same(files, n_decoded):
    images = RememberedImages(as_images(files))
    first, second = pixels_of(images), pixels_of(images)
    assert len(n_decoded) == 4
    expected = [image.read() for image in as_images(files)]
    for found in (first, second):
        for pixels, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(pixels, right)


def test_images_that_are_taken_share_the_pixels(files, n_decoded):
    images = RememberedImages(as_images(files))
    pixels_of(images)
    taken = images.take([2, 0])
    np.testing.assert_array_equal(pixels_of(taken)[0], images[2].read())
    assert len(n_decoded) == 5  # of `read`
    assert [image.describe() for image in taken] == [files[2], files[0]]


def test_a_file_that_changed_is_decoded_again(files, n_decoded):
    images = RememberedImages(as_images(files))
    pixels_of(images)
    with open(files[0], "wb") as target, open(files[1], "rb") as other:
        target.write(other.read())
    np.testing.assert_array_equal(pixels_of(images)[0], as_images(files)[1].read())


def test_no_more_bytes_than_allowed_are_kept_and_forgotten_ones_make_room(files, n_decoded):
    size = as_images(files)[0].read().nbytes
    n_decoded.clear()
    images = RememberedImages(as_images(files), n_bytes=2 * size + size // 2)
    pixels_of(images)
    pixels_of(images)
    assert len(n_decoded) == 4 + 2
    images.forget()
    pixels_of(images)
    pixels_of(images)
    assert len(n_decoded) == 6 + 4 + 2


def test_an_image_that_can_not_be_decoded_fails_each_time(files):
    with open(files[1], "wb") as target:
        target.write(b"no image")
    images = RememberedImages(as_images(files))
    for _ in range(2):
        with pytest.raises(DecodeError):
            images[1].load().decode(lambda n_bytes: None)


def test_what_is_in_memory_already_is_left_as_it_is():
    stack = np.zeros((2, 8, 8, 3), np.uint8)
    images = RememberedImages(as_images(stack))
    assert type(images[0]) is type(as_images(stack)[0])
