"""A disk that fills up, and a limit below the data: a part is evicted, and one warning says so."""

import contextlib
import os
import random
import shutil
import subprocess
import warnings
from itertools import pairwise

import numpy as np
import pytest

from sktransfer.exceptions import FeatureCacheWarning
from sktransfer.store import _folder, _lmdb_store
from sktransfer.store._store import open_store


def make_rows(n, shape=(512,), seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.bytes(16)
    return {kind + rng.bytes(16): rng.random(shape, dtype=np.float32) for _ in range(n)}


def n_found(store, items):
    return sum(row is not None for row in store.get_many(list(items)))


def file_bytes(store):
    return os.path.getsize(os.path.join(store._folder, "data.mdb"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("SKTRANSFER_CACHE_LIMIT", raising=False)
    return open_store(tmp_path)


@contextlib.contextmanager
def caught_warnings():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@pytest.mark.parametrize("free", [0, 10 * 2**20, 100 * 2**20])
def test_what_is_stored_stays_when_others_fill_the_disk(store, monkeypatch, free):
    large = make_rows(80, (2**17,))  # 40 MiB
    for key, row in large.items():
        store.put_many({key: row})
    before = file_bytes(store)
    monkeypatch.setattr(_folder, "free_bytes", lambda _: free)
    with caught_warnings() as caught:
        for seed in range(10):
            store.put_many(make_rows(1, (2**17,), seed=1 + seed))
    assert len(store) >= 0.8 * 80
    assert file_bytes(store) < 1.1 * before
    assert [warning.category for warning in caught] == [FeatureCacheWarning]
    assert "is filling up" in str(caught[0].message)
    with caught_warnings():
        assert 10 <= 80 - n_found(store, large) <= 10 + 0.2 * 80


def test_a_new_process_on_a_full_disk_keeps_what_is_stored(store, monkeypatch):
    items = make_rows(5000)
    store.put_many(items)
    store._reset()
    monkeypatch.setattr(_folder, "free_bytes", lambda _: 0)
    assert n_found(store, items) == 5000
    with pytest.warns(FeatureCacheWarning, match="is filling up"):
        store.put_many(make_rows(10, seed=1))
    assert len(store) >= 4000


def test_a_disk_with_room_is_not_said_to_fill_up(store, monkeypatch):
    monkeypatch.setattr(_folder, "free_bytes", lambda _: 20 * 2**20)
    for seed in range(40):  # evicts, as a tenth of the disk is 2 MiB
        store.put_many(make_rows(50, seed=seed))
    assert store.size_bytes <= 3 * 2**20


def test_a_slightly_lower_limit_is_reached_in_steps(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "40M")
    for seed in range(35):
        store.put_many(make_rows(400, seed=seed))
    n_before = len(store)
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "30M")
    counts = [n_before]
    for seed in range(100, 130):
        store.put_many(make_rows(10, seed=seed))
        counts.append(len(store))
    assert all(after > 0.8 * before for before, after in pairwise(counts))
    assert store.size_bytes <= 0.75 * 30 * 2**20
    assert len(store) > 0.6 * n_before


def test_a_much_lower_limit_keeps_what_was_used_last_and_says_how_to_keep_all(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "100M")
    batches = [make_rows(1000, seed=seed) for seed in range(30)]
    for batch in batches:
        store.put_many(batch)
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "20M")
    with caught_warnings() as caught:
        store.put_many(make_rows(10, seed=99))
    assert [n_found(store, batch) for batch in batches[-5:]] == [1000] * 5
    assert [n_found(store, batch) for batch in batches[:15]] == [0] * 15
    assert file_bytes(store) <= 20 * 2**20
    (message,) = (str(warning.message) for warning in caught)
    assert "its limit is 20M now" in message
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", message.split("LIMIT=")[1].split(".")[0])
    assert os.listdir(store.path) == [_lmdb_store.SUBFOLDER]


def test_without_room_for_a_copy_a_lower_limit_evicts_within_the_file(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "100M")
    for seed in range(30):
        store.put_many(make_rows(1000, seed=seed))
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "20M")
    monkeypatch.setattr(_folder, "free_bytes", lambda _: 0)
    items = make_rows(10, seed=99)
    store.put_many(items)
    assert n_found(store, items) == 10
    assert len(store) > 0.8 * 30_000


# a limit below the data


def one_pass(store, items, chance, batch=16):
    """Pass over items as extraction does, in batches of another order; return the misses."""
    keys, n_missed = list(items), 0
    batches = [keys[i : i + batch] for i in range(0, len(keys), batch)]
    chance.shuffle(batches)
    for some in batches:
        rows = store.get_many(some)
        missing = {k: items[k] for k, row in zip(some, rows, strict=True) if row is None}
        n_missed += len(missing)
        store.put_many(missing)
    return n_missed


def test_a_limit_below_the_data_is_said_once_with_the_size_that_ends_it(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "8M")
    chance, items = random.Random(0), make_rows(300, (8192,))  # 9.4 MiB; 6 MiB are for rows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_pass(store, items, chance)  # one pass evicts, and thrashes not
    with caught_warnings() as caught:
        for _ in range(3):
            assert one_pass(store, items, chance)
    (message,) = (str(warning.message) for warning in caught)
    assert "too small for these images" in message
    assert "Its limit is 8M" in message
    proposed = message.split("SKTRANSFER_CACHE_LIMIT=")[1].split()[0]
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", proposed)
    assert store.limit < 2.5 * 9.4 * 2**20
    one_pass(store, items, chance)
    assert one_pass(store, items, chance) == 0


def test_rows_that_are_too_large_to_be_stored_are_said_as_well(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "1M")
    chance, items = random.Random(0), make_rows(20, (2**18,))
    one_pass(store, items, chance)
    with pytest.warns(FeatureCacheWarning, match="too small for these images"):
        one_pass(store, items, chance)


def test_a_limit_of_nothing_stores_nothing_and_is_not_said(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "0")
    chance, items = random.Random(0), make_rows(100)
    for _ in range(3):
        assert one_pass(store, items, chance) == 100


# a disk that is full


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of 8 MiB."""
    folder = str(tmp_path / "disk")
    os.mkdir(folder)
    if not hasattr(os, "getuid") or os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this system does not let a test mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_leaves_what_is_stored_readable_and_is_said_once(small_disk, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "1G")
    store, batches = open_store(small_disk), []
    with caught_warnings() as caught:
        for seed in range(30):  # 15 MiB
            batches.append(make_rows(256, seed=seed))
            store.put_many(batches[-1])
        found = [n_found(store, batch) for batch in batches]
    (message,) = (str(warning.message) for warning in caught)
    assert "Nothing is written" in message
    assert "(0 bytes of its disk are free)" in message
    n_whole = found.index(0)
    assert n_whole > 8
    assert found == [256] * n_whole + [0] * (30 - n_whole)
    for batch in batches[:n_whole]:
        for row, wanted in zip(store.get_many(list(batch)), batch.values(), strict=True):
            np.testing.assert_array_equal(row, wanted)
    store._reset()  # a new process on the full disk
    with caught_warnings():
        assert [n_found(store, batch) for batch in batches] == found
    store._reset()


def test_a_disk_that_was_full_before_is_said_once(small_disk):
    with open(os.path.join(small_disk, "filler"), "wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
            file.flush()
    store = open_store(small_disk)
    with caught_warnings() as caught:
        for seed in range(3):
            store.put_many(make_rows(10, seed=seed))
            assert n_found(store, make_rows(10, seed=seed)) == 0
    (message,) = (str(warning.message) for warning in caught)
    assert "Nothing is written" in message
    store._reset()
