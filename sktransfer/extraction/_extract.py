"""From images to the activations of a frozen part, each computed once.

Images become digests, digests become keys, and the store is asked for every
key. Only what it does not have is read, batched, passed through the network and
put. Activations go back in the order of the images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..exceptions import ImageFailure
from ..images._collection import ImageCollection
from ..runtime import _progress
from ..runtime._gpu_lock import gpu_lock
from ..runtime._progress import forward_pass_bar, show_if_long
from ..runtime._result_array import ResultArray
from ..runtime._threads import CorePool
from ..store._store import ActivationStore
from ._compute import MissingRows
from ._feature_extractor import AugmentedView, ExtractionPlan
from ._image_keys import image_keys

__all__ = ["AugmentedView", "Extraction", "ExtractionPlan", "extract"]

# Rows asked of the store at once: so many, or what fills so many bytes. Stage activations
# may take a megabyte each.
_KEYS_AT_ONCE = 1024
_KEYS_AT_FIRST = 16  # until a row tells how large they are
_BYTES_AT_ONCE = 2**26


@dataclass
class Extraction:
    """Activations in the order of the images; those of failures are zeros.

    `values` is in memory, or an `np.memmap` of a temporary file if it is large.
    """

    values: np.ndarray
    failures: list[ImageFailure]


def extract(
    images: ImageCollection,
    frozen: ExtractionPlan,
    store: ActivationStore | None,
    *,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Extraction:
    """Return the activations of all images; what the store has is not computed again.

    Every image that can be read is computed and kept, even when others can't.
    """
    if not frozen.is_storable:
        store = None
    if frozen.n_stages == 0:  # pixels, which need no network and no other device
        frozen = replace(frozen, device=torch.device("cpu"))
    pool = CorePool(n_jobs)
    try:
        return _extract(images, frozen, store, batch_size, pool, verbose)
    finally:
        # after Ctrl-C, batches under way are finished and kept, and what waits is dropped
        pool.shutdown(wait=True, cancel_futures=True)


def _extract(
    images: ImageCollection,
    frozen: ExtractionPlan,
    store: ActivationStore | None,
    batch_size: int | None,
    pool: CorePool,
    verbose: int,
) -> Extraction:
    reasons: dict[int, str] = {}  # position of a failure -> why
    first_of: dict[bytes, int] = {}  # key -> position of the first image with it
    copies: list[tuple[int, int]] = []  # positions of first images and their copies
    needs_content = store is not None or frozen.view is not None
    keys = image_keys(images, frozen.common_key(), store, pool, reasons, needs_content)
    for position, key in enumerate(show_if_long(keys, len(images), "fingerprints")):
        if key is not None and first_of.setdefault(key, position) != position:
            copies.append((first_of[key], position))

    result = ResultArray(len(images))
    key_of = {position: key for key, position in first_of.items()}
    n_cache_hits = 0
    for found in _look_up(key_of, store, result):
        result.write(found)
        n_cache_hits += len(found)
        for position in found:
            del key_of[position]
    _progress.record(cache_hits=n_cache_hits)
    with forward_pass_bar(len(first_of), n_cache_hits, verbose) as bar:
        if key_of:
            # the network is on a GPU as long as the lease is held, and no longer
            with gpu_lock(frozen.device):
                misses = MissingRows(images, key_of, frozen, store, batch_size)
                for computed in misses.compute(pool):
                    result.write(computed.rows)
                    reasons.update(computed.failures)
                    n_cache_hits += computed.n_cache_hits
                    bar.set_postfix_str(f"{n_cache_hits} kept", refresh=False)
                    bar.update(computed.n_images)
                del misses

    # a copy of a failed image fails too
    reasons.update({copy: reasons[first] for first, copy in copies if first in reasons})
    good = [(first, copy) for first, copy in copies if copy not in reasons]
    result.repeat([first for first, _ in good], [copy for _, copy in good])
    failures = [
        ImageFailure(position, images[position].describe(), reasons[position])
        for position in sorted(reasons)
    ]
    return Extraction(result.finish(), failures)


def _look_up(
    key_of: dict[int, bytes], store: ActivationStore | None, result: ResultArray
) -> Iterator[dict[int, np.ndarray]]:
    """Yield the rows that the store has, by position, a bounded number at a time."""
    positions: Sequence[int] = [] if store is None else list(key_of)
    start = 0
    while start < len(positions):
        n = _KEYS_AT_FIRST
        if result.row_bytes is not None:
            n = min(_KEYS_AT_ONCE, max(1, _BYTES_AT_ONCE // result.row_bytes))
        some = positions[start : start + n]
        rows = zip(some, store.get_many([key_of[position] for position in some]), strict=True)
        yield {position: row for position, row in rows if row is not None}
        start += len(some)
