"""Which store a `feature_cache` is, and what users see of it."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from sktransfer.store import _store
from sktransfer.store._store import clear_feature_cache, feature_cache_info, open_store


def make_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.bytes(16)
    return {kind + rng.bytes(16): rng.random(512, dtype=np.float32) for _ in range(n)}


def test_what_the_cache_holds_is_a_table_in_notebooks():
    info = _store.FeatureCacheInfo("/a<b", 1200, 3 * 2**20, 10 * 2**30)
    html = info._repr_html_()
    for cell in ("/a&lt;b", "1200", "3M of 10G", "no"):
        assert f">{cell}</td>" in html
    assert repr(info).startswith("FeatureCacheInfo(path=")


def test_nothing_is_written_before_the_first_put(tmp_path):
    folder = tmp_path / "cache"
    store = open_store(folder)
    assert store.get_many([b"k" * 32]) == [None]
    assert len(store) == 0
    assert feature_cache_info(folder).size == 0
    clear_feature_cache(folder)
    assert not folder.exists()


def test_import_writes_nothing(tmp_path):
    env = {**os.environ, "SKTRANSFER_CACHE": str(tmp_path / "c"), "HOME": str(tmp_path)}
    code = "import sktransfer.store._store as s; s.open_store('auto')"
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert not (tmp_path / "c").exists()


def test_auto_is_the_variable_or_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE", str(tmp_path / "mine"))
    assert open_store("auto").path == os.path.realpath(tmp_path / "mine")
    monkeypatch.delenv("SKTRANSFER_CACHE")
    monkeypatch.setattr(
        _store.platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "user")
    )
    assert open_store("auto").path == os.path.realpath(tmp_path / "user")


def test_none_is_no_store():
    assert open_store(None) is None
    assert feature_cache_info(None) is None
    clear_feature_cache(None)


@pytest.mark.parametrize("value", [True, 3, "", b"folder", {"a"}])
def test_anything_else_is_an_error_that_names_the_parameter(value):
    with pytest.raises(ValueError, match="feature_cache must be 'auto', None"):
        open_store(value)


def test_two_names_of_a_folder_are_one_store(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert open_store(tmp_path / "link") is open_store(str(tmp_path / "real"))


def test_a_pickled_store_is_its_path(tmp_path):
    store = open_store(tmp_path)
    assert pickle.loads(pickle.dumps(store)) is store


def test_info_and_clear_leave_the_users_files(tmp_path):
    (tmp_path / "theirs.txt").write_text("mine")
    open_store(tmp_path).put_many(make_rows(100))
    info = feature_cache_info(tmp_path)
    assert info.n_entries == 100
    assert 0 < info.size < info.limit
    clear_feature_cache(tmp_path)
    assert os.listdir(tmp_path) == ["theirs.txt"]
    assert feature_cache_info(tmp_path).n_entries == 0


@pytest.mark.parametrize("text", ["much", "10 gigs", "-1", "nan", "inf"])
def test_a_wrong_limit_is_an_error_that_names_the_variable(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match="SKTRANSFER_CACHE_LIMIT must be"):
        open_store(tmp_path)
