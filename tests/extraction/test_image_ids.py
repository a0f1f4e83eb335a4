import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sktransfer.extraction import _image_ids
from sktransfer.extraction._image_ids import ImageIds, identify
from sktransfer.images import _fingerprint
from sktransfer.images._collection import as_images
from sktransfer.store._store import open_store


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i}.bmp" for i in range(10)]
    for i, path in enumerate(paths):
        Image.new("L", (4, 4), i).save(path)
    return paths


@pytest.fixture
def later(monkeypatch):
    """Let a minute pass at once."""
    time_ns = _fingerprint.time.time_ns
    monkeypatch.setattr(_fingerprint.time, "time_ns", lambda: time_ns() + 60 * 10**9)


def ids_of(X, store=None):
    images = as_images(X)
    ids = ImageIds(len(images))
    with ThreadPoolExecutor(2) as pool:
        for positions, found in identify(images, store, pool):
            ids.set_range(positions, found)
    return ids


def test_what_is_in_memory_is_known_by_its_digest_at_once():
    X = [np.full((8, 8, 3), value, dtype=np.uint8) for value in (1, 2, 1)]
    ids = ids_of(X)
    assert [ids.digest(i) for i in range(3)] == [image.digest() for image in as_images(X)]
    assert ids.first_of_each().tolist() == [0, 1, 0]


def test_no_file_is_read(paths, later, monkeypatch):
    monkeypatch.setattr(_fingerprint, "read_file", None)
    ids = ids_of([*paths, paths[3]])
    assert [ids.digest(i) for i in range(11)] == [None] * 11
    assert ids.first_of_each().tolist() == [*range(10), 3]


def test_a_path_that_was_written_a_moment_ago_stands_for_its_file_in_one_call(paths):
    assert ids_of([*paths, paths[3]]).first_of_each().tolist() == [*range(10), 3]


def test_a_file_whose_version_the_store_knows_has_its_digest(paths, cache, later):
    store, images = open_store(cache), as_images(paths)
    store.put_digests({images[i].version(): images[i].digest() for i in range(5)})
    ids = ids_of(paths, store)
    assert [ids.digest(i) for i in range(10)] == [images[i].digest() for i in range(5)] + [None] * 5
    assert list(ids.digests(np.arange(10))) == [0, 1, 2, 3, 4]


def test_a_changed_file_is_not_known_any_more(paths, cache, later):
    store, images = open_store(cache), as_images(paths)
    store.put_digests({images[3].version(): images[3].digest()})
    status = paths[3].stat()
    Image.new("L", (4, 4), 200).save(paths[3])
    os.utime(paths[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ids_of(paths, store).digest(3) is None


def test_failures_have_no_id_and_are_each_their_own(paths, cache, later):
    X = [paths[0], "missing.png", None, paths[0].parent, None, np.zeros((4, 4), np.uint8)]
    for store in (None, open_store(cache)):
        ids = ids_of(X, store)
        assert sorted(ids.failures) == [1, 2, 3, 4]
        assert "no such file" in ids.failures[1]
        assert ids.first_of_each().tolist() == [0, 1, 2, 3, 4, 5]


def test_many_images_come_in_order(monkeypatch):
    monkeypatch.setattr(_image_ids, "_IMAGES_AT_ONCE", 2)
    X = [np.full((8, 8, 3), value % 7, dtype=np.uint8) for value in range(25)]
    ids = ids_of(X)
    assert ids.first_of_each().tolist() == [i % 7 for i in range(25)]


def test_ids_take_a_few_bytes_an_image():
    ids = ImageIds(1000)
    assert ids._ids.nbytes + ids._is_digest.nbytes == 17 * 1000
    ids.set_digest(7, bytes(range(16)))
    assert ids.digest(7) == bytes(range(16))
    assert ids.digest(8) is None
