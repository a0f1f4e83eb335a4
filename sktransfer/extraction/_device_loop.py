"""Batches through networks on one or several devices, each with a thread of its own.

A device's thread holds the device's lock only while batches are on the device. It starts a batch
before it waits for the one before, so that the device has work while rows are copied back. Where
no batch is ready, it releases the lock: other processes compute while this one reads.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from ..runtime._gpu_lock import GpuTurn
from ..runtime._threads import torch_threads_within_cores
from ._feature_extractor import FeatureExtractor


class Batch(Protocol):
    """Images that are ready for a network; an empty list where there are none."""

    pixels: list[torch.Tensor]


AnyBatch = TypeVar("AnyBatch", bound=Batch)


class _Passed(NamedTuple, Generic[AnyBatch]):
    batch: AnyBatch
    activations: list[np.ndarray]


def run_on_devices(
    batches: Iterable[AnyBatch], extractors: Sequence[FeatureExtractor]
) -> Generator[tuple[AnyBatch, list[np.ndarray]], None, None]:
    """Yield batches and their activations, in no order; each device takes the next one ready.

    Parameters
    ----------
    batches : iterable of Batch
        Read in this thread; a batch for each device is ready ahead.
    extractors : sequence of FeatureExtractor
        One for each device.
    """
    ready: queue.Queue[AnyBatch | None] = queue.Queue(maxsize=len(extractors))
    done: queue.SimpleQueue[_Passed[AnyBatch] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=_serve,
            args=(extractor, ready, done, stop),
            name=f"sktransfer-{extractor.device}",
            daemon=True,  # after an error the interpreter may end without it
        )
        for extractor in extractors
    ]
    for thread in threads:
        thread.start()
    n_open = 0
    try:
        for batch in batches:
            ready.put(batch)
            n_open += 1
            while not done.empty():
                yield _result(done)
                n_open -= 1
        for _ in threads:
            ready.put(None)
        for _ in range(n_open):
            yield _result(done)
    finally:
        stop.set()
        with suppress(queue.Empty):
            while True:
                ready.get_nowait()
        for _ in threads:
            ready.put(None)
        for thread in threads:
            thread.join()


def _result(done: "queue.SimpleQueue[Any]") -> Any:
    passed = done.get()
    if isinstance(passed, BaseException):
        raise passed
    return passed


def _serve(
    extractor: FeatureExtractor,
    ready: "queue.Queue[Any]",
    done: "queue.SimpleQueue[Any]",
    stop: threading.Event,
) -> None:
    """Take batches until there is a None; after an error, or when told to stop, drop them."""
    try:
        with torch_threads_within_cores(1):  # the other cores decode
            _Server(extractor, ready, done, stop).run()
    except BaseException as error:
        done.put(error)
        while ready.get() is not None:  # whoever puts a batch must not wait forever
            pass


class _Server:
    """The work of one device's thread."""

    def __init__(
        self,
        extractor: FeatureExtractor,
        ready: "queue.Queue[Any]",
        done: "queue.SimpleQueue[Any]",
        stop: threading.Event,
    ):
        self._extractor = extractor
        self._ready, self._done, self._stop = ready, done, stop
        self._turn = GpuTurn(extractor.device)
        self._under_way: tuple[Any, Any] | None = None  # a batch, and the wait for it

    def run(self) -> None:
        try:
            with self._extractor.current():
                while (batch := self._next()) is not None:
                    if not self._stop.is_set():
                        self._start(batch)
                self._finish()
        finally:
            self._turn.end()

    def _next(self) -> Any:
        """Return the next batch; where none is ready, let others use the device meanwhile."""
        if self._under_way is not None:
            with suppress(queue.Empty):
                return self._ready.get_nowait()
            self._finish()
        self._turn.end()
        return self._ready.get()

    def _start(self, batch: Any) -> None:
        if not batch.pixels:  # all were found in the store
            self._done.put(_Passed(batch, []))
            return
        self._turn.begin(self._stop)
        launched = self._extractor.launch(batch.pixels)
        batch.pixels.clear()
        self._finish()
        self._under_way = batch, launched
        if self._turn.is_over():
            self._finish()
            self._turn.end()

    def _finish(self) -> None:
        if self._under_way is not None:
            batch, wait = self._under_way
            self._under_way = None
            self._done.put(_Passed(batch, wait()))
