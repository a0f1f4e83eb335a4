"""Compute the rows that are not in the store, shared by all processes that use it.

Each file is read once, but for those that another process is found to be computing.
"""

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch

from ..exceptions import DecodeError
from ..images._collection import ImageCollection
from ..images._decode import quiet_pillow
from ..images._image_ref import LoadedImage
from ..images._read_ahead import ReadAhead
from ..runtime import _progress
from ..runtime._device import extraction_devices
from ..runtime._gpu_lock import without_waiting
from ..runtime._threads import CorePool
from ..store._base import ActivationStore
from ._batches import MemoryBudget, run_batches, run_images
from ._device_loop import run_on_devices
from ._feature_extractor import ExtractionPlan, FeatureExtractor
from ._image_ids import ImageIds
from ._rows import Rows

# Images a batch. On a CPU larger batches fall out of the caches, on a GPU smaller
# ones leave it idle.
_BATCH_SIZE = {"cpu": 16, "cuda": 128, "mps": 32}

# Memory for decoding, over all threads, in bytes: what the largest picture takes.
_PIXEL_BYTES = 2**30

# Rows are put when there are this many of them, or when this much time has passed, because
# each put waits some milliseconds for the disk. A killed process loses what it had not put.
_ROWS_AT_ONCE = 256
_BYTES_AT_ONCE = 2**24
_BETWEEN_PUTS = 1.0  # s

# Waiting for rows that another process has locked: the time between two attempts, and the
# time without any row after which the images are computed here as well. A process that is
# stopped holds its locks.
_BETWEEN_LOOKS = 0.02  # s
_PATIENCE = 60.0  # s


# 8 bytes each in an array; a list of numbers takes 40
_Positions = Sequence[int] | np.ndarray


class Computed(NamedTuple):
    """The results of some images: rows by position, cache hits, causes of failures."""

    rows: dict[int, np.ndarray]
    n_cache_hits: int
    failures: dict[int, str]

    @property
    def n_images(self) -> int:
        return len(self.rows) + len(self.failures)


@dataclass
class _Prepared:
    """Images that are ready for the network, and those that need not pass it."""

    positions: list[int] = field(default_factory=list)
    pixels: list[torch.Tensor] = field(default_factory=list)  # of the positions
    found: dict[int, np.ndarray] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    locked: dict[int, bytes] = field(default_factory=dict)  # position -> key


def _joined(parts: Sequence[_Prepared]) -> _Prepared:
    """Return the images of one batch that were prepared in several parts."""
    prepared = _Prepared()
    for part in parts:
        prepared.positions += part.positions
        prepared.pixels += part.pixels
        prepared.found |= part.found
        prepared.failures |= part.failures
        prepared.locked |= part.locked
    return prepared


class MissingRows:
    """Computes rows batch by batch, and puts them into the store.

    Parameters
    ----------
    images : ImageCollection
    ids : ImageIds
        The ids of the images; digests are added as files are read.
    plan : ExtractionPlan
    rows : Rows
        Of the plan and the store.
    store : ActivationStore or None
    batch_size : int or None
    """

    def __init__(
        self,
        images: ImageCollection,
        ids: ImageIds,
        plan: ExtractionPlan,
        rows: Rows,
        store: ActivationStore | None,
        batch_size: int | None,
    ):
        self._images: ImageCollection | ReadAhead = images
        self._ids = ids
        self._plan = plan
        self._on_cpu = plan.device.type == "cpu"
        self._batch_size = batch_size or _BATCH_SIZE[plan.device.type]
        self._store = store
        self._rows = rows
        self._extractors = [
            FeatureExtractor(plan, self._rows.computed_depths, device)
            for device in without_waiting(extraction_devices(plan.device))
        ]
        self._pixel_budget = MemoryBudget(_PIXEL_BYTES)
        self._locked: set[bytes] = set()  # the keys that are locked now
        self._finished: dict[bytes, np.ndarray] = {}  # not put yet
        self._finished_bytes = 0
        self._finished_digests: dict[bytes, bytes] = {}  # of files, by their versions
        self._finished_locks: list[bytes] = []
        self._last_put = time.monotonic()
        self._lock = threading.Lock()  # for the six attributes above, and for `_is_closed`
        self._is_closed = False
        self._elsewhere: list[int] = []  # images that another process had locked
        self._is_patient = True

    def compute(self, positions: _Positions, pool: CorePool) -> Iterator[Computed]:
        """Yield what becomes of the images, in no order, each once."""
        batches = self._batches(positions)
        self._images = ReadAhead(self._images, chain.from_iterable(batches))
        try:
            yield from self._compute(batches, pool)
            self._put_finished()
            yield from self._wait_for_others(pool)
        finally:
            # after Ctrl-C, running batches end later than this, and put their rows themselves
            with self._lock:
                self._is_closed = True
            self._images.close()
            try:
                self._put_finished()
            finally:  # after a second Ctrl-C as well
                self._release(list(self._locked))

    def _wait_for_others(self, pool: CorePool) -> Iterator[Computed]:
        waiting_since = time.monotonic()
        while self._elsewhere:
            positions, self._elsewhere = self._elsewhere, []
            self._is_patient = time.monotonic() - waiting_since < _PATIENCE
            n_done = 0
            for computed in self._compute(self._batches(positions), pool):
                n_done += computed.n_images
                yield computed
            self._put_finished()
            if n_done:
                waiting_since = time.monotonic()
            elif self._elsewhere:
                time.sleep(_BETWEEN_LOOKS)

    def _batches(self, positions: _Positions) -> list[_Positions]:
        """Divide positions into batches, always the same, in an order that is not.

        Where there are no locks, processes that start at the same time and had the same
        order would compute the same batches all the time.
        """
        n = self._batch_size
        batches = [positions[i : i + n] for i in range(0, len(positions), n)]
        if self._store is not None:
            random.SystemRandom().shuffle(batches)  # the user's seed may be equal in all
        return batches

    def _compute(self, batches: Sequence[_Positions], pool: CorePool) -> Iterator[Computed]:
        if self._on_cpu and len(batches) >= pool.n_threads:
            # One batch for each core, from file to row. Cores that share one batch wait for
            # each other after every layer, which takes long on a busy machine.
            yield from run_batches(batches, self._work, pool, pool.n_threads)
        else:
            yield from self._compute_together(batches, pool)

    def _work(self, positions: _Positions) -> Computed:
        prepared = self._prepare(positions)
        try:
            return self._end(prepared, self._pass(prepared))
        except BaseException:
            self._release(list(prepared.locked.values()))
            raise

    def _compute_together(
        self, batches: Sequence[_Positions], pool: CorePool
    ) -> Iterator[Computed]:
        """Read each batch in all threads; on GPUs, while the ones before are computed."""
        read = map(_joined, run_images(batches, self._prepare, pool, pool.n_threads))
        if self._on_cpu:
            for prepared in read:
                yield self._end(prepared, self._pass(prepared))
            return
        extractors = self._extractors[: len(batches)]
        with closing(run_on_devices(read, extractors)) as passed:
            for prepared, activations in passed:
                yield self._end(prepared, activations)

    # from positions to what the network reads

    def _prepare(self, positions: _Positions) -> _Prepared:
        """Read and decode images that are for this process to compute."""
        prepared = _Prepared()
        try:
            loaded: dict[int, LoadedImage] = {}
            for position in map(int, positions):
                # A key needs the digest, so images without one are read first.
                if self._ids.digest(position) is None:
                    self._load(position, loaded, prepared.failures)
            left = [int(p) for p in positions if int(p) not in prepared.failures]
            to_compute = self._find(left, prepared)
            with quiet_pillow():  # once, and not for each image
                for position in to_compute:
                    self._decode(position, loaded.pop(position, None), prepared)
        except BaseException:
            self._release(list(prepared.locked.values()))
            raise
        self._release_without_rows(prepared)
        return prepared

    def _load(
        self, position: int, loaded: dict[int, LoadedImage], failures: dict[int, str]
    ) -> None:
        """Read an image's content, once, and note its digest.

        What came by URL holds the version that it is of; that of a file is asked for twice.
        """
        try:
            image = self._images[position]
            # a file's is for the store alone, and asks for the file's status
            before = None if self._store is None and image.is_file else image.version()
            content = image.load()
            if before is not None and before == image.version():
                with self._lock:
                    self._finished_digests[before] = content.digest
                if not image.is_file:
                    self._ids.set_version(position, before)
        except DecodeError as error:
            failures[position] = str(error)
            return
        self._ids.set_digest(position, content.digest)
        loaded[position] = content

    def _find(self, positions: list[int], prepared: _Prepared) -> list[int]:
        """Return the positions to compute here, after looking up rows that are stored by now."""
        if self._store is None:
            return positions
        digests = {position: self._ids.known_digest(position) for position in positions}
        if self._is_patient:
            # before the look-up: else a row that is put between the two would be missed
            wanted = {p: self._rows.lock_key(digest) for p, digest in digests.items()}
            mine = self._acquire(self._store, list(wanted.values()))
            for position, key in wanted.items():
                if key in mine:
                    mine.discard(key)  # of equal images in one batch, the first holds the lock
                    prepared.locked[position] = key
                else:
                    self._elsewhere.append(position)
            positions = list(prepared.locked)
        for get in (self._rows.get, self._rows.from_activations):
            left = [position for position in positions if position not in prepared.found]
            rows = get([digests[position] for position in left])
            prepared.found |= {p: row for p, row in zip(left, rows, strict=True) if row is not None}
        _progress.record(cache_hits=len(prepared.found))
        return [position for position in positions if position not in prepared.found]

    def _decode(self, position: int, content: LoadedImage | None, prepared: _Prepared) -> None:
        try:
            if content is None:
                # nothing is stored without a store, so the digest is not computed again
                known = self._ids.digest(position) if self._store is None else None
                content = self._images[position].load(known)
                # it may have changed since its digest was taken
                self._ids.set_digest(position, content.digest)
            with self._pixel_budget.reservation() as reserve:
                pixels = content.decode(reserve, self._plan.takes_padded)
                square = self._plan.prepare(pixels, content.digest)
                del pixels
        except DecodeError as error:
            prepared.failures[position] = str(error)
            return
        prepared.positions.append(position)
        prepared.pixels.append(square)

    # through the network, and into the store

    def _pass(self, prepared: _Prepared) -> list[np.ndarray]:
        pixels, prepared.pixels = prepared.pixels, []
        return self._extractors[0](pixels)

    def _end(self, prepared: _Prepared, activations: list[np.ndarray]) -> Computed:
        rows = dict(prepared.found)
        to_put: Mapping[bytes, np.ndarray] = {}
        if prepared.positions:
            if self._plan.passes_network:
                _progress.record(computed=len(prepared.positions))
            digests = [self._ids.known_digest(position) for position in prepared.positions]
            computed, to_put = self._rows.made(digests, activations)
            rows.update(zip(prepared.positions, computed, strict=True))
        if self._store is not None:
            self._finish(to_put, list(prepared.locked.values()))
        return Computed(rows, len(prepared.found), prepared.failures)

    def _finish(self, rows: Mapping[bytes, np.ndarray], locks: list[bytes]) -> None:
        """Collect rows, and put them when there are enough or enough time has passed."""
        with self._lock:
            self._finished.update(rows)
            self._finished_bytes += sum(row.nbytes for row in rows.values())
            self._finished_locks += locks
            is_time = (
                self._is_closed
                or len(self._finished) >= _ROWS_AT_ONCE * len(self._rows.stored_depths)
                or self._finished_bytes >= _BYTES_AT_ONCE
                or time.monotonic() - self._last_put >= _BETWEEN_PUTS
            )
        if is_time:
            self._put_finished()

    def _put_finished(self) -> None:
        with self._lock:
            rows, self._finished, self._finished_bytes = self._finished, {}, 0
            digests, self._finished_digests = self._finished_digests, {}
            locks, self._finished_locks = self._finished_locks, []
            self._last_put = time.monotonic()
        if self._store is not None:
            if rows:
                self._store.put_many(rows)
            # after the rows: if they are lost, a digest without a row costs one more read
            if digests:
                self._store.put_digests(digests)
        self._release(locks)

    # locks

    def _acquire(self, store: ActivationStore, keys: Sequence[bytes]) -> set[bytes]:
        mine = set(store.key_locks.acquire(keys))
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._locked |= mine
        if is_closed:  # after Ctrl-C nobody would release them
            store.key_locks.release(list(mine))
            return set()
        return mine

    def _release_without_rows(self, prepared: _Prepared) -> None:
        """Release the locks of images that were found in the store or can't be read."""
        for position in [*prepared.found, *prepared.failures]:
            key = prepared.locked.pop(position, None)
            if key is not None:
                self._release([key])

    def _release(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            mine = [key for key in keys if key in self._locked]
            self._locked.difference_update(mine)
        if mine and self._store is not None:
            self._store.key_locks.release(mine)
