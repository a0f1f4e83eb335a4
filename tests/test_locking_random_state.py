import os
import threading
import time

import joblib
import pytest
import torch

from sktransfer._locking import own_random_state


def draws(seed):
    with own_random_state(seed):
        first = torch.rand(())
        time.sleep(0.002)  # time for other threads to interfere
        return first.item(), torch.rand(()).item()


def test_threads_get_the_numbers_of_their_seeds_and_the_state_stays():
    before = torch.random.get_rng_state()
    expected = [draws(seed) for seed in range(20)]
    assert len(set(expected)) == 20
    parallel = joblib.Parallel(n_jobs=4, backend="threading")
    assert parallel(joblib.delayed(draws)(seed) for seed in range(20)) == expected
    assert torch.equal(torch.random.get_rng_state(), before)


def test_blocks_nest_and_the_outer_one_goes_on_where_it_was():
    with own_random_state(1):
        torch.rand(())
        expected = torch.rand(())
    with own_random_state(1):
        torch.rand(())
        with own_random_state(2):
            torch.rand(3)
        assert torch.rand(()) == expected


def test_the_state_stays_when_the_work_fails():
    before = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), own_random_state(0):
        1 / 0  # noqa: B018
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_of_its_parent():
    inside, done = threading.Event(), threading.Event()

    def hold():
        with own_random_state():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    child = os.fork()
    if child == 0:
        with own_random_state(0):
            os._exit(7)
    deadline = time.monotonic() + 10
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    done.set()
    thread.join()
    assert ended
    assert os.waitstatus_to_exitcode(status) == 7
