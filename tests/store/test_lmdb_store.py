"""The store in a folder: what is put is found, and nothing that breaks stops the work."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sktransfer.exceptions import FeatureCacheWarning
from sktransfer.store import _block, _folder, _lmdb, _lmdb_store, _use_table
from sktransfer.store._store import open_store

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

DTYPES = ["float32", "float16", "uint8", ">f8", "bool", "complex64"]


def make_rows(n, shape=(512,), seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.bytes(16)
    return {kind + rng.bytes(16): rng.random(shape, dtype=np.float32) for _ in range(n)}


def assert_found(store, items):
    for row, wanted in zip(store.get_many(list(items)), items.values(), strict=True):
        np.testing.assert_array_equal(row, wanted, strict=True)


def n_found(store, items):
    return sum(row is not None for row in store.get_many(list(items)))


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    """Minutes since the epoch, to be set."""
    minutes = [1_000_000]
    monkeypatch.setattr(_use_table, "_minute", lambda: minutes[0])
    return minutes


# what is in the files


def test_no_memory_that_was_freed_is_written_to_the_store(tmp_path):
    secret = b"a-secret-of-this-process-"
    store = open_store(tmp_path)
    for seed in range(10):
        freed = [(secret * 200)[: 4096 - 33 + extra] for extra in range(0, 512, 8) for _ in "12345"]
        assert freed.pop().startswith(secret)
        del freed
        store.put_many(make_rows(3, (16,), seed))
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()


# what is put is found


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rows_come_back_with_dtype_shape_and_values(store, data):
    arrays = hnp.arrays(
        st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
    rows = data.draw(st.lists(arrays, min_size=1, max_size=6))
    items = {os.urandom(32): row for row in rows}
    store.put_many(items)
    assert_found(store, items)


def test_two_kinds_whose_keys_differ_in_the_second_half_of_the_kind_have_two_rows(store):
    digest = b"d" * 16
    one, other = b"k" * 8 + b"1" * 8 + digest, b"k" * 8 + b"2" * 8 + digest
    items = {one: np.zeros(4, np.float32), other: np.ones(4, np.float32)}
    assert _lmdb._name(one) == _lmdb._name(other)
    for key, row in items.items():  # each replaces the other, and is never taken for it
        store.put_many({key: row})
        for asked in items:
            found = store.get_many([asked])[0]
            assert found is None or np.array_equal(found, items[asked])
    store.get_many([one])
    store.put_many({one: items[one]})
    np.testing.assert_array_equal(store.get_many([one])[0], items[one])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (512,), (3, 0, 2), (64, 7, 7), (300, 40, 30)])
def test_large_and_empty_rows_come_back(store, dtype, shape):
    row = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    store.put_many({b"k" * 32: row})
    np.testing.assert_array_equal(store.get_many([b"k" * 32])[0], row, strict=True)


def test_a_row_that_is_not_contiguous_comes_back(store):
    row = np.arange(24, dtype=np.float32).reshape(4, 6).T[::2]
    store.put_many({b"k" * 32: row})
    np.testing.assert_array_equal(store.get_many([b"k" * 32])[0], row, strict=True)


def test_unknown_keys_are_none_in_their_places(store):
    items = make_rows(3)
    a, b, c = items
    assert store.get_many([a, b]) == [None, None]
    store.put_many(items)
    found = store.get_many([b"x" * 32, c, b"y" * 32, a, a])
    assert [row is None for row in found] == [True, False, True, False, False]
    np.testing.assert_array_equal(found[3], items[a])


def test_rows_are_copies_that_outlive_the_store(store):
    items = make_rows(10)
    store.put_many(items)
    rows = store.get_many(list(items))
    rows[0][:] = -1  # writes to the copy
    store.clear()
    np.testing.assert_array_equal(rows[5], list(items.values())[5])


def test_the_first_row_of_a_key_stays(store):
    store.put_many({b"k" * 32: np.ones(3)})
    store.put_many({b"k" * 32: np.zeros(3)})
    assert store.get_many([b"k" * 32])[0].sum() == 3
    assert len(store) == 1


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (b"short", np.ones(3)),
        ("k" * 32, np.ones(3)),
        (b"k" * 32, np.array([object()])),
        (b"k" * 32, np.zeros(2, dtype="i4,f4")),
    ],
)
def test_what_can_not_be_stored_is_an_error_of_the_caller(store, key, row):
    with pytest.raises(ValueError, match=r"32 bytes|holds numbers"):
        store.put_many({key: row})


def test_size_and_length_count_what_is_there(store):
    assert len(store) == 0
    assert store.size_bytes == 0
    store.put_many(make_rows(1000))
    assert len(store) == 1000
    # 2 kB rows: keys, places and half-filled pages cost less than a fifth
    assert 1000 * 2048 < store.size_bytes < 1.2 * 1000 * 2048


def test_a_store_goes_on_after_its_folder_was_removed(store):
    items = make_rows(20)
    store.put_many(items)
    os.rename(store._folder, store._folder + "-gone")
    assert n_found(store, items) == 0
    store.put_many(items)
    assert_found(store, items)


def test_an_open_store_whose_folder_was_removed_is_not_taken_for_a_new_one(tmp_path):
    for i in range(5):  # the system gives the number of a removed folder to the next one
        store = open_store(tmp_path / str(i))
        store.put_many(make_rows(3))
        shutil.rmtree(tmp_path / str(i))


# bounded


@pytest.mark.parametrize(
    ("text", "limit"), [("1000", 1000), ("20G", 20 * 2**30), ("1.5m", 3 * 2**19), ("0", 0)]
)
def test_limit_is_read_from_the_variable(store, monkeypatch, text, limit):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", text)
    assert store.limit == limit


def test_limit_is_a_tenth_of_the_free_disk_at_most(store, monkeypatch):
    monkeypatch.delenv("SKTRANSFER_CACHE_LIMIT", raising=False)
    monkeypatch.setattr(_folder, "free_bytes", lambda _: 5000)
    assert store.limit == 500


@pytest.mark.parametrize("shape", [(512,), (64, 16, 16)])
def test_the_file_stays_within_the_limit(store, monkeypatch, shape):
    limit = 8 * 2**20
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", str(limit))
    for seed in range(24):
        items = make_rows(2**20 // (4 * int(np.prod(shape))), shape, seed)
        store.put_many(items)
        assert store.size_bytes <= limit
        assert_found(store, items)  # the newest are there
    assert os.path.getsize(os.path.join(store._folder, "data.mdb")) <= 1.05 * limit


@pytest.mark.filterwarnings("ignore:.*is too small for these images")
def test_the_least_recently_used_go_first(store, monkeypatch, clock):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "8M")
    batches = []
    for seed in range(5):
        batches.append(make_rows(500, seed=seed))
        store.put_many(batches[-1])
        clock[0] += 60
    assert_found(store, batches[0])  # a use
    clock[0] += 60
    for seed in range(5, 7):
        store.put_many(make_rows(500, seed=seed))
    found = [n_found(store, batch) for batch in batches]
    assert found[0] == 500
    assert found[1] == 0
    assert found[4] == 500


def test_reading_alone_writes_uses_once_a_minute_at_most(store, monkeypatch, clock):
    items = make_rows(50)
    store.put_many(items)
    writes = []
    monkeypatch.setattr(
        _lmdb.LmdbFile, "write_uses", lambda file: writes.append(len(file._uses._noted))
    )
    store._file._uses._written_at = time.monotonic()
    clock[0] += 60
    for _ in range(5):
        store.get_many(list(items))
    assert writes == []
    store._file._uses._written_at -= 61
    store.get_many(list(items))
    assert writes == [1]  # the block, not its 50 rows


def test_a_row_larger_than_the_store_is_not_stored(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "1M")
    small = make_rows(10)
    store.put_many(small)
    store.put_many({b"k" * 32: np.zeros(2**20)})
    assert store.get_many([b"k" * 32]) == [None]
    assert_found(store, small)


def test_a_lowered_limit_gives_the_disk_back(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "100M")
    store.put_many(make_rows(30, (2**18,)))
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "4M")
    items = make_rows(10, seed=1)
    with pytest.warns(FeatureCacheWarning, match="its limit is 4M now"):
        store.put_many(items)
    assert_found(store, items)
    assert os.path.getsize(os.path.join(store._folder, "data.mdb")) < 2**22


# damage


def change_record(store, table, change):
    """Apply `change` to each value of a table, beside the store."""
    env = store._file._env
    with env.begin(write=True) as txn:
        db = env.open_db(table, txn=txn)
        for key, value in list(txn.cursor(db)):
            txn.put(key, change(value), db=db)
    store._file._verified.clear()


def flip(data, place):
    data = bytearray(data)
    data[place] ^= 0x10
    return bytes(data)


@pytest.mark.parametrize("place", [0, 3, 5, 9, 12, 14, 20, 40, -1])
def test_a_damaged_entry_is_a_miss_and_the_next_put_heals_it(store, place):
    items = make_rows(5)
    store.put_many(items)
    change_record(store, b"blocks", lambda block: flip(block, place))
    assert n_found(store, items) == 0
    store.put_many(items)
    assert_found(store, items)


def test_a_row_is_never_given_for_another_key(store):
    items = make_rows(5)
    store.put_many(items)
    change_record(store, b"rows", lambda place: place[:-1] + b"\x04")  # all point to the last
    assert [n_found(store, [key]) for key in items] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("position", [5, 500, 2**16 - 1])
def test_a_place_where_no_row_is_is_a_miss(store, position):
    items = make_rows(5)
    store.put_many(items)
    change_record(
        store, b"rows", lambda place: _lmdb._PLACE.pack(_lmdb._PLACE.unpack(place)[0], position)
    )
    assert n_found(store, items) == 0
    store.put_many(items)
    assert_found(store, items)


@pytest.mark.parametrize("work", ["get", "put", "measure"])
def test_a_store_that_is_cleared_while_it_is_opened_is_an_empty_one(store, monkeypatch, work):
    items = make_rows(5)
    store.put_many(items)
    store._file = None
    file_bytes = _lmdb.LmdbFile.file_bytes

    def clear_once(file):
        size = file_bytes.fget(file)
        monkeypatch.setattr(_lmdb.LmdbFile, "file_bytes", file_bytes)
        shutil.rmtree(store._folder)  # as another process does
        return size

    monkeypatch.setattr(_lmdb.LmdbFile, "file_bytes", property(clear_once))
    if work == "get":
        assert n_found(store, items) == 0
    elif work == "measure":
        assert len(store) == 0
    store.put_many(items)
    assert_found(store, items)


def test_a_store_that_is_cleared_between_two_looks_is_an_empty_one(store, monkeypatch):
    store.put_many(make_rows(5))
    getsize = os.path.getsize

    def clear_and_look(path):
        shutil.rmtree(store._folder, ignore_errors=True)
        return getsize(path)

    monkeypatch.setattr(_lmdb_store.os.path, "getsize", clear_and_look)
    assert not store.has_rows
    assert store._taken() == 0


def test_an_entry_of_an_unknown_format_is_a_miss(store, monkeypatch):
    items = make_rows(5)
    store.put_many(items)
    monkeypatch.setattr(_block, "_MAGIC", b"SKT\xff")
    store._file._verified.clear()
    assert n_found(store, items) == 0
    store.put_many(items)
    assert_found(store, items)


def read_and_write(store, items):
    for _ in range(2):
        assert n_found(store, items) in (0, len(items))
        store.put_many(items)


def close(store):
    """Forget the open file, as a new process would."""
    store._file = None


@pytest.mark.parametrize("how", ["meta", "text", "truncated", "empty pages"])
def test_a_damaged_file_is_started_anew_with_one_warning(store, how):
    items = make_rows(500)
    store.put_many(items)
    close(store)
    with open(os.path.join(store._folder, "data.mdb"), "r+b") as file:
        if how == "meta":
            file.write(bytes(8192))
        elif how == "text":
            file.write(b"not a database" * 1000)
        elif how == "truncated":
            file.truncate(20_000)
        else:
            size = file.seek(0, os.SEEK_END)
            file.seek(8192)
            file.write(bytes(size - 8192))
    with pytest.warns(FeatureCacheWarning, match="damaged") as caught:
        read_and_write(store, items)
    assert len(caught) == 1
    assert_found(store, items)
    assert os.listdir(store.path) == [_lmdb_store.SUBFOLDER]


def test_a_file_that_grows_while_it_is_opened_is_not_taken_for_damaged(store, monkeypatch):
    items = make_rows(5)
    store.put_many(items)
    close(store)
    data = os.path.join(store._folder, "data.mdb")

    def grown_meanwhile(file):
        os.truncate(data, os.path.getsize(data) + 2**20)  # as by another process
        return os.path.getsize(data)

    monkeypatch.setattr(_lmdb.LmdbFile, "file_bytes", property(grown_meanwhile))
    assert_found(store, items)


def test_flipped_bytes_of_rows_in_the_file_are_misses(store):
    items = make_rows(8, (2**18,))
    store.put_many(items)
    close(store)
    with open(os.path.join(store._folder, "data.mdb"), "r+b") as file:
        file.seek(3 * 2**20)
        file.write(b"\x55" * 64)
    assert n_found(store, items) == 7
    store.put_many(items)
    assert_found(store, items)


# a disk that fails


@pytest.mark.parametrize(
    "error",
    [
        lmdb.DiskError("No space left on device"),
        OSError(28, "No space left on device"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_rows_stay_readable_when_no_more_can_be_written_and_one_warning_says_so(
    store, monkeypatch, error
):
    items = make_rows(10)
    store.put_many(items)

    def fail(*args):
        raise error

    monkeypatch.setattr(_lmdb.LmdbFile, "_append", fail)
    with pytest.warns(FeatureCacheWarning, match=r"Nothing is written.*feature_cache=None"):
        store.put_many(make_rows(10, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put_many(make_rows(10, seed=1))
        assert_found(store, items)
        assert n_found(store, make_rows(10, seed=1)) == 0


def test_a_store_that_can_not_be_read_is_off_with_one_warning(store, monkeypatch):
    store.put_many(make_rows(10))

    def fail(*args):
        raise lmdb.DiskError("Input/output error")

    monkeypatch.setattr(_lmdb.LmdbFile, "get", fail)
    with pytest.warns(FeatureCacheWarning, match=r"is off for this process.*feature_cache=None"):
        assert n_found(store, make_rows(10)) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert n_found(store, make_rows(10)) == 0
        store.put_many(make_rows(10))


def test_a_full_map_evicts_a_part_and_tries_again(store, monkeypatch):
    store.put_many(make_rows(1000))  # blocks of 120
    append, calls = _lmdb.LmdbFile._append, []

    def fail_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise lmdb.MapFullError("full")
        append(*args)

    monkeypatch.setattr(_lmdb.LmdbFile, "_append", fail_once)
    items = make_rows(10, seed=1)
    store.put_many(items)
    assert_found(store, items)
    assert 750 < len(store) < 1000


def test_a_path_that_can_not_be_a_folder_turns_the_store_off(tmp_path):
    (tmp_path / "file").write_text("")
    store = open_store(tmp_path / "file" / "cache")
    with pytest.warns(FeatureCacheWarning, match="Nothing is written") as caught:
        read_and_write(store, make_rows(3))
    assert len(caught) == 1
    assert n_found(store, make_rows(3)) == 0


# threads and processes


def test_threads_read_and_write_at_once(store):
    errors = []

    def work(seed):
        try:
            for i in range(10):
                items = make_rows(50, seed=100 * (seed % 2) + i)  # two by two the same
                store.put_many(items)
                assert_found(store, items)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(store) == 1000


CHILD = """
import sys
sys.path.insert(0, {here!r})
from test_lmdb_store import *
store = open_store({path!r})
"""


def start(store, code, **kwargs):
    code = CHILD.format(here=os.path.dirname(__file__), path=store.path) + code
    return subprocess.Popen([sys.executable, "-c", code], **kwargs)


def test_two_processes_share_rows(store):
    store.put_many(make_rows(100, seed=1))
    code = "assert_found(store, make_rows(100, seed=1)); store.put_many(make_rows(100, seed=2))"
    assert start(store, code).wait(60) == 0
    assert_found(store, make_rows(100, seed=2))
    assert len(store) == 200


def test_another_process_goes_on_after_clear(store):
    code = """
store.put_many(make_rows(100, seed=1)); print(flush=True); sys.stdin.readline()
assert n_found(store, make_rows(100, seed=1)) == 0
store.put_many(make_rows(100, seed=2))
"""
    with start(store, code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert len(store) == 100
        store.clear()
        child.stdin.write(b"\n")
        child.stdin.close()
        assert child.wait(60) == 0
    assert_found(store, make_rows(100, seed=2))


@pytest.mark.parametrize("when", ["before", "before and made anew", "between", "after"])
@pytest.mark.parametrize("writes", [True, False])
def test_a_store_that_is_cleared_while_it_is_opened_is_looked_at_again(
    store, monkeypatch, when, writes
):
    store.put_many(make_rows(5))
    close(store)
    open_environment, opened = lmdb.open, []

    def cleared(folder, **kwargs):
        opened.append(folder)
        if len(opened) > 1:
            return open_environment(folder, **kwargs)
        if when == "after":
            env = open_environment(folder, **kwargs)
        _folder.remove_folder(folder)
        if when != "before":
            os.mkdir(folder)  # by another process
        if when.startswith("before"):
            raise lmdb.Error(f"{folder}: No such file or directory")
        return env if when == "after" else open_environment(folder, **kwargs)

    monkeypatch.setattr(_lmdb.lmdb, "open", cleared)
    items = make_rows(5, seed=1)
    if writes:
        store.put_many(items)
        assert_found(store, items)
        assert len(opened) == 2
    assert n_found(store, make_rows(5)) == 0
    store.put_many(items)
    assert_found(store, items)


def wait_for(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_child_of_a_fork_reads_and_writes_while_threads_are_at_work(store):
    items = make_rows(200)
    store.put_many(items)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            store.get_many(list(items))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for seed in range(1, 6):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                ok = False
                try:
                    assert_found(store, items)
                    store.put_many(make_rows(5, seed=seed))
                    ok = not store._is_off
                finally:
                    os._exit(not ok)
            assert wait_for(pid) == 0
            assert_found(store, make_rows(5, seed=seed))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def write_until_killed(store, seed):
    for i in range(10**9):
        store.put_many(make_rows(40, seed=1000 * seed + i))


@needs_fork
@pytest.mark.filterwarnings("ignore:.*is too small for these images")  # it evicts, so it warns
def test_killed_writers_leave_whole_batches_and_no_stale_reader(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "8M")  # so that they evict as well
    store.put_many(make_rows(10))
    chance = random.Random(0)
    for seed in range(1, 21):
        pid = os.fork()
        if pid == 0:
            write_until_killed(open_store(store.path), seed)
        end = time.monotonic() + chance.uniform(0.01, 0.2)
        try:
            while time.monotonic() < end:
                assert n_found(store, make_rows(40, seed=1000 * seed)) in (0, 40)
                store.put_many(make_rows(20, seed=-chance.randrange(-(10**9), 0)))
        finally:
            os.kill(pid, signal.SIGKILL)
            how_it_ended = wait_for(pid)
        assert how_it_ended == -signal.SIGKILL
        for i in range(5):
            items = make_rows(40, seed=1000 * seed + i)
            if n_found(store, items):
                assert_found(store, items)
    assert not store._is_off
    assert store.size_bytes <= 8 * 2**20
    store._file._env.reader_check()
    assert store._file._env.info()["num_readers"] <= 22
    close(store)
    items = make_rows(40, seed=7)
    store.put_many(items)
    assert_found(store, items)


# digests of files


def make_digests(n, seed=0):
    rng = np.random.default_rng(seed)
    return {rng.bytes(16): rng.bytes(16) for _ in range(n)}


def test_digests_of_files_are_found_and_are_no_rows(store, tmp_path):
    digests = make_digests(100)
    assert store.get_digests(list(digests)) == [None] * 100
    store.put_digests(digests)
    assert store.get_digests([*digests, bytes(16)]) == [*digests.values(), None]
    assert len(store) == 0
    assert store.size_bytes > 0


def test_a_damaged_digest_is_not_found(store):
    items = make_digests(3)
    store.put_digests(items)
    first, *others = items
    with store._file._env.begin(write=True) as txn:
        digests = store._file._digests.tables[0]
        value = bytearray(txn.get(first, db=digests))
        value[3] ^= 1
        txn.put(first, bytes(value), db=digests)
    assert store.get_digests([first]) == [None]
    assert store.get_digests(others) == [items[version] for version in others]


def test_digests_take_a_small_part_of_the_limit(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "2M")
    rows = make_rows(100)
    store.put_many(rows)
    for seed in range(40):
        store.put_digests(make_digests(500, seed))
    assert store.size_bytes < 2**20
    assert n_found(store, rows) == 100
    newest = make_digests(500, 39)
    assert store.get_digests(list(newest)) == list(newest.values())


def test_a_disk_that_fails_finds_no_digests_and_warns_once(store, monkeypatch):
    store.put_digests(make_digests(3))

    def fail(*arguments):
        raise lmdb.DiskError("disk full")

    monkeypatch.setattr(_lmdb.LmdbFile, "get_digests", fail)
    with pytest.warns(FeatureCacheWarning, match="disk full"):
        assert store.get_digests([bytes(16)] * 2) == [None] * 2
    assert store.get_digests([bytes(16)] * 2) == [None] * 2
