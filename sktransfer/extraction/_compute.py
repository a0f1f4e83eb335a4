"""Compute the activations that are not in the store, once among all who share it.

A transformer at a depth and a classifier that freezes as many stages pass each image
through the same stages. The one keeps rows, the other activations; here rows come from
kept activations, and the activations that rows were made of are kept as well.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..images._collection import ImageCollection
from ..runtime import _progress
from ..runtime._threads import CorePool
from ..store._store import ActivationStore
from ._batches import Batch, read_batch, read_batches, run_batches
from ._feature_extractor import ExtractionPlan, FeatureExtractor
from ._image_keys import digest_in

# Activations are kept beside rows while the store stays this empty, of its limit. With
# more of them the rows of many images would be evicted for activations of a few.
_SHARE_OF_THE_STORE = 0.5


class StoredActivations:
    """What lies before the pooling of `frozen`, in the store; nothing if it has no `before`.

    Parameters
    ----------
    frozen : ExtractionPlan
    store : ActivationStore or None
    n_images : int
        How many are to be computed.
    """

    def __init__(self, frozen: ExtractionPlan, store: ActivationStore | None, n_images: int):
        has_before = frozen.before is not None and store is not None
        self.part = frozen.before if has_before else frozen  # what is to be computed
        self._pool = frozen.pool if has_before else None
        self._store = store
        self._n_images = n_images
        self._has_room: bool | None = None  # known from the first batch
        self._common = self.part.common_key()

    def key(self, key: bytes) -> bytes:
        """Return the key of the activation that a row is pooled from."""
        return key if self._pool is None else self._common + digest_in(key)

    def rows(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return rows of kept activations, by the keys of the rows."""
        keys = list(keys)
        if self._pool is None or not keys:
            return {}
        activations = self._store.get_many([self.key(key) for key in keys])
        there = [
            (k, value) for k, value in zip(keys, activations, strict=True) if value is not None
        ]
        if not there:
            return {}
        pooled = self.pooled(np.stack([value for _, value in there]))
        return dict(zip((key for key, _ in there), pooled, strict=True))

    @torch.inference_mode()
    def pooled(self, activations: np.ndarray) -> np.ndarray:
        """Return rows of activations (n, ...)."""
        if self._pool is None or not len(activations):
            return activations
        return self._pool(torch.from_numpy(activations)).numpy()

    def to_store(
        self, rows: Mapping[bytes, np.ndarray], activations: np.ndarray
    ) -> dict[bytes, np.ndarray]:
        """Return the activations of rows, by their own keys, if the call's have room."""
        if self._pool is None or not rows:
            return {}
        if self._has_room is None:
            all_of_them = activations[0].nbytes * self._n_images
            room = _SHARE_OF_THE_STORE * self._store.limit
            self._has_room = self._store.size_bytes + all_of_them <= room
        if not self._has_room:
            return {}
        return dict(zip(map(self.key, rows), activations, strict=True))


# Images a batch. On a CPU larger batches fall out of the caches, on a GPU smaller
# ones leave it idle.
_BATCH_SIZE = {"cpu": 16, "cuda": 128, "mps": 32}

# Rows are put so many at a time, or when so much time has passed: each time waits some
# milliseconds for the disk. A kill loses what was not put yet.
_ROWS_AT_ONCE = 256
_BYTES_AT_ONCE = 2**24
_BETWEEN_PUTS = 1.0  # s

# Another process's claim is waited for: this long between looks, and so long in vain
# before its images are computed here as well. A claim is of one batch, and a stopped
# process keeps its.
_BETWEEN_LOOKS = 0.02  # s
_PATIENCE = 60.0  # s


class Computed(NamedTuple):
    """What became of some images: rows by position, how many were found, why there is none."""

    rows: dict[int, np.ndarray]
    n_cache_hits: int
    failures: dict[int, str]

    @property
    def n_images(self) -> int:
        return len(self.rows) + len(self.failures)


class MissingRows:
    """Computes rows batch by batch, and puts them into the store.

    Parameters
    ----------
    images : ImageCollection
    key_of : dict
        Position of each image to be computed -> its key.
    frozen : ExtractionPlan
    store : ActivationStore or None
    batch_size : int or None
    """

    def __init__(
        self,
        images: ImageCollection,
        key_of: dict[int, bytes],
        frozen: ExtractionPlan,
        store: ActivationStore | None,
        batch_size: int | None,
    ):
        self._images = images
        self._key_of = key_of
        self._frozen = frozen
        self._on_cpu = frozen.device.type == "cpu"
        self._batch_size = batch_size or _BATCH_SIZE[frozen.device.type]
        self._store = store
        self._key_locks = None if store is None else store.key_locks
        self._kept = StoredActivations(frozen, store, len(key_of))
        self._network = FeatureExtractor(self._kept.part)
        self._locked: set[bytes] = set()  # now
        self._finished: dict[bytes, np.ndarray] = {}  # not put yet
        self._finished_locks: list[bytes] = []
        self._last_put = time.monotonic()
        self._lock = threading.Lock()  # for the three before
        self._is_closed = False
        self._elsewhere: list[int] = []  # claimed by another when it was their turn
        self._is_patient = True

    def compute(self, pool: CorePool) -> Iterator[Computed]:
        """Yield what becomes of the images, in no order, each once."""
        try:
            yield from self._compute(self._batches(list(self._key_of)), pool)
            self._put_finished()
            yield from self._wait_for_others(pool)
        finally:
            # after Ctrl-C, batches under way end later than this, and put for themselves
            self._is_closed = True
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
            else:
                time.sleep(_BETWEEN_LOOKS)

    def _batches(self, positions: list[int]) -> list[list[int]]:
        """Divide positions into batches, always the same, in an order that is not.

        Where there are no claims, processes that start at once and go in one order
        would be at the same batch all the way.
        """
        n = self._batch_size
        batches = [positions[i : i + n] for i in range(0, len(positions), n)]
        if self._store is not None:
            random.SystemRandom().shuffle(batches)  # a seed is the user's, and may be equal
        return batches

    def _compute(self, batches: Sequence[Sequence[int]], pool: CorePool) -> Iterator[Computed]:
        if self._on_cpu and len(batches) >= pool.n_threads:
            # A batch for each core, from file to row. Cores that share one batch wait
            # for each other after every layer, and on a busy machine wait long.
            yield from run_batches(batches, self._work, pool, pool.n_threads)
        else:
            yield from self._compute_together(batches, pool)

    def _work(self, positions: Sequence[int]) -> Computed:
        try:
            missing, found = self._begin(positions)
            batch = read_batch(self._read, missing)
            return self._end(batch, self._launch(batch), found)
        except BaseException:
            self._release([self._lock_key_of(position) for position in positions])
            raise

    def _compute_together(
        self, batches: Sequence[Sequence[int]], pool: CorePool
    ) -> Iterator[Computed]:
        """Let all threads read one batch; on a GPU, while the last one is computed."""
        found: deque[dict[int, np.ndarray]] = deque()  # of each batch that was begun

        def begun() -> Iterator[list[int]]:
            for positions in batches:
                missing, rows = self._begin(positions)
                found.append(rows)
                yield missing

        under_way: tuple[Batch, Callable[[], np.ndarray]] | None = None
        for batch in read_batches(self._read, begun(), pool):
            launched = self._launch(batch)
            if under_way is not None:
                yield self._end(*under_way, found.popleft())
            under_way = batch, launched
        if under_way is not None:
            yield self._end(*under_way, found.popleft())

    def _begin(self, positions: Sequence[int]) -> tuple[list[int], dict[int, np.ndarray]]:
        """Return positions that are for this process to compute, and rows that are there now."""
        if self._store is None:
            return list(positions), {}
        if self._is_patient:
            # before the look: else a row that is put between the two would be missed
            mine = set(
                self._key_locks.acquire([self._lock_key_of(position) for position in positions])
            )
            self._locked.update(mine)
            self._elsewhere.extend([p for p in positions if self._lock_key_of(p) not in mine])
            positions = [p for p in positions if self._lock_key_of(p) in mine]
        rows = self._store.get_many([self._key_of[position] for position in positions])
        found = {p: row for p, row in zip(positions, rows, strict=True) if row is not None}
        missing = [position for position in positions if position not in found]
        from_activations = self._kept.rows([self._key_of[position] for position in missing])
        if from_activations:
            self._store.put_many(from_activations)
        for position in missing:
            if self._key_of[position] in from_activations:
                found[position] = from_activations[self._key_of[position]]
        _progress.record(cache_hits=len(found))
        self._release([self._lock_key_of(position) for position in found])
        return [position for position in missing if position not in found], found

    def _lock_key_of(self, position: int) -> bytes:
        """Return the key that is claimed: one for rows and what they are pooled from."""
        return self._kept.key(self._key_of[position])

    def _read(self, position: int) -> torch.Tensor:
        digest = digest_in(self._key_of[position])
        return self._frozen.prepare(self._images[position].read(), digest)

    def _launch(self, batch: Batch) -> Callable[[], np.ndarray]:
        if batch.pixels is None:
            return lambda: np.empty((0,))
        return self._network.launch(batch.pixels)

    def _end(
        self, batch: Batch, launched: Callable[[], np.ndarray], found: dict[int, np.ndarray]
    ) -> Computed:
        activations = launched()
        rows = dict(zip(batch.positions, self._kept.pooled(activations), strict=True))
        if self._frozen.n_stages:
            _progress.record(computed=len(rows))
        if self._store is not None:
            keyed = {self._key_of[position]: row for position, row in rows.items()}
            claims = [self._lock_key_of(position) for position in rows]
            self._finish({**keyed, **self._kept.to_store(keyed, activations)}, claims)
            self._release([self._lock_key_of(position) for position in batch.failures])
        return Computed({**found, **rows}, len(found), batch.failures)

    def _finish(self, rows: dict[bytes, np.ndarray], claims: list[bytes]) -> None:
        """Keep rows for the next time that some are put; at once if that is now."""
        with self._lock:
            self._finished.update(rows)
            self._finished_locks += claims
            is_time = (
                self._is_closed
                or len(self._finished_locks) >= _ROWS_AT_ONCE
                or sum(row.nbytes for row in self._finished.values()) >= _BYTES_AT_ONCE
                or time.monotonic() - self._last_put >= _BETWEEN_PUTS
            )
        if is_time:
            self._put_finished()

    def _put_finished(self) -> None:
        with self._lock:
            rows, self._finished = self._finished, {}
            claims, self._finished_locks = self._finished_locks, []
            self._last_put = time.monotonic()
        if rows:
            self._store.put_many(rows)
        self._release(claims)

    def _release(self, keys: Sequence[bytes]) -> None:
        mine = [key for key in keys if key in self._locked]
        if mine:
            self._locked.difference_update(mine)
            self._key_locks.release(mine)
