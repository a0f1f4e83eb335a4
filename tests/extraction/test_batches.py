import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sktransfer.extraction import _batches
from sktransfer.extraction._batches import MemoryBudget, run_batches, run_images


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_batches_of_images_come_in_order(pool):
    batches = list(run_images([[4, 5], [0, 1], [6]], sum, pool, 2))
    assert batches == [[4, 5], [0, 1], [6]]


@pytest.mark.parametrize(("n_images", "parts"), [(3, [1] * 3), (10, [2] * 5), (80, [8] * 10)])
def test_the_images_of_a_batch_are_divided_between_the_workers(pool, n_images, parts):
    (sizes,) = run_images([range(n_images)], len, pool, 2)
    assert sizes == parts


def test_images_are_worked_on_in_a_bounded_window(pool):
    started, begun = [], []

    def batches():
        for i in range(0, 100, 10):
            begun.append(i)
            yield range(i, i + 10)

    results = run_images(batches(), started.append, pool, 2)
    next(results)
    assert len(started) <= 10 * (1 + _batches._BATCHES_AHEAD)
    assert len(begun) == 1 + _batches._BATCHES_AHEAD  # nor is more of the plan looked at
    results.close()


def test_work_on_batches_comes_in_order_and_a_few_are_under_way(pool):
    started = []

    def work(positions):
        started.append(positions)
        return sum(positions)

    results = run_batches([[i] for i in range(50)], work, pool, n_workers=2)
    assert next(results) == 0
    assert len(started) <= 1 + 2 * 2
    assert list(results) == list(range(1, 50))


def test_threads_never_hold_more_memory_than_the_budget():
    budget, held, most, lock = MemoryBudget(100), [0], [0], threading.Lock()

    def work(n_bytes):
        with budget.reservation() as reserve:
            reserve(n_bytes)
            with lock:
                held[0] += n_bytes
                most[0] = max(most[0], held[0])
            with lock:
                held[0] -= n_bytes

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [10, 60, 100, 45] * 50))
    assert 0 < most[0] <= 100


def test_what_is_larger_than_the_budget_is_let_alone():
    budget = MemoryBudget(100)
    with budget.reservation() as reserve:
        reserve(1000)
        assert budget._held == 100
    assert budget._held == 0


def test_memory_is_given_back_after_an_error():
    budget = MemoryBudget(100)

    def fail():
        with budget.reservation() as reserve:
            reserve(50)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert budget._held == 0


def test_memory_is_reserved_once_in_a_block():
    with MemoryBudget(100).reservation() as reserve:
        reserve(1)
        with pytest.raises(RuntimeError, match="reserved twice"):
            reserve(1)
