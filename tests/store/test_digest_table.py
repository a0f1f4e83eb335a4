from itertools import pairwise

import numpy as np
import pytest

from sktransfer.store._store import open_store


def make_digests(n, seed=0):
    values = np.random.default_rng(seed).bytes(32 * n)
    return {values[i : i + 16]: values[i + 16 : i + 32] for i in range(0, 32 * n, 32)}


def n_known(store, digests):
    return sum(found is not None for found in store.get_digests(list(digests)))


def n_digests(store):
    table = store._file._digests.tables[0]
    return store._file._read(lambda txn: txn.stat(table)["entries"], 0)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def test_the_first_that_came_are_dropped_and_never_all(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "20M")
    parts = [make_digests(1000, seed) for seed in range(40)]
    counts = []
    for part in parts:
        store.put_digests(part)
        counts.append(n_digests(store))
    known = [n_known(store, part) for part in parts]
    assert known[0] == 0
    assert known == sorted(known)  # the first went first
    assert known[-5:] == [1000] * 5
    drops = [before - after for before, after in pairwise(counts)]
    assert max(drops) <= 1000
    assert store.size_bytes < 20 * 2**20 / 16 + 2**18


def test_the_share_of_digests_follows_the_limit(store, monkeypatch):
    counts = []
    for limit in ("10M", "40M"):
        monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", limit)
        for seed in range(40):
            store.put_digests(make_digests(1000, seed))
        counts.append(sum(n_known(store, make_digests(1000, seed)) for seed in range(40)))
    assert 3 * counts[0] < counts[1]


def test_a_million_files_fit_the_default_limit(store, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "1G")  # a tenth of the default
    for seed in range(25):
        store.put_digests(make_digests(5000, seed))
    assert sum(n_known(store, make_digests(5000, seed)) for seed in (0, 12, 24)) == 15_000


def test_a_digest_that_is_put_again_is_known_once(store):
    digests = make_digests(10)
    for _ in range(3):
        store.put_digests(digests)
    assert n_known(store, digests) == 10


def test_a_changed_digest_replaces_the_damaged_one(store):
    (version,) = make_digests(1)
    store.put_digests({version: bytes(16)})
    store.put_digests({version: b"x" * 16})
    assert store.get_digests([version]) == [b"x" * 16]
