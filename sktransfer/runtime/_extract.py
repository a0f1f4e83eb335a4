"""From images to the activations of a frozen part, each computed once.

Images become digests, digests become keys, and the store is asked for every
key. Only what it does not have is read, batched, passed through the network and
put. Activations go back in the order of the images.
"""

import copy
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from .._spec import BackboneSpec, InputSpec
from ..exceptions import ImageFailure
from ..images._collection import ImageCollection
from ..images._decode import DecodeError
from . import _passes
from ._batches import Batch, read_batch, read_batches, run_batches
from ._gpu_lease import gpu_lease
from ._store import ActivationStore
from ._threads import CorePool

# Part of every key: raise it when the same key would give another row.
FORMAT_VERSION = 1

# Images a batch. On a CPU larger batches fall out of the caches, on a GPU smaller
# ones leave it idle.
_BATCH_SIZE = {"cpu": 16, "cuda": 128, "mps": 32}
_KEYS_AT_ONCE = 1024
_SECONDS_BEFORE_PROGRESS = 10


@dataclass(frozen=True)
class FrozenPart:
    """The first stages of a backbone, as a function of an image.

    `module` maps uint8 (n, 3, size, size) to activations; the other fields are
    all that its values depend on, beside the image.
    """

    module: nn.Module
    spec: BackboneSpec
    input: InputSpec
    n_stages: int
    pooling: str | None
    precision: str
    device: torch.device

    def key_of_all(self) -> bytes:
        """Return what the keys of all images have in common."""
        # Without a stage there is no network: the pixels are those of any backbone
        # with the same input numbers.
        digest = self.spec.digest if self.n_stages else ""
        what = (FORMAT_VERSION, digest, self.n_stages, self.pooling, self.input, self.precision)
        return hashlib.blake2b(repr(what).encode(), digest_size=16).digest()


@dataclass
class Extraction:
    """Activations in the order of the images; those of failures are zeros."""

    values: np.ndarray
    failures: list[ImageFailure]


class _NetworkOnDevice:
    """Runs a frozen part on batches: evaluation mode, no gradients, one precision."""

    def __init__(self, frozen: FrozenPart):
        self._device = frozen.device
        self._is_bfloat16 = frozen.precision == "bfloat16"
        module = frozen.module.eval()
        if frozen.device.type != "cpu":
            module = copy.deepcopy(module)  # the network itself stays where it is
        self._module = module.to(frozen.device, memory_format=torch.channels_last)

    def __call__(self, pixels: torch.Tensor) -> np.ndarray:
        """Return the activations of a batch; halve it while memory runs out."""
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_bfloat16)
        try:
            with torch.inference_mode(), autocast:
                values = self._module(pixels.to(self._device, non_blocking=True))
            if values.is_floating_point():
                values = values.float()
            return values.cpu().contiguous().numpy()
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(pixels) // 2
        return np.concatenate([self(pixels[:half]), self(pixels[half:])])


class _Computed(NamedTuple):
    """One batch: rows that passed the network, rows found in the store, failures."""

    rows: dict[bytes, np.ndarray]
    found: dict[bytes, np.ndarray]
    failures: dict[int, str]


class _Misses:
    """Computes the rows that the store did not have, batch by batch."""

    def __init__(
        self,
        images: ImageCollection,
        key_of: dict[int, bytes],
        frozen: FrozenPart,
        store: ActivationStore | None,
    ):
        self._images = images
        self._key_of = key_of  # position of an image -> its key
        self._input = frozen.input
        self._on_cpu = frozen.device.type == "cpu"
        self._store = store
        self._network = _NetworkOnDevice(frozen)

    def compute(self, batches: Sequence[Sequence[int]], pool: CorePool) -> Iterator[_Computed]:
        if self._on_cpu and len(batches) >= pool.n_threads:
            # A batch for each core, from file to row. Cores that share one batch wait
            # for each other after every layer, and on a busy machine wait long.
            yield from run_batches(batches, self._read_and_run, pool, pool.n_threads)
        else:
            for batch in read_batches(self._images, batches, self._input, pool):
                yield self._run(batch)

    def _read_and_run(self, positions: Sequence[int]) -> _Computed:
        found = self._look_again(positions)
        missing = [position for position in positions if self._key_of[position] not in found]
        computed = self._run(read_batch(self._images, missing, self._input), found)
        return computed._replace(found=found)

    def _run(self, batch: Batch, found: dict[bytes, np.ndarray] | None = None) -> _Computed:
        if found is None:
            found = self._look_again(batch.positions)
        keys = [self._key_of[position] for position in batch.positions]
        wanted = [i for i, key in enumerate(keys) if key not in found]
        if not wanted:
            return _Computed({}, found, batch.failures)
        pixels = batch.pixels if len(wanted) == len(keys) else batch.pixels[wanted]
        rows = zip([keys[i] for i in wanted], self._network(pixels), strict=True)
        return _Computed(dict(rows), found, batch.failures)

    def _look_again(self, positions: Sequence[int]) -> dict[bytes, np.ndarray]:
        """Return what another process has put since the first look."""
        if self._store is None:
            return {}
        return _look_up(self._store, [self._key_of[position] for position in positions])


def extract(
    images: ImageCollection,
    frozen: FrozenPart,
    store: ActivationStore | None,
    *,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Extraction:
    """Return the activations of all images; what the store has is not computed again.

    Every image that can be read is computed and kept, even when others can't.
    """
    if batch_size is None:
        batch_size = _BATCH_SIZE[frozen.device.type]
    pool = CorePool(n_jobs)
    try:
        return _extract(images, frozen, store, batch_size, pool, verbose)
    finally:
        # after Ctrl-C, what was put stays and what is waiting to be read is dropped
        pool.shutdown(wait=True, cancel_futures=True)


def _extract(
    images: ImageCollection,
    frozen: FrozenPart,
    store: ActivationStore | None,
    batch_size: int,
    pool: CorePool,
    verbose: int,
) -> Extraction:
    failures: dict[int, str] = {}
    keys = _keys(images, frozen.key_of_all(), pool, failures)
    first_of = {}  # key -> position of the first image with it
    for position, key in enumerate(keys):
        if key is not None:
            first_of.setdefault(key, position)

    found = {} if store is None else _look_up(store, list(first_of))
    _passes.record(kept=len(found))
    key_of = {first_of[key]: key for key in first_of if key not in found}
    if key_of:
        batches = _batches(list(key_of), batch_size, store)
        with gpu_lease(frozen.device):
            computed = _Misses(images, key_of, frozen, store).compute(batches, pool)
            for batch in _progress(computed, len(key_of), len(found), verbose):
                n_passed = len(batch.rows) if frozen.n_stages else 0
                _passes.record(passed=n_passed, kept=len(batch.found))
                failures.update(batch.failures)
                found.update(batch.found)
                found.update(batch.rows)
                if store is not None:
                    store.put_many(batch.rows)
    return _assemble(images, keys, first_of, found, failures)


def _keys(
    images: ImageCollection, common: bytes, pool: ThreadPoolExecutor, failures: dict[int, str]
) -> list[bytes | None]:
    """Return each image's key, None where its content can't be had."""

    def digests(positions: range) -> list[bytes | DecodeError]:
        outcomes: list[bytes | DecodeError] = []
        for position in positions:
            try:
                outcomes.append(common + images[position].digest())
            except DecodeError as error:
                outcomes.append(error)
        return outcomes

    n, chunk = len(images), 256
    chunks = [range(start, min(start + chunk, n)) for start in range(0, n, chunk)]
    keys: list[bytes | None] = []
    for outcomes in pool.map(digests, chunks):
        for outcome in outcomes:
            if isinstance(outcome, DecodeError):
                failures[len(keys)] = str(outcome)
                keys.append(None)
            else:
                keys.append(outcome)
    return keys


def _look_up(store: ActivationStore, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
    found: dict[bytes, np.ndarray] = {}
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        values = zip(some, store.get_many(some), strict=True)
        found.update({key: value for key, value in values if value is not None})
    return found


def _batches(
    positions: list[int], batch_size: int, store: ActivationStore | None
) -> list[list[int]]:
    """Divide positions into batches, always the same, in an order that is not.

    Processes that share a store and start at once begin at different batches, meet
    each other's work, and don't do it again.
    """
    batches = [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]
    start = secrets.randbelow(len(batches)) if store is not None else 0
    return batches[start:] + batches[:start]


def _progress(
    batches: Iterator[_Computed], n_images: int, n_found: int, verbose: int
) -> Iterator[_Computed]:
    """Show images/s when asked, or when it takes long."""
    delay = 0 if verbose else _SECONDS_BEFORE_PROGRESS
    with tqdm(total=n_images, desc="backbone", unit="img", delay=delay, leave=verbose > 0) as bar:
        if n_found:
            bar.set_postfix_str(f"{n_found} kept", refresh=False)
        for batch in batches:
            yield batch
            bar.update(sum(map(len, batch)))


def _assemble(images, keys, first_of, found, failures: dict[int, str]) -> Extraction:
    """Put activations in the order of the images; a copy of a failed image fails too."""
    for position, key in enumerate(keys):
        if key is not None and key not in found:
            failures[position] = failures[first_of[key]]
    listed = [
        ImageFailure(position, images[position].describe(), failures[position])
        for position in sorted(failures)
    ]
    if not found:
        return Extraction(np.empty((len(keys), 0), dtype=np.float32), listed)
    sample = next(iter(found.values()))
    values = np.zeros((len(keys), *sample.shape), dtype=sample.dtype)
    for position, key in enumerate(keys):
        if position not in failures:
            values[position] = found[key]
    return Extraction(values, listed)
