import os
import signal
import stat

import pytest

from sktransfer.exceptions import FeatureCacheWarning
from sktransfer.store import _folder
from sktransfer.store._folder import (
    collect_rubbish,
    is_read_only,
    make_private_folder,
    remove_folder,
    replacement_of,
)
from sktransfer.store._lmdb_store import SUBFOLDER
from sktransfer.store._store import open_store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes of files are those of POSIX")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_folders_that_are_made_are_private_and_those_that_were_there_are_not_changed(
    tmp_path, umask
):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o755)
    make_private_folder(str(theirs / "cache" / "rows"))
    assert mode(theirs) == 0o755
    assert mode(theirs / "cache") == mode(theirs / "cache" / "rows") == 0o700


def test_a_store_is_read_by_its_user_alone_whatever_the_umask(tmp_path, umask, rows):
    tmp_path.chmod(0o755)
    store = open_store(tmp_path / "cache")
    store.key_locks.acquire([bytes(32)])
    store.put_many(rows)
    folder = tmp_path / "cache" / SUBFOLDER
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "cache") == mode(folder) == 0o700
    assert sorted(os.listdir(folder)) == ["data.mdb", "lock.mdb", "locks"]
    assert {mode(folder / name) for name in os.listdir(folder)} == {0o600}


def test_a_store_that_others_could_read_is_closed_to_them(tmp_path, rows):
    store = open_store(tmp_path)
    store.put_many(rows)
    folder = tmp_path / SUBFOLDER
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    store._file = None  # as in a new process
    assert store.get_many(list(rows))[0] is not None
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_a_copy_that_gives_disk_back_is_private_too(tmp_path, monkeypatch, rows):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "100M")
    store = open_store(tmp_path)
    store.put_many({bytes([i]) * 32: next(iter(rows.values())).repeat(2**18) for i in range(30)})
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "4M")
    with pytest.warns(FeatureCacheWarning, match="limit is 4M now"):
        store.put_many(rows)
    assert mode(tmp_path / SUBFOLDER) == 0o700
    assert {mode(path) for path in (tmp_path / SUBFOLDER).iterdir()} == {0o600}


def test_another_user_s_store_is_not_read_and_not_a_bare_error(open_folder, as_another_user, rows):
    open_store(open_folder).put_many(rows)

    def work():
        store = open_store(open_folder)
        found = store.get_many(list(rows))
        with pytest.warns(FeatureCacheWarning, match="Nothing is written.*Permission denied"):
            store.put_many(rows)
        store.put_many(rows)
        return found

    assert as_another_user(work) == [None] * len(rows)


def test_users_with_a_folder_each_do_not_meet(open_folder, as_another_user, rows):
    os.chmod(open_folder, 0o1777)
    open_store(os.path.join(open_folder, "root")).put_many(rows)

    def work():
        store = open_store(os.path.join(open_folder, "nobody"))
        store.put_many(rows)
        return len(store)

    assert as_another_user(work) == len(rows)


# removal


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_file_that_is_cleared_between_two_looks_does_not_make_the_store_read_only(
    tmp_path, monkeypatch, comes_back
):
    path = tmp_path / "data"
    path.touch()
    access, exists = os.access, os.path.exists

    def clear_and_access(asked, *how, **more):
        if asked == str(path):
            path.unlink(missing_ok=True)
            monkeypatch.setattr(_folder.os, "access", access)
        return access(asked, *how, **more)

    def make_and_look(asked):
        if comes_back:
            path.touch()
        return exists(asked)

    monkeypatch.setattr(_folder.os, "access", clear_and_access)
    monkeypatch.setattr(_folder.os, "supports_effective_ids", {clear_and_access, access})
    monkeypatch.setattr(_folder.os.path, "exists", make_and_look)
    assert not is_read_only(str(tmp_path), ("data",))


def test_what_nobody_may_write_to_is_read_only_for_all(tmp_path):
    assert not is_read_only(str(tmp_path / "missing"), ())
    assert not is_read_only(str(tmp_path), ())
    tmp_path.chmod(0o555)
    assert is_read_only(str(tmp_path), ())
    tmp_path.chmod(0o755)


def test_a_folder_is_removed_at_once_and_twice_is_once(tmp_path):
    (tmp_path / "activations-3").mkdir()
    (tmp_path / "activations-3" / "file").write_text("")
    remove_folder(str(tmp_path / "activations-3"))
    remove_folder(str(tmp_path / "activations-3"))
    assert os.listdir(tmp_path) == []


def test_a_process_killed_while_it_removes_leaves_nothing_to_the_next(tmp_path, monkeypatch, rows):
    open_store(tmp_path).put_many(rows)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(
            _folder.shutil, "rmtree", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        )
        remove_folder(str(tmp_path / SUBFOLDER))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (name,) = os.listdir(tmp_path)
    assert ".trash-" in name
    store = open_store(tmp_path)
    store._reset()  # as in a new process
    store.put_many(rows)
    assert os.listdir(tmp_path) == [SUBFOLDER]


def test_what_the_first_version_left_is_collected_and_the_user_s_files_are_not(tmp_path):
    (tmp_path / "trash-abc_1234" / "activations-1").mkdir(parents=True)
    for theirs in ("trash-pictures", "trash-holidays", "activations-3.trash-can"):
        (tmp_path / theirs).mkdir()
        (tmp_path / theirs / "image.png").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"activations-3.trash-{'0' * 16}").symlink_to(tmp_path / "elsewhere")
    collect_rubbish(str(tmp_path), SUBFOLDER)
    assert sorted(os.listdir(tmp_path)) == [
        "activations-3.trash-0000000000000000",
        "activations-3.trash-can",
        "elsewhere",
        "trash-holidays",
        "trash-pictures",
    ]


def test_what_is_being_filled_is_not_collected_and_what_was_given_up_is(tmp_path):
    folder = str(tmp_path / "activations-3")
    with replacement_of(folder) as new:
        collect_rubbish(str(tmp_path), SUBFOLDER)
        assert os.listdir(tmp_path) == [os.path.basename(new)]
    assert os.listdir(tmp_path) == ["activations-3"]
    with pytest.raises(ZeroDivisionError), replacement_of(folder):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == ["activations-3"]


def test_a_store_of_a_former_version_is_said_to_be_one_and_collected(tmp_path, rows):
    former = tmp_path / "activations-1"
    former.mkdir()
    (former / "data.mdb").write_text("rows that can't be trusted")
    store = open_store(tmp_path)
    assert store.get_many(list(rows)) == [None] * len(rows)
    assert former.exists()  # reading changes nothing
    with pytest.warns(FeatureCacheWarning, match="former version.*can't be trusted"):
        store.put_many(rows)
    assert os.listdir(tmp_path) == [SUBFOLDER]
    store.put_many(rows)


def test_clear_removes_a_store_of_a_former_version(tmp_path):
    (tmp_path / "activations-1").mkdir()
    open_store(tmp_path).clear()
    assert os.listdir(tmp_path) == []
