import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sktransfer.extraction import _image_keys
from sktransfer.extraction._image_keys import digest_in, image_keys
from sktransfer.images import _fingerprint
from sktransfer.images._collection import as_images
from sktransfer.store._store import open_store

COMMON = bytes(16)


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i}.bmp" for i in range(10)]
    for i, path in enumerate(paths):
        Image.new("L", (4, 4), i).save(path)
    return paths


@pytest.fixture
def n_read(monkeypatch):
    """Count the files that are read, as a new process does: it remembers nothing."""
    read, paths = _fingerprint.read_file, []
    monkeypatch.setattr(_fingerprint, "read_file", lambda path: paths.append(path) or read(path))
    monkeypatch.setattr(_fingerprint, "_digest_file", _fingerprint._digest_file.__wrapped__)
    return lambda: len(paths)


@pytest.fixture
def later(monkeypatch):
    """Let a minute pass at once."""
    time_ns = time.time_ns
    monkeypatch.setattr(_fingerprint.time, "time_ns", lambda: time_ns() + 60 * 10**9)


def keys_of(X, store=None, failures=None):
    with ThreadPoolExecutor(2) as pool:
        failures = {} if failures is None else failures
        return list(image_keys(as_images(X), COMMON, store, pool, failures))


def test_a_key_is_what_is_common_and_the_image_s_digest(paths):
    keys = keys_of(paths)
    assert keys == [COMMON + image.digest() for image in as_images(paths)]
    assert [digest_in(key) for key in keys] == [key[16:] for key in keys]


def test_a_file_that_is_known_is_not_read(paths, cache, n_read, later):
    first = keys_of(paths, open_store(cache))
    assert n_read() == 10
    assert keys_of(paths, open_store(cache)) == first
    assert n_read() == 10


def test_only_a_changed_file_is_read_again(paths, cache, n_read, later):
    first = keys_of(paths, open_store(cache))
    status = paths[3].stat()
    Image.new("L", (4, 4), 200).save(paths[3])
    os.utime(paths[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    second = keys_of(paths, open_store(cache))
    assert n_read() == 11
    assert [i for i in range(10) if first[i] != second[i]] == [3]


def test_files_changed_a_moment_ago_are_read_each_time(paths, cache, n_read):
    keys_of(paths, open_store(cache))
    keys_of(paths, open_store(cache))
    assert n_read() == 20


def test_a_file_that_changes_while_it_is_read_is_not_kept(paths, cache, n_read, later, monkeypatch):
    outcome = _image_keys._outcome

    def changing(images, position):
        digest = outcome(images, position)
        if position == 3:
            Image.new("L", (4, 4), 200).save(paths[3])
        return digest

    monkeypatch.setattr(_image_keys, "_outcome", changing)
    first = keys_of(paths, open_store(cache))
    second = keys_of(paths, open_store(cache))
    assert n_read() == 11
    assert [i for i in range(10) if first[i] != second[i]] == [3]


def test_without_a_store_nothing_is_asked_or_kept(paths, later, monkeypatch):
    monkeypatch.setattr(_image_keys, "_version", None)
    assert len(set(keys_of(paths))) == 10


def test_for_one_call_the_status_of_a_file_stands_for_its_content(paths, later, n_read, tmp_path):
    X, failures = as_images([*map(str, paths), str(paths[0]), str(tmp_path / "no.bmp")]), {}
    with ThreadPoolExecutor(2) as pool:
        *keys, again, missing = image_keys(X, COMMON, None, pool, failures, needs_content=False)
    assert n_read() == 0
    assert len(set(keys)) == 10
    assert again == keys[0]
    assert missing is None
    assert "no such file" in failures[11]


def test_many_images_come_in_order_and_are_kept_in_few_transactions(
    paths, cache, later, monkeypatch
):
    monkeypatch.setattr(_image_keys, "_IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(_image_keys, "_DIGESTS_AT_ONCE", 4)
    store, put = open_store(cache), []
    put_digests = store.put_digests
    monkeypatch.setattr(
        store, "put_digests", lambda some: put.append(len(some)) or put_digests(some)
    )
    assert keys_of(paths, store) == keys_of(paths)
    assert put == [4, 4, 2]


def test_what_was_read_before_an_interrupt_is_kept(paths, cache, n_read, later, monkeypatch):
    monkeypatch.setattr(_image_keys, "_IMAGES_AT_ONCE", 2)
    with ThreadPoolExecutor(1) as pool:
        keys = image_keys(as_images(paths), COMMON, open_store(cache), pool, {})
        for _ in range(5):
            next(keys)
        keys.close()
    before = n_read()
    keys_of(paths[:6], open_store(cache))
    assert n_read() == before


def test_failures_are_reported_by_position(paths, cache, later):
    failures = {}
    X = [paths[0], "missing.png", None, paths[0].parent, np.zeros((4, 4), np.uint8)]
    for store in (None, open_store(cache), open_store(cache)):
        failures.clear()
        keys = keys_of(X, store, failures)
        assert [key is None for key in keys] == [False, True, True, True, False]
        assert sorted(failures) == [1, 2, 3]
        assert "no such file" in failures[1]
