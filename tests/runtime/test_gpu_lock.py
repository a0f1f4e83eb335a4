import os
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sktransfer.exceptions import GpuWaitWarning
from sktransfer.runtime import _gpu_lock
from sktransfer.runtime._gpu_lock import GpuLock, GpuTurn, WaitStopped, gpu_lock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


class Holder:
    """A process that holds a lease for some seconds, and notes from when to when."""

    def __init__(self, name, seconds):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with GpuLock(name):
                os.write(writing, f"{time.monotonic()}\n".encode())
                time.sleep(seconds)
                os.write(writing, f"{time.monotonic()}\n".encode())
            os._exit(0)
        os.close(writing)
        self._notes = os.fdopen(reading)

    def read_time(self):
        return float(self._notes.readline())

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.join()

    def join(self):
        self._notes.close()
        os.waitpid(self.pid, 0)


@pytest.fixture
def name(tmp_path, monkeypatch):
    """Return a name of a GPU whose locks are this test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return "cuda-of-a-test"


def test_one_process_at_a_time(name):
    holders = [Holder(name, 0.2) for _ in range(3)]
    spans = sorted((holder.read_time(), holder.read_time()) for holder in holders)
    for holder in holders:
        holder.join()
    assert spans[0][1] <= spans[1][0]
    assert spans[1][1] <= spans[2][0]


def test_more_processes_when_asked(name, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_GPU_PROCESSES", "2")
    holders = [Holder(name, 600), Holder(name, 600)]
    for holder in holders:
        holder.read_time()  # both have it before either gives it back
    third = Holder(name, 0)
    killed = time.monotonic()
    holders[0].kill()
    assert third.read_time() >= killed
    third.join()
    holders[1].kill()


def test_gpus_are_leased_one_by_one(name):
    with GpuLock(name), GpuLock(name + "-other"):
        pass  # the second does not wait for the first


def test_a_killed_process_gives_its_lease_back(name):
    holder = Holder(name, 600)
    holder.read_time()
    holder.kill()
    with GpuLock(name):
        pass


def test_threads_of_a_process_hold_it_together_and_blocks_nest(name):
    lease, both = GpuLock(name), threading.Barrier(2)

    def work():
        with lease, lease:
            both.wait(10)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken
    with GpuLock(name):  # free again
        pass


def test_it_is_given_back_when_the_work_fails(name):
    lease = GpuLock(name)
    with pytest.raises(ZeroDivisionError), lease:
        1 / 0  # noqa: B018
    with GpuLock(name):
        pass


def test_a_fork_does_not_keep_it(name):
    with _gpu_lock._lease(name):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with GpuLock(name):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_that_a_fork_has_copied_unseen_is_not_locked_for_longer(name):
    path = _gpu_lock.own_folder() / name
    file = _gpu_lock.open_lock_file(path)
    copied = os.dup(file)  # as in a child that was forked before the file was listed
    assert _gpu_lock.is_locked_now(file)
    _gpu_lock.close_lock_file(file)
    again = _gpu_lock.open_lock_file(path)
    assert _gpu_lock.is_locked_now(again)
    _gpu_lock.close_lock_file(again)
    os.close(copied)


# Everybody may write to the folder of temporary files.


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Return the two folders that locks may be in, neither of which is there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    cache = tmp_path / "cache"
    monkeypatch.setattr(_gpu_lock.platformdirs, "user_cache_dir", lambda *_, **__: str(cache))
    return tmp_path / "temporary" / f"sktransfer-{os.getuid()}", cache / "gpu-locks"


def folder_of_locks():
    with GpuLock("cuda-of-a-test"):
        return _gpu_lock.own_folder()


@pytest.mark.parametrize("umask", [0, 0o022, 0o277])
def test_the_folder_of_locks_is_private_whatever_the_umask(places, umask):
    before = os.umask(umask)
    try:
        assert folder_of_locks() == places[0]
    finally:
        os.umask(before)
    assert stat.S_IMODE(places[0].stat().st_mode) == 0o700


def test_a_folder_that_others_may_write_to_is_closed_to_them(places):
    places[0].mkdir()
    places[0].chmod(0o777)
    assert folder_of_locks() == places[0]
    assert stat.S_IMODE(places[0].stat().st_mode) == 0o700


@pytest.mark.parametrize("what", ["a link", "a file", "another user's"])
def test_what_is_not_a_folder_of_one_s_own_is_not_used(places, tmp_path, what):
    if what == "a link":
        (tmp_path / "elsewhere").mkdir()
        places[0].symlink_to(tmp_path / "elsewhere")
    elif what == "a file":
        places[0].write_text("")
    else:
        places[0].mkdir(mode=0o755)
        if os.getuid() != 0:
            pytest.skip("needs root, to make a folder of another user")
        os.chown(places[0], 65534, 65534)
    assert folder_of_locks() == places[1]
    assert not list(tmp_path.glob("elsewhere/*"))


def test_without_any_folder_of_one_s_own_the_error_says_which_and_what_to_do(places):
    for place in places:
        place.parent.mkdir(exist_ok=True)
        place.write_text("")
    with pytest.raises(OSError, match=r"temporary.*File exists.*gpu-locks.*TMPDIR"):
        folder_of_locks()


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_wrong_number_of_processes_is_an_error_that_names_the_variable(name, monkeypatch, value):
    monkeypatch.setenv("SKTRANSFER_GPU_PROCESSES", value)
    with pytest.raises(ValueError, match=f"SKTRANSFER_GPU_PROCESSES.*'{value}'"), GpuLock(name):
        pass


def test_a_gpu_is_leased_by_its_own_name_and_the_cpu_not_at_all(name, monkeypatch, tmp_path):
    with gpu_lock(torch.device("cpu")):
        assert not list(tmp_path.rglob("*.lock"))
    monkeypatch.setattr(_gpu_lock, "gpu_name", lambda device: f"{name}-{device}")
    with gpu_lock(torch.device("cuda:1")):
        names = {path.name for path in tmp_path.rglob("*.lock")}
        assert names == {f"{name}-cuda:1-0.lock", f"{name}-cuda:1-next.lock"}


def test_who_waits_long_is_told_who_holds_the_gpu_and_what_to_do(name, monkeypatch):
    monkeypatch.setattr(_gpu_lock, "_SILENT", 0.05)
    holder = Holder(name, 600)
    holder.read_time()
    killer = threading.Timer(0.5, holder.kill)
    killer.start()
    with pytest.warns(GpuWaitWarning) as caught, GpuLock(name):
        pass
    killer.join()
    assert len(caught) == 1
    assert f"in use by process {holder.pid}, and goes on" in str(caught[0].message)
    assert "SKTRANSFER_GPU_PROCESSES" in str(caught[0].message)


def test_nobody_is_told_of_a_gpu_that_is_free(name):
    with GpuLock(name):  # warnings are errors
        pass


# Threads of a process hold it together, and other processes wait.


@pytest.fixture
def waits(monkeypatch):
    """Return an event that is set when a thread waits."""
    event, wait = threading.Event(), _gpu_lock._Waiting.wait
    monkeypatch.setattr(
        _gpu_lock._Waiting, "wait", lambda waiting, *a: event.set() or wait(waiting, *a)
    )
    return event


@pytest.mark.parametrize("kind", ["block", "turn"])
def test_a_thread_that_comes_later_lets_a_process_that_has_waited_go_first(
    name, monkeypatch, waits, kind
):
    monkeypatch.setattr(_gpu_lock, "gpu_name", lambda device: name)
    monkeypatch.setattr(_gpu_lock, "_TURN", 0)
    device, lock, begun = torch.device("cuda"), _gpu_lock._lease(name), []

    def come_later():
        turn = GpuTurn(device)
        if kind == "turn":
            turn.begin()
        else:
            lock.acquire()
        begun.append(time.monotonic())
        waits.set()  # where it has not waited
        (turn.end if kind == "turn" else lock.release)()

    later = threading.Thread(target=come_later)
    with lock:
        other = Holder(name, 0)
        while not lock.is_wanted():
            time.sleep(0.001)
        later.start()
        assert waits.wait(60)
        assert not begun
    later.join()
    other.read_time()
    assert other.read_time() <= begun[0]
    other.join()


@pytest.fixture
def wanted(name, monkeypatch):
    """Return the lock of a GPU that another process has waited for, and that never passes on."""

    def fail(waiting, holders):
        raise AssertionError("the lock could not be passed on")

    monkeypatch.setattr(_gpu_lock, "gpu_name", lambda device: name)
    monkeypatch.setattr(_gpu_lock, "_TURN", 0)
    monkeypatch.setattr(GpuLock, "is_wanted", lambda lock: True)
    monkeypatch.setattr(_gpu_lock._Waiting, "wait", fail)
    return _gpu_lock._lease(name)


def in_a_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(60)


def test_a_thread_that_holds_it_does_not_wait_for_itself(wanted):
    device, turn = torch.device("cuda"), GpuTurn(torch.device("cuda"))
    with gpu_lock(device), gpu_lock(device):
        turn.begin()
        turn.end()
        with gpu_lock(device):
            pass
    turn.begin()
    with gpu_lock(device):
        turn.end()
    with wanted:
        pass
    assert wanted._of_threads == {}


def test_what_a_fit_extracts_in_another_thread_does_not_wait_for_the_fit(wanted):
    def extract():
        turn = GpuTurn(torch.device("cuda"))
        turn.begin()
        turn.end()

    with gpu_lock(torch.device("cuda")):
        in_a_thread(extract)
    with wanted, pytest.raises(AssertionError, match="passed on"):  # it is nobody's fit
        in_a_thread(extract)


def test_a_second_block_waits_until_the_lock_was_passed_on(wanted):
    def compute():
        with gpu_lock(torch.device("cuda")):
            pass

    with gpu_lock(torch.device("cuda")), pytest.raises(AssertionError, match="passed on"):
        in_a_thread(compute)


def test_threads_join_within_a_second_and_where_no_process_waits(name, monkeypatch, wanted):
    monkeypatch.setattr(_gpu_lock, "_TURN", 3600)
    with wanted:
        in_a_thread(lambda: wanted.__enter__() or wanted.release())
    monkeypatch.setattr(_gpu_lock, "_TURN", 0)
    monkeypatch.setattr(GpuLock, "is_wanted", lambda lock: False)
    with wanted:
        in_a_thread(lambda: wanted.__enter__() or wanted.release())


def test_a_thread_that_lets_another_process_go_first_can_be_stopped(name, monkeypatch, waits):
    monkeypatch.setattr(_gpu_lock, "_TURN", 0)
    monkeypatch.setattr(GpuLock, "is_wanted", lambda lock: True)
    lock, stop = GpuLock(name), threading.Event()
    with lock, ThreadPoolExecutor(1) as pool:
        later = pool.submit(lock.acquire, stop)
        assert waits.wait(60)
        assert not later.done()
        stop.set()
        with pytest.raises(WaitStopped):
            later.result(60)
    with lock:
        pass


def test_a_thread_that_lets_another_process_go_first_for_long_is_told(name, monkeypatch):
    monkeypatch.setattr(_gpu_lock, "_TURN", 0)
    monkeypatch.setattr(_gpu_lock, "_SILENT", 0)
    answers = iter([True, False])
    monkeypatch.setattr(GpuLock, "is_wanted", lambda lock: next(answers))
    lock = GpuLock(name)
    with lock, pytest.warns(GpuWaitWarning, match="by its other threads, after which another"):
        in_a_thread(lambda: lock.__enter__() or lock.release())


def test_a_turn_ends_when_another_process_waits(name, monkeypatch):
    monkeypatch.setattr(_gpu_lock, "gpu_name", lambda device: name)
    monkeypatch.setattr(_gpu_lock, "_TURN", 0)
    turn = GpuTurn(torch.device("cuda"))
    assert not turn.is_over()  # not held
    turn.begin()
    turn.begin()
    assert not turn.is_over()  # nobody waits
    other = Holder(name, 0)
    while not turn.is_over():
        time.sleep(0.001)
    turn.end()
    turn.end()
    turn.begin()  # behind the other process, which was first in line
    begun = time.monotonic()
    turn.end()
    other.read_time()
    assert other.read_time() <= begun
    other.join()


def test_a_turn_is_not_over_before_its_time(name, monkeypatch):
    monkeypatch.setattr(_gpu_lock, "gpu_name", lambda device: name)
    monkeypatch.setattr(_gpu_lock, "_TURN", 3600)
    monkeypatch.setattr(GpuLock, "is_wanted", lambda lock: True)
    turn = GpuTurn(torch.device("cuda"))
    turn.begin()
    assert not turn.is_over()
    turn.end()


def test_the_cpu_has_turns_without_end():
    turn = GpuTurn(torch.device("cpu"))
    turn.begin()
    assert not turn.is_over()
    turn.end()
