import pickle

import numpy as np
import pytest

from sktransfer.exceptions import FeatureCacheWarning
from sktransfer.store._store import clear_feature_cache, feature_cache_info, open_store


def rows(*names):
    return {name.encode() * 32: np.full(3, ord(name), dtype=np.float32) for name in names}


def names_found(store, names):
    values = store.get_many([name.encode() * 32 for name in names])
    for name, value in zip(names, values, strict=True):
        assert value is None or (value == ord(name)).all()
    return "".join(name for name, value in zip(names, values, strict=True) if value is not None)


@pytest.fixture
def caches(tmp_path):
    """Return the folders of a store with a and b, and of one with b and c."""
    open_store(tmp_path / "first").put_many(rows("a", "b"))
    open_store(tmp_path / "second").put_many(rows("b", "c"))
    return [tmp_path / "first", tmp_path / "second"]


def test_stores_are_read_in_their_order_and_only_the_last_one_is_written(caches):
    store = open_store(caches)
    assert names_found(store, "abcd") == "abc"
    store.put_many(rows("d"))
    assert names_found(store, "dcba") == "dcba"
    assert [len(open_store(cache)) for cache in caches] == [2, 3]
    assert (store.path, len(store)) == (open_store(caches[1]).path, 3)
    assert store.limit == open_store(caches[1]).limit
    assert store.size_bytes == open_store(caches[1]).size_bytes


def test_digests_are_read_from_all_and_written_to_the_last(caches):
    first, second = map(open_store, caches)
    first.put_digests({b"v" * 16: b"d" * 16})
    store = open_store(tuple(caches))
    store.put_digests({b"w" * 16: b"e" * 16})
    assert store.get_digests([b"v" * 16, b"w" * 16, b"x" * 16]) == [b"d" * 16, b"e" * 16, None]
    assert first.get_digests([b"w" * 16]) == [None]
    assert second.get_digests([b"w" * 16]) == [b"e" * 16]


def test_locks_are_those_of_the_store_that_is_written(caches):
    assert open_store(caches).key_locks is open_store(caches[1]).key_locks


def test_a_list_of_one_is_that_store_and_one_named_twice_is_asked_once(caches):
    assert open_store(caches[:1]) is open_store(caches[0])
    assert open_store([caches[0], caches[0]]) is open_store(caches[0])
    assert len(open_store([caches[0], caches[1], caches[0], caches[1]]).stores) == 2


def test_it_pickles_as_its_paths(caches):
    store = pickle.loads(pickle.dumps(open_store(caches)))
    assert store.stores == open_store(caches).stores


def test_the_user_s_cache_may_follow_a_prebuilt_one(caches, tmp_path, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE", str(tmp_path / "own"))
    store = open_store([str(caches[0]), "auto"])
    store.put_many(rows("z"))
    assert names_found(open_store("auto"), "az") == "z"
    assert names_found(store, "az") == "az"


def test_info_is_of_each_and_clear_of_the_one_that_is_written(caches):
    infos = feature_cache_info(caches)
    assert [info.n_entries for info in infos] == [2, 2]
    assert [info.path for info in infos] == [str(cache) for cache in caches]
    clear_feature_cache(caches)
    assert [info.n_entries for info in feature_cache_info(caches)] == [2, 0]


def test_a_store_that_is_only_to_be_read_and_is_not_there_is_said_once(caches, tmp_path):
    with pytest.warns(FeatureCacheWarning, match=r"No rows are read from .*nowhere.*has none"):
        store = open_store([tmp_path / "nowhere", *caches])
    open_store([tmp_path / "nowhere", *caches])
    assert names_found(store, "abc") == "abc"
    assert not (tmp_path / "nowhere").exists()


def test_a_store_of_a_former_version_that_is_only_to_be_read_is_said_to_be_one(caches, tmp_path):
    (tmp_path / "old" / "activations-1").mkdir(parents=True)
    with pytest.warns(FeatureCacheWarning, match=r"old: .*former version"):
        open_store([tmp_path / "old", *caches])
    assert (tmp_path / "old" / "activations-1").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"feature_cache must not be an empty list.*'auto'"),
        (["auto", None], r"feature_cache\[1\] must be 'auto' or the path of a folder.*None"),
        ([["auto"]], r"feature_cache\[0\] must be 'auto' or the path.*\['auto'\]"),
        (("", "auto"), r"feature_cache\[0\] must be"),
    ],
)
def test_a_wrong_list_is_an_error_that_names_the_entry(value, message):
    for function in (open_store, feature_cache_info, clear_feature_cache):
        with pytest.raises(ValueError, match=message):
            function(value)
