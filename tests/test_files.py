"""Atomic writes: a reader sees the whole old file or the whole new one."""

import os
import signal
import stat

import pytest

from sktransfer._files import atomic_write

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "file.bin"
    for content in (b"old", b"new"):
        with atomic_write(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file.bin"]


def test_until_the_block_ends_a_reader_sees_the_old_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def write_half():
        with atomic_write(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"), atomic_write(path) as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == ["a folder"]


def test_the_content_is_on_the_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("fsync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("replace") or replace(*paths))
    with atomic_write(tmp_path / "file.bin") as file:
        file.write(b"new")
    assert calls == ["fsync", "replace"]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        with atomic_write(path) as file:
            file.write(b"half of the new")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:  # what the killed process left is not in the way
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_two_writers_of_one_path_do_not_mix_their_files(tmp_path):
    path = tmp_path / "file.bin"
    with atomic_write(path) as first:
        first.write(b"fir")
        with atomic_write(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
        first.write(b"st")
    assert path.read_bytes() == b"first"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_from_the_umask(tmp_path, umask, mode):
    path = tmp_path / "file.bin"
    before = os.umask(umask)
    try:
        with atomic_write(path) as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
