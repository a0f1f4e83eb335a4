import importlib.util
import os
import signal
import threading

import joblib
import pytest
import torch

from sktransfer import FineTunedClassifier
from sktransfer.runtime import _threads
from sktransfer.runtime._threads import (
    CorePool,
    n_cores,
    n_threads,
    torch_threads_of_a_worker,
    torch_threads_within_cores,
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
# A bound for what must have hung; what works takes a thousandth of it.
HUNG = 60  # s


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    monkeypatch.setattr(_threads, "_ALLOTTED", [])
    _threads._turns.cache_clear()
    yield
    _threads._turns.cache_clear()


@pytest.fixture
def two_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_new_thread(ask):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.parametrize(
    ("omp", "mkl", "cores"),
    [
        ("", "", 4),
        ("2", "", 2),
        ("8", "", 4),
        ("3,2", "", 3),  # of three threads, each may start two
        (" 1 ", "", 1),
        ("0", "", 4),
        ("many", "", 4),
        ("4", "2", 2),  # a worker of joblib, where the user has set the first
    ],
)
def test_cores_are_the_machines_or_those_that_are_allotted(
    four_cores, monkeypatch, omp, mkl, cores
):
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setenv("MKL_NUM_THREADS", mkl)
    monkeypatch.setattr(_threads, "_ALLOTTED", _threads._allotted())
    assert n_cores() == cores


@pytest.mark.parametrize(("n_jobs", "n"), [(None, 4), (-1, 4), (-2, 3), (-99, 1), (1, 1), (9, 9)])
def test_threads_follow_joblibs_meaning_of_n_jobs(four_cores, n_jobs, n):
    assert n_threads(n_jobs) == n


def test_a_number_of_threads_that_is_asked_for_is_obeyed_in_a_worker(four_cores, monkeypatch):
    monkeypatch.setattr(_threads, "_ALLOTTED", [1])
    assert n_threads(3) == 3
    assert n_threads(None) == n_threads(-1) == 1


def test_what_is_allotted_is_read_once_when_the_package_is_imported(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location(_threads.__name__, _threads.__file__)
    imported_now = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported_now)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert imported_now.n_cores() == 1


def most_at_work(pools, n_expected, n_tasks=6):
    """Give every pool tasks; return how many were at work at once, of all pools.

    The first tasks wait until `n_expected` are at work, however slow the machine is.
    """
    changed, at_work, most = threading.Condition(), 0, 0

    def task():
        nonlocal at_work, most
        with changed:
            at_work += 1
            most = max(most, at_work)
            changed.notify_all()
            assert changed.wait_for(lambda: most >= n_expected, HUNG)
        threading.Event().wait(0.02)  # where one more could come in, it does now
        with changed:
            at_work -= 1

    futures = [pool.submit(task) for _ in range(n_tasks) for pool in pools]
    for future in futures:
        future.result()
    return most


def test_pools_of_one_process_share_its_cores(four_cores):
    with CorePool() as one, CorePool() as other:
        assert one.n_threads == other.n_threads == 4
        assert most_at_work([one, other], 4) == 4


def test_pools_of_an_explicit_size_share_with_nobody(four_cores):
    with CorePool(4) as one, CorePool(4) as other:
        assert most_at_work([one, other], 8) == 8


def test_torch_has_one_thread_in_a_pool_and_as_many_as_before_elsewhere(two_torch_threads):
    inside, done = threading.Event(), threading.Event()

    def task():
        inside.set()
        done.wait(HUNG)
        return torch.get_num_threads()

    with CorePool(1) as pool:
        future = pool.submit(task)
        inside.wait(HUNG)
        assert torch.get_num_threads() == 2
        assert in_new_thread(torch.get_num_threads) == 2
        done.set()
        assert future.result() == 1
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 2


def test_pools_in_threads_leave_torch_as_it_was(two_torch_threads):
    def extract():
        with CorePool(2) as pool:
            inside = [future.result() for future in [pool.submit(torch.get_num_threads)] * 4]
        return inside, torch.get_num_threads()

    answers = joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(extract)() for _ in range(12)
    )
    assert answers == [([1] * 4, 2)] * 12
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 2


def numbers_of_torch():
    with torch_threads_of_a_worker():
        inside = torch.get_num_threads()
    return inside, torch.get_num_threads()


def test_torch_has_one_thread_in_each_thread_of_a_parallel_job(four_cores, two_torch_threads):
    assert numbers_of_torch() == (2, 2)
    assert in_new_thread(numbers_of_torch) == (2, 2)  # a thread of the user's own
    parallel = joblib.Parallel(n_jobs=2, backend="threading")
    answers = parallel(joblib.delayed(numbers_of_torch)() for _ in range(4))
    assert answers == [(1, 2)] * 4
    assert in_new_thread(torch.get_num_threads) == 2


def exit_code_of(child):
    """Return the exit code of a forked process; one that hangs is killed."""
    killer = threading.Timer(HUNG, os.kill, (child, signal.SIGKILL))
    killer.start()
    _, status = os.waitpid(child, 0)
    killer.cancel()
    return os.waitstatus_to_exitcode(status)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_turns_that_its_parent_took(four_cores):
    with CorePool() as pool:
        busy, done = threading.Barrier(5), threading.Event()
        for _ in range(4):
            pool.submit(lambda: (busy.wait(HUNG), done.wait(HUNG)))
        busy.wait(HUNG)
        child = os.fork()
        if child == 0:
            with CorePool() as own:
                os._exit(own.submit(lambda: 7).result(timeout=HUNG))
        done.set()
    assert exit_code_of(child) == 7


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_that_was_changing_torch():
    """A pool in the child limits torch's threads, as one in the parent did at the fork."""
    changing, done = threading.Event(), threading.Event()

    def change():
        with _threads._changing_torch:
            changing.set()
            done.wait(HUNG)

    thread = threading.Thread(target=change)
    thread.start()
    changing.wait(HUNG)
    child = os.fork()
    if child == 0:
        with CorePool(1) as own:
            os._exit(6 + own.submit(torch.get_num_threads).result())
    try:
        assert exit_code_of(child) == 7
    finally:
        done.set()
        thread.join()


def test_the_number_is_as_before_after_an_error_in_a_parallel_job(two_torch_threads):
    def fail():
        with torch_threads_of_a_worker():
            raise ValueError("a fit that fails")

    def failing():
        with pytest.raises(ValueError, match="a fit that fails"):
            fail()
        assert torch.get_num_threads() == 2
        with torch_threads_of_a_worker(), torch_threads_of_a_worker():
            nested = torch.get_num_threads()
        return nested, torch.get_num_threads()

    parallel = joblib.Parallel(n_jobs=2, backend="threading")
    assert parallel(joblib.delayed(failing)() for _ in range(4)) == [(1, 2)] * 4


@pytest.mark.parametrize(("cores", "inside"), [(1, 1), (2, 2), (4, 2)])
def test_torch_has_no_more_threads_than_the_process_has_cores(
    monkeypatch, two_torch_threads, cores, inside
):
    """A container may use a share of the machine's cores, which torch counts all."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    for limited in (torch_threads_within_cores, torch_threads_of_a_worker):
        with limited():
            assert torch.get_num_threads() == inside
            assert in_new_thread(torch.get_num_threads) == 2
        assert torch.get_num_threads() == 2


def test_a_fit_trains_on_the_cores_of_the_process_and_gives_threads_back_after_an_error(
    monkeypatch, two_torch_threads, shapes
):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    numbers = []

    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            numbers.append(torch.get_num_threads())
            if len(numbers) == 2:
                raise ArithmeticError("the second step")
            return super().step(closure)

    classifier = FineTunedClassifier(
        "mini", recipe="fast", optimizer=Failing, batch_size=8, feature_cache=None
    )
    with pytest.raises(ArithmeticError, match="the second step"):
        classifier.fit(*shapes)
    assert numbers == [1, 1]
    assert torch.get_num_threads() == 2
