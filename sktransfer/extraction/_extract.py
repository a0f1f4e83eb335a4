"""From images to rows, each computed once.

Images become digests, digests become keys, and the store is asked for every key. Only files
whose rows it lacks are read: once, to be digested, decoded, passed through the network and
stored. Rows are returned in the order of the images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..exceptions import ImageFailure
from ..images._collection import ImageCollection
from ..runtime import _progress
from ..runtime._device_copies import device_call
from ..runtime._display import fingerprint_display, forward_pass_display
from ..runtime._result_array import ResultArray
from ..runtime._threads import CorePool
from ..store._base import ActivationStore
from ._compute import MissingRows
from ._feature_extractor import ExtractionPlan
from ._image_ids import ImageIds, identify
from ._precision import outcomes_to_store
from ._rows import Rows

# Most keys in one look-up, and most bytes of its rows. Activations may take a megabyte
# each.
_KEYS_AT_ONCE = 1024
_KEYS_AT_FIRST = 16  # until the size of a row is known
_BYTES_AT_ONCE = 2**26


@dataclass
class Extraction:
    """Activations in the order of the images; those of failures are zeros.

    `values` is in memory, or an `np.memmap` of a temporary file if it is large. `digests`, uint8
    of shape (n_images, 16), are those of the images' content; without meaning for failures.
    `versions` are those of images by URL that were read, by position, where they were asked for.
    """

    values: np.ndarray
    failures: list[ImageFailure]
    digests: np.ndarray
    versions: dict[int, bytes] = field(default_factory=dict)


def compacted(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return ``values[good]``, made in place: a large array is a memory-mapped file."""
    if len(good) == len(values):
        return values
    for new, old in enumerate(good):
        if new != old:
            values[new] = values[old]
    return values[: len(good)]


def extract(
    images: ImageCollection,
    plan: ExtractionPlan,
    store: ActivationStore | None,
    *,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    on_done: Callable[[int], None] | None = None,
    keep_versions: bool = False,
) -> Extraction:
    """Return the rows of all images; stored rows are not computed again.

    The rows of all images that can be read are computed and stored, even when others can't
    be read. `on_done` is called with numbers of images whose rows were found or computed.
    `keep_versions` says whether the result has the versions of images by URL.
    """
    if not plan.is_storable:
        store = None
    if not plan.passes_network:  # pixels, which need no other device
        plan = replace(plan, device=torch.device("cpu"))
    pool = CorePool(n_jobs)
    try:
        ids = ImageIds(len(images), keep_versions)
        return _extract(
            images, ids, plan, store, batch_size, pool, verbose, on_done or (lambda n: None)
        )
    finally:
        # after Ctrl-C, running batches are finished and stored, and waiting ones are dropped
        pool.shutdown(wait=True, cancel_futures=True)


def _extract(
    images: ImageCollection,
    ids: ImageIds,
    plan: ExtractionPlan,
    store: ActivationStore | None,
    batch_size: int | None,
    pool: CorePool,
    verbose: int,
    on_done: Callable[[int], None],
) -> Extraction:
    with fingerprint_display(len(images), verbose) as display:
        for positions, looked_at in identify(images, store, pool):
            ids.set_range(positions, looked_at)
            display.update(len(positions) - len(looked_at.remote))
    first_of = ids.first_of_each()
    is_copy = first_of != np.arange(len(images))
    # by which digests copies were told; those of one path share what the path held
    told_by = ids.digests(np.unique(first_of[is_copy]))
    is_wanted = ~is_copy
    is_wanted[list(ids.failures)] = False

    result, rows = ResultArray(len(images)), Rows(plan, store)
    n_wanted = int(is_wanted.sum())
    n_cache_hits = 0
    for found in _look_up(np.flatnonzero(is_wanted), ids, rows, result):
        result.write(found)
        n_cache_hits += len(found)
        is_wanted[list(found)] = False
    _progress.record(cache_hits=n_cache_hits)
    on_done(n_cache_hits)
    with forward_pass_display(n_wanted, n_cache_hits, verbose) as display:
        missing = np.flatnonzero(is_wanted)
        while len(missing):
            with device_call(plan.device):
                computing = MissingRows(images, ids, plan, rows, store, batch_size)
                for computed in computing.compute(missing, pool):
                    result.write(computed.rows)
                    ids.failures.update(computed.failures)
                    n_cache_hits += computed.n_cache_hits
                    display.set_note(f"{n_cache_hits} cache hits")
                    display.update(computed.n_images)
                    on_done(computed.n_images)
                del computing
            # The content of a first image has changed since it was told: its copies may not have.
            changed = [first for first, digest in told_by.items() if ids.changed(first, digest)]
            missing = np.flatnonzero(is_copy & np.isin(first_of, changed))
            is_copy[missing] = False
            told_by = {}
    if store is not None and n_wanted > n_cache_hits and plan.passes_network:
        fitted = plan.fitted
        store.put_digests(outcomes_to_store(fitted.backbone, fitted.input.size, plan.device))

    copies = np.flatnonzero(is_copy)
    if ids.failures:  # a copy of a failed image fails too
        failed = copies[np.isin(first_of[copies], list(ids.failures))]
        ids.failures.update({int(c): ids.failures[int(first_of[c])] for c in failed})
        copies = np.setdiff1d(copies, failed)
    result.repeat(first_of[copies], copies)
    failures = [
        ImageFailure(position, images[position].describe(), ids.failures[position])
        for position in sorted(ids.failures)
    ]
    firsts = np.where(is_copy, first_of, np.arange(len(images)))
    versions = {}
    if ids.versions:
        versions = {p: ids.versions[f] for p, f in enumerate(firsts.tolist()) if f in ids.versions}
    return Extraction(result.finish(), failures, ids.at(firsts), versions)


def _look_up(
    positions: np.ndarray, ids: ImageIds, rows: Rows, result: ResultArray
) -> Iterator[dict[int, np.ndarray]]:
    """Yield the rows that the store has, by position, a bounded number at a time."""
    if not rows.stored_depths:
        return
    start = 0
    while start < len(positions):
        n = _KEYS_AT_FIRST
        if result.row_bytes is not None:
            n = min(_KEYS_AT_ONCE, max(1, _BYTES_AT_ONCE // result.row_bytes))
        digests = ids.digests(positions[start : start + n])
        start += n
        stored = rows.get(list(digests.values()))
        yield {p: row for p, row in zip(digests, stored, strict=True) if row is not None}
