"""Count the images that pass frozen networks, and show progress when a run takes long."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tqdm.auto import tqdm

from .._locking import ForkSafeLock

_lock = ForkSafeLock()
_counters: "list[PassCounter]" = []


@dataclass
class PassCounter:
    """Images that passed a frozen network, and images whose activation was kept.

    Attributes
    ----------
    passed : int
        Images that passed a frozen network, at any depth.
    kept : int
        Images whose activation was found in the store of activations instead.
    """

    passed: int = 0
    kept: int = 0


@contextmanager
def count_passes() -> Iterator[PassCounter]:
    """Count the images that pass frozen networks within a ``with`` block.

    Only this process is counted: with ``n_jobs=2`` the workers' passes are not.

    Yields
    ------
    counter : PassCounter
        Its attributes `passed` and `kept` grow while the block runs.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import PretrainedFeatureTransformer, count_passes
    >>> X = np.zeros((3, 64, 64, 3), dtype=np.uint8)
    >>> X[1] = 128
    >>> transformer = PretrainedFeatureTransformer("mini", feature_cache=None).fit(X)
    >>> with count_passes() as counter:
    ...     rows = transformer.transform(X)
    >>> counter.passed  # the first and the last image are the same
    2
    """
    counter = PassCounter()
    with _lock:
        _counters.append(counter)
    try:
        yield counter
    finally:
        with _lock:
            _counters.remove(counter)


def record(*, passed: int = 0, kept: int = 0) -> None:
    """Add to every counter that is open."""
    with _lock:
        for counter in _counters:
            counter.passed += passed
            counter.kept += kept


_SECONDS_BEFORE_PROGRESS = 10

Item = TypeVar("Item")


def passes_bar(n_images: int, n_kept: int, verbose: int) -> tqdm:
    """Return a bar of images, with images/s; those whose activation was kept are done."""
    return tqdm(
        total=n_images,
        initial=n_kept,
        desc="backbone",
        unit="img",
        postfix=f"{n_kept} kept",
        delay=0 if verbose else _SECONDS_BEFORE_PROGRESS,
        leave=verbose > 0,
    )


def show_if_long(items: Iterable[Item], n_items: int, what: str) -> Iterable[Item]:
    """Return the items, with a bar if they take long to come."""
    return tqdm(
        items,
        total=n_items,
        desc=what,
        unit="img",
        delay=_SECONDS_BEFORE_PROGRESS,
        leave=False,
    )
