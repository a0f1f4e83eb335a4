import os
import signal
import threading

import pytest

from sktransfer.store import _key_locks
from sktransfer.store._key_locks import KeyLocks

needs_locks = pytest.mark.skipif(_key_locks.fcntl is None, reason="needs locks on parts of a file")


def key(i):
    return i.to_bytes(32, "big")


KEYS = [key(i) for i in range(10)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "folder" / "locks")


class Other:
    """A process that takes locks and holds them."""

    def __init__(self, path, keys):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            taken = KeyLocks(path).acquire(keys)
            os.write(writing, bytes([len(taken)]))
            signal.pause()
        os.close(writing)
        self.n_taken = os.read(reading, 1)[0]
        os.close(reading)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@needs_locks
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_key_is_one_process_s_until_it_ends(path):
    locks = KeyLocks(path)
    assert locks.acquire(KEYS[:3]) == KEYS[:3]
    other = Other(path, KEYS[2:5])
    assert other.n_taken == 2
    assert locks.acquire(KEYS[3:6]) == KEYS[5:6]
    other.kill()
    assert locks.acquire(KEYS[3:6]) == KEYS[3:5]


@needs_locks
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_what_is_released_is_free_and_the_rest_is_not(path):
    locks = KeyLocks(path)
    locks.acquire(KEYS)
    locks.release(KEYS[:4])
    other = Other(path, KEYS)
    assert other.n_taken == 4
    other.kill()
    locks.release(KEYS[4:])
    other = Other(path, KEYS)
    assert other.n_taken == 10
    other.kill()


@needs_locks
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("changed", [0, 8, 15, 16, 23, 31])
def test_keys_that_differ_in_any_byte_do_not_wait_for_each_other(changed, path):
    # 16 bytes for network, depth and preprocessing, 16 for the image
    one = bytes(range(32))
    other = bytes(value ^ (i == changed) for i, value in enumerate(one))
    locks = KeyLocks(path)
    assert locks.acquire([one, other]) == [one, other]
    locks.release([other])
    process = Other(path, [one, other])
    assert process.n_taken == 1
    process.kill()


def test_a_key_is_one_thread_s(path):
    locks, taken, lock = KeyLocks(path), [], threading.Lock()

    def work():
        mine = locks.acquire(KEYS)
        with lock:
            taken.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == KEYS
    locks.release(KEYS)
    assert locks.acquire(KEYS) == KEYS


@pytest.mark.parametrize("broken", ["no fcntl", "no folder", "no locks"])
def test_where_nothing_can_be_locked_every_claim_is_granted(broken, path, monkeypatch):
    if broken == "no fcntl":
        monkeypatch.setattr(_key_locks, "fcntl", None)
    elif broken == "no folder":
        path = os.path.join(__file__, "locks")
    elif _key_locks.fcntl is not None:

        def no_locks(*arguments):
            raise OSError(37, "No locks available")

        monkeypatch.setattr(_key_locks.fcntl, "lockf", no_locks)
    for _ in range(2):
        locks = KeyLocks(path)
        assert locks.acquire(KEYS) == KEYS
        assert locks.acquire(KEYS) == []  # but once in this process
        locks.release(KEYS)
        assert locks.acquire(KEYS) == KEYS


def test_no_file_stays_open(path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    locks = KeyLocks(path)
    before = len(os.listdir("/proc/self/fd"))
    locks.acquire(KEYS)
    locks.release(KEYS)
    assert len(os.listdir("/proc/self/fd")) == before
