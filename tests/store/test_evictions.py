import os

from sktransfer.store import _evictions
from sktransfer.store._evictions import EvictionLog


def make_keys(n):
    return [os.urandom(32) for _ in range(n)]


def run_through(log, keys, capacity, n_passes):
    """Pass over keys of 10 bytes each in turn, with an LRU cache of `capacity` of them.

    Returns whether it was thrashing, and stops there.
    """
    cached = {}
    for _ in range(n_passes):
        for key in keys:
            if key not in cached:
                log.ask([key])
                if log.is_thrashing(capacity):
                    return True
                if len(cached) == capacity:
                    oldest = next(iter(cached))
                    del cached[oldest]
                    log.add([([oldest], 10)])
            cached[key] = cached.pop(key, True)
    return False


def test_passes_over_more_than_a_store_holds_are_thrashing_and_it_says_what_is_missing():
    log = EvictionLog()
    assert run_through(log, make_keys(300), 225, n_passes=2)
    assert log.n_asked_again == 16
    assert 10 * (300 - 225) <= log.n_evicted_bytes <= 10 * (300 - 225 + 16)


def test_one_pass_over_anything_is_not_thrashing():
    log = EvictionLog()
    assert not run_through(log, make_keys(3000), 225, n_passes=1)
    assert log.n_asked_again == 0


def test_a_few_rows_asked_again_of_a_large_store_are_not_thrashing():
    log, keys = EvictionLog(), make_keys(100)
    log.add([(keys, 1000)])
    log.ask(keys)
    assert not log.is_thrashing(10**6)
    assert log.is_thrashing(2000)


def test_a_key_counts_once_for_each_eviction():
    log, keys = EvictionLog(), make_keys(10)
    log.add([(keys, 100)])
    for _ in range(5):
        log.ask(keys)
    assert log.n_asked_again == 10
    log.add([(keys, 100)])
    log.ask(keys)
    assert log.n_asked_again == 20
    assert log.n_evicted_bytes == 100


def test_memory_is_bounded_and_the_estimates_hold(monkeypatch):
    monkeypatch.setattr(_evictions, "_MOST_REMEMBERED", 500)
    log = EvictionLog()
    assert run_through(log, make_keys(20_000), 10_000, n_passes=2)
    assert len(log) <= 500
    assert 500 <= log.n_asked_again < 600
    assert 0.85 < log.n_evicted_bytes / (10 * 10_000) < 1.2
