import gc
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from joblib import Parallel, delayed

from sktransfer.runtime import _result_array
from sktransfer.runtime._result_array import ResultArray, new_array


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the folder of temporary files; there is next to no memory for results."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(_result_array, "result_budget", lambda: 1000)
    return tmp_path


def ones(*shape):
    return np.ones(shape, dtype=np.float32)


def test_rows_are_where_they_were_written_and_the_others_are_zeros():
    result = ResultArray(4)
    assert result.row_bytes is None
    result.write({2: ones(3), 0: 5 * ones(3)})
    result.repeat([2], [3])
    assert result.row_bytes == 12
    np.testing.assert_array_equal(result.finish()[:, 1], [5, 0, 1, 1])
    assert result.finish().dtype == np.float32


def test_nothing_written_is_rows_without_columns():
    result = ResultArray(4)
    result.repeat([], [])
    assert result.finish().shape == (4, 0)


def test_many_copies_are_made_in_parts(monkeypatch):
    monkeypatch.setattr(_result_array, "_COPIED_AT_ONCE", 25)  # two rows
    result = ResultArray(9)
    result.write({0: ones(3), 1: 2 * ones(3)})
    result.repeat([0, 1] * 3 + [0], [2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_array_equal(result.finish()[:, 0], [1, 2, 1, 2, 1, 2, 1, 2, 1])


def test_what_fits_the_budget_is_in_memory(folder):
    array = new_array((10, 25), np.float32)
    assert type(array) is np.ndarray
    assert not any(folder.iterdir())


def test_a_file_lives_as_long_as_what_looks_into_it(folder):
    array = new_array((11, 25), np.float32)
    assert isinstance(array, np.memmap)
    assert not array.any()
    array[3] = 7
    view = np.asarray(array)[3:5].T
    del array
    gc.collect()
    (path,) = folder.iterdir()
    assert path.stat().st_size == 11 * 25 * 4
    assert view[0, 0] == 7
    del view
    gc.collect()
    assert not any(folder.iterdir())


def test_the_file_is_gone_when_the_process_has_ended(folder):
    code = (
        "from sktransfer.runtime import _result_array as r\n"
        "r.result_budget = lambda: 0\n"
        "array = r.new_array((10, 10), 'float32')\n"
        "import os; print(*os.listdir(os.environ['TMPDIR']))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.count(".rows") == 1
    assert not any(folder.glob("*.rows"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_child_of_a_fork_does_not_remove_it(folder):
    array = new_array((11, 25), np.float32)
    child = os.fork()
    if child == 0:
        del array
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(folder.iterdir())) == 1
    del array


# A process that is killed


HOLDER = """
import os, signal, sys
from sktransfer.runtime import _result_array as r
r.result_budget = lambda: 0
array = r.new_array((10, 10), "float32")
print(flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(_result_array.fcntl is None, reason="needs locks on files")
def test_what_a_killed_process_left_is_deleted_by_the_next_and_what_lives_is_not(folder):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        (path,) = folder.iterdir()
        (folder / "sktransfer-notes.rows").symlink_to(path)
        _result_array._collect_once.cache_clear()
        own = new_array((11, 25), np.float32)  # of this process, and stays as well
        _result_array._collect_once.cache_clear()
        new_array((2, 2), np.float32)
        assert len(list(folder.iterdir())) == 3
        holder.communicate(b"\n")
    assert path.exists()
    new_array((2, 2), np.float32)  # once in a process is enough
    assert path.exists()
    _result_array._collect_once.cache_clear()  # as in a new process
    new_array((2, 2), np.float32)
    assert not path.exists()
    assert (folder / "sktransfer-notes.rows").is_symlink()
    assert own.flags.writeable


def test_a_file_that_is_collected_before_it_is_locked_is_made_anew(folder, monkeypatch):
    if _result_array.fcntl is None:
        pytest.skip("needs locks on files")
    mkstemp, made = _result_array.tempfile.mkstemp, []

    def collected_at_once(**kwargs):
        made.append(mkstemp(**kwargs))
        if len(made) == 1:
            os.unlink(made[0][1])
        return made[-1]

    monkeypatch.setattr(_result_array.tempfile, "mkstemp", collected_at_once)
    array = new_array((11, 25), np.float32)
    assert len(made) == 2
    assert [str(path) for path in folder.iterdir()] == [made[1][1]]
    del array


def test_no_file_stays_open_when_the_array_is_gone(folder):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    new_array((11, 25), np.float32)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        new_array((11, 25), np.float32)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_is_pickled_by_value_and_sent_to_workers(folder):
    array = new_array((11, 25), np.float32)
    array[:] = 3
    copied = pickle.loads(pickle.dumps(array))
    assert Parallel(n_jobs=2)(delayed(np.sum)(array) for _ in range(2)) == [825, 825]
    del array
    gc.collect()
    np.testing.assert_array_equal(copied, 3 * ones(11, 25))


def test_no_room_at_all_is_an_error_that_says_what_to_do(folder, monkeypatch):
    def full(file, n_bytes):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_result_array, "_reserve", full)
    with pytest.raises(MemoryError, match=r"300 activations of shape \(7,\).*No space.*TMPDIR"):
        new_array((300, 7), np.float32)
    assert not any(folder.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="disk can't be reserved here")
def test_the_disk_is_taken_at_once_so_that_it_cannot_run_full_later(folder):
    array = new_array((1000, 1000), np.float32)
    (path,) = folder.iterdir()
    assert path.stat().st_blocks * 512 >= array.nbytes
