"""Processes and threads that share a store compute each row once."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer._spec import BackboneSpec, FittedPlan, InputSpec
from sktransfer.backbones._architecture import NetworkStructure
from sktransfer.backbones._backbone import Backbone
from sktransfer.extraction import _compute
from sktransfer.extraction._compute import MissingRows
from sktransfer.extraction._extract import extract
from sktransfer.extraction._feature_extractor import ExtractionPlan
from sktransfer.extraction._image_ids import ImageIds, identify
from sktransfer.extraction._rows import Rows
from sktransfer.images._collection import as_images
from sktransfer.runtime._progress import count_forward_passes
from sktransfer.runtime._threads import CorePool
from sktransfer.store._store import open_store

# so that the values of images reach the first stage as they are
INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1 / 255,) * 3)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


class Slow(nn.Module):
    """The mean of each channel, after a while, and not before `n` processes are here."""

    def __init__(self, seconds=0.01, meeting=None, n=0):
        super().__init__()
        self.seconds, self.meeting, self.n = seconds, meeting, n

    def forward(self, images):
        if self.n:
            (self.meeting / str(os.getpid())).touch()
            wait_for(lambda: len(list(self.meeting.iterdir())) == self.n)
        time.sleep(self.seconds)
        return images.float().mean((2, 3))


def plan_of(seconds=0.01, module=None):
    """Return a plan for a network of one stage; "flatten" stores the wanted depth alone."""
    module = module or Slow(seconds)
    structure = NetworkStructure(stages={"one": ("0",)}, head=())
    spec = BackboneSpec("name", "mean", (), None, "digest", INPUT, ("one",), "", "")
    backbone = Backbone(spec, nn.Sequential(module), structure)
    fitted = FittedPlan(spec, INPUT, (1,), "flatten", "float32")
    return ExtractionPlan(backbone, fitted, torch.device("cpu"))


def greys(n):
    return as_images([np.full((8, 8, 3), value, dtype=np.uint8) for value in range(n)])


class Process:
    """A forked process that extracts `n` images, and says how many passed."""

    def __init__(self, cache, n, network, n_jobs=2):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._work(writing, cache, n, network, n_jobs))
        os.close(writing)
        self._report = os.fdopen(reading)

    def _work(self, writing, cache, n, network, n_jobs):
        how, values = "interrupted", []
        # a shell lets processes in the background ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with count_forward_passes() as counter:
            try:
                store = open_store(cache)
                images, plan = greys(n), plan_of(module=network)
                extraction = extract(images, plan, store, batch_size=4, n_jobs=n_jobs)
                how, values = "finished", extraction.values[:, 0].tolist()
            except KeyboardInterrupt:
                pass
        os.write(writing, json.dumps([how, counter.computed, values]).encode())
        return 0

    def join(self):
        report = json.loads(self._report.read())
        self._report.close()
        os.waitpid(self.pid, 0)
        return report

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._report.close()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@needs_fork
@pytest.mark.parametrize("n_jobs", [1, 2, 99])  # 99: all read one batch, as for a GPU
def test_processes_that_start_on_an_empty_store_at_once_share_the_work(n_jobs, cache, tmp_path):
    # on a busy machine one could be done before the other begins: each waits with its first batch
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    processes = [Process(cache, 160, Slow(0.01, meeting, 2), n_jobs) for _ in range(2)]
    (how, passed, values), (other_how, other_passed, other_values) = (
        process.join() for process in processes
    )
    assert how == other_how == "finished"
    assert values == other_values == list(range(160))
    assert passed + other_passed == 160
    assert min(passed, other_passed) > 0


@needs_fork
def test_the_work_of_a_killed_process_is_taken_over(cache):
    process = Process(cache, 40, Slow(0.02))
    wait_for(lambda: len(open_store(cache)) >= 8)
    process.kill()
    with count_forward_passes() as counter:
        extraction = extract(greys(40), plan_of(), open_store(cache), batch_size=4)
    np.testing.assert_array_equal(extraction.values[:, 0], range(40))
    assert counter.cache_hits >= 8
    assert counter.computed == 40 - counter.cache_hits


@needs_fork
def test_a_stopped_process_is_not_waited_for_without_end(cache, monkeypatch):
    monkeypatch.setattr(_compute, "_PATIENCE", 0.2)
    process = Process(cache, 40, Slow(0.02))
    wait_for(lambda: len(open_store(cache)) >= 8)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        extraction = extract(greys(40), plan_of(), open_store(cache), batch_size=4)
    finally:
        process.kill()
    np.testing.assert_array_equal(extraction.values[:, 0], range(40))


@needs_fork
def test_ctrl_c_keeps_what_was_finished(cache, monkeypatch):
    monkeypatch.setattr(_compute, "_BETWEEN_PUTS", 0.05)  # s; one batch takes 0.2
    # ten seconds if it were not interrupted: this process may have to wait for a core
    process, store = Process(cache, 200, Slow(0.2)), open_store(cache)
    wait_for(lambda: len(store) >= 12)
    os.kill(process.pid, signal.SIGINT)
    how, passed, _ = process.join()
    assert how == "interrupted"
    assert len(store) == passed < 200
    with count_forward_passes() as counter:
        extract(greys(200), plan_of(0), store)
    assert (counter.cache_hits, counter.computed) == (passed, 200 - passed)


def test_threads_of_one_process_share_the_work(cache):
    results = []

    def work():
        store = open_store(cache)
        results.append(extract(greys(80), plan_of(), store, batch_size=4, n_jobs=2).values)

    with count_forward_passes() as counter:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counter.computed == 80
    assert len(results) == 3
    for values in results:
        np.testing.assert_array_equal(values[:, 0], range(80))


@pytest.mark.parametrize("n_jobs", [1, 99])
def test_no_lock_is_held_after_an_error(n_jobs, cache):
    class Broken(Slow):
        def forward(self, images):
            raise RuntimeError("broken")

    store = open_store(cache)
    with pytest.raises(RuntimeError, match="broken"):
        extract(greys(40), plan_of(module=Broken()), store, batch_size=4, n_jobs=n_jobs)
    assert not store.key_locks._held
    extract(greys(40), plan_of(0), store)
    assert not store.key_locks._held


def missing_rows(n, store, batch_size):
    images = greys(n)
    ids = ImageIds(n)
    with CorePool(1) as pool:
        for positions, found in identify(images, store, pool):
            ids.set_range(positions, found)
    plan = plan_of(0)
    return MissingRows(images, ids, plan, Rows(plan, store), store, batch_size)


def test_batches_are_the_same_whichever_comes_first(cache):
    missing = missing_rows(50, open_store(cache), 8)
    seen = [missing._batches(list(range(50))) for _ in range(20)]
    assert len({str(batches) for batches in seen}) > 1
    assert len({str(sorted(batches)) for batches in seen}) == 1


def test_rows_are_put_many_at_a_time_and_all_in_the_end(cache, monkeypatch):
    monkeypatch.setattr(_compute, "_BETWEEN_PUTS", 1000)
    store, sizes = open_store(cache), []
    put_many = store.put_many
    monkeypatch.setattr(store, "put_many", lambda rows: sizes.append(len(rows)) or put_many(rows))
    monkeypatch.setattr(_compute, "_ROWS_AT_ONCE", 64)
    extract(greys(150), plan_of(0), store, batch_size=8)
    assert sum(sizes) == len(store) == 150
    assert len(sizes) <= 4  # 64, 64 and the rest, which two workers may divide


def test_no_lock_is_held_by_what_begins_after_an_interrupt(cache):
    store = open_store(cache)
    missing = missing_rows(8, store, 4)
    computing = missing.compute(range(8), CorePool(1))
    next(computing)
    computing.close()  # as Ctrl-C does
    prepared = missing._prepare([0, 1])
    assert not prepared.locked
    assert not store.key_locks._held
