"""A store that this process may read and not write: published, another user's, or mounted so."""

import contextlib
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

from sktransfer.exceptions import FeatureCacheWarning
from sktransfer.store import _lmdb
from sktransfer.store._lmdb_store import SUBFOLDER
from sktransfer.store._store import feature_cache_info, open_store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes of files are those of POSIX")

OTHERS = {bytes([i]) * 32: np.full(3, i, dtype=np.float32) for i in range(5)}


def publish(folder):
    """Do what the page on the cache says: chmod -R a+rX,a-w."""
    subprocess.run(["chmod", "-R", "a+rX,a-w", str(folder)], check=True)


def unpublish(folder):
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)


@pytest.fixture
def published(open_folder, rows):
    """Return a folder with rows that every user may read and nobody may write to."""
    folder = os.path.join(open_folder, "prebuilt")
    store = open_store(folder)
    store.put_many(rows)
    store.put_digests({b"v" * 16: b"d" * 16})
    store._reset()  # as in a new process
    publish(folder)
    yield folder
    unpublish(folder)


def state_of(folder):
    return {
        (path, status.st_mode, status.st_size, status.st_mtime_ns)
        for path, _, names in os.walk(folder)
        for status in [os.stat(path), *(os.stat(os.path.join(path, name)) for name in names)]
    }


def read_and_try_to_write(folder, rows):
    """Read rows and digests; try to write, which is said once; return what was found."""
    before = state_of(folder)
    store = open_store(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.key_locks.acquire(list(OTHERS)) == list(OTHERS)
        found = [store.get_many(list(rows)) for _ in range(3)]
        assert store.get_digests([b"v" * 16]) == [b"d" * 16]
        assert store.get_many(list(OTHERS)) == [None] * len(OTHERS)
        info = feature_cache_info(folder)
    assert (info.n_entries, info.read_only) == (len(rows), True)
    with pytest.warns(FeatureCacheWarning, match=r"read-only.*feature_cache=\['.*', 'auto'\]"):
        store.put_many(OTHERS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put_many(OTHERS)
        store.put_digests({b"w" * 16: b"e" * 16})
    store.key_locks.release(list(OTHERS))
    assert state_of(folder) == before
    return [dict(zip(rows, values, strict=True)) for values in found]


def assert_equal(found, rows):
    for each in found:
        for key, row in rows.items():
            np.testing.assert_array_equal(each[key], row, strict=True)


def test_what_was_published_is_read_and_not_changed_by_its_own_user(published, rows):
    assert_equal(read_and_try_to_write(published, rows), rows)


def test_what_is_published_while_it_is_open_is_not_changed_any_more(tmp_path, rows):
    store = open_store(tmp_path)
    store.put_many(rows)
    publish(tmp_path)
    before = state_of(tmp_path)
    with pytest.warns(FeatureCacheWarning, match="read-only"):
        store.put_many(OTHERS)
    assert state_of(tmp_path) == before
    unpublish(tmp_path)
    store.put_many(OTHERS)
    assert len(store) == len(rows) + len(OTHERS)


def test_what_was_published_is_read_by_another_user(published, rows, as_another_user):
    assert_equal(as_another_user(lambda: read_and_try_to_write(published, rows)), rows)


def test_another_user_s_rows_come_first_and_new_ones_go_to_one_s_own(
    published, rows, as_another_user, open_folder
):
    os.chmod(open_folder, 0o1777)
    own = os.path.join(open_folder, "own")

    def work():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store = open_store([published, own])
            store.put_many(OTHERS)
            found = store.get_many([*rows, *OTHERS])
            return sum(row is not None for row in found), len(open_store(own))

    assert as_another_user(work) == (len(rows) + len(OTHERS), len(OTHERS))


@contextlib.contextmanager
def mounted_read_only(folder):
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount")
    done = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
    if done.returncode:
        pytest.skip("this system does not let a test mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_store_on_a_read_only_mount_is_read(open_folder, rows):
    folder = os.path.join(open_folder, "mounted")
    store = open_store(folder)
    store.put_many(rows)
    store.put_digests({b"v" * 16: b"d" * 16})
    store._reset()
    with mounted_read_only(folder):
        assert_equal(read_and_try_to_write(folder, rows), rows)
        store._reset()  # before it is unmounted


def test_an_empty_folder_on_a_read_only_mount_is_said_once(open_folder, rows):
    folder = os.path.join(open_folder, "mounted")
    os.mkdir(folder)
    with mounted_read_only(folder):
        store = open_store(folder)
        with pytest.warns(FeatureCacheWarning, match=r"Nothing is written.*Read-only file"):
            store.put_many(rows)
        store.put_many(rows)
        assert store.get_many(list(rows)) == [None] * len(rows)


def test_a_damaged_published_store_is_off_with_one_warning_and_not_started_anew(published, rows):
    data = os.path.join(published, SUBFOLDER, "data.mdb")
    os.chmod(data, 0o644)
    with open(data, "r+b") as file:
        file.write(bytes(8192))
    os.chmod(data, 0o444)
    store = open_store(published)
    with pytest.warns(FeatureCacheWarning, match="is off for this process"):
        assert store.get_many(list(rows)) == [None] * len(rows)
    assert store.get_many(list(rows)) == [None] * len(rows)
    assert os.path.exists(data)


# Reading without LMDB's locks, beside a writer that ignores that the store is published


@pytest.fixture
def reader_and_writer(published, rows):
    """Return a store that reads without locks, and a database that writes to its file."""
    store = open_store(published)
    store.get_many(list(rows))
    assert store._file.is_read_only
    writer = os.path.join(published, SUBFOLDER)
    return store, writer


WRITER = """
import sys, lmdb
env = lmdb.open(sys.argv[1], map_size=2**40)
for _ in range(int(sys.argv[2])):
    with env.begin(write=True) as txn:
        txn.put(b"key", b"value")
"""


def write(folder, n_transactions):
    subprocess.run([sys.executable, "-c", WRITER, folder, str(n_transactions)], check=True)


@pytest.mark.parametrize(("n_transactions", "n_reads"), [(0, 1), (1, 1), (2, 2), (5, 2)])
def test_what_was_read_while_pages_may_have_been_used_again_is_read_again(
    reader_and_writer, rows, monkeypatch, n_transactions, n_reads
):
    store, folder = reader_and_writer
    work, calls = _lmdb.LmdbFile._get, []

    def interrupted(file, txn, keys):
        calls.append(txn.id())
        if len(calls) == 1 and n_transactions:
            write(folder, n_transactions)
        return work(file, txn, keys)

    monkeypatch.setattr(_lmdb.LmdbFile, "_get", interrupted)
    found = store.get_many(list(rows))
    assert_equal([dict(zip(rows, found, strict=True))], rows)
    assert len(calls) == n_reads


def test_a_writer_that_is_always_faster_makes_misses_and_no_wrong_rows(
    reader_and_writer, rows, monkeypatch
):
    store, _ = reader_and_writer
    info, n = store._file._env.info(), [0]

    class Busy:
        def __init__(self, env):
            self.begin = env.begin

        def info(self):
            n[0] += 1
            return {**info, "last_txnid": info["last_txnid"] + 2}

    monkeypatch.setattr(store._file, "_env", Busy(store._file._env))
    assert store.get_many(list(rows)) == [None] * len(rows)
    assert n[0] == _lmdb._READ_AGAIN
