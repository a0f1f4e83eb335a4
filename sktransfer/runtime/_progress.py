"""Count the images that pass frozen networks."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from .._locking import ForkSafeLock

_lock = ForkSafeLock()
_counters: "list[ForwardPassCounter]" = []


@dataclass(eq=False)  # `remove` takes out the counter itself, not one of the same counts
class ForwardPassCounter:
    """Numbers of forward passes and of cache hits.

    Attributes
    ----------
    computed : int
        Images that passed a frozen network, at any depth.
    cache_hits : int
        Images whose row or activation was found in the store.
    """

    computed: int = 0
    cache_hits: int = 0

    # the names of `count_passes`
    @property
    def passed(self) -> int:
        return self.computed

    @property
    def kept(self) -> int:
        return self.cache_hits


@contextmanager
def count_forward_passes() -> Iterator[ForwardPassCounter]:
    """Count the images that pass frozen networks within a ``with`` block.

    Only this process is counted: with ``n_jobs=2``, forward passes in workers are not.

    Yields
    ------
    counter : ForwardPassCounter
        Its attributes `computed` and `cache_hits` grow while the block runs.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import PretrainedFeatureTransformer, count_forward_passes
    >>> X = np.zeros((3, 64, 64, 3), dtype=np.uint8)
    >>> X[1] = 128
    >>> transformer = PretrainedFeatureTransformer("mini", feature_cache=None).fit(X)
    >>> with count_forward_passes() as counter:
    ...     rows = transformer.transform(X)
    >>> counter.computed  # the first and the last image are the same
    2
    """
    counter = ForwardPassCounter()
    with _lock:
        _counters.append(counter)
    try:
        yield counter
    finally:
        with _lock:
            _counters.remove(counter)


def count_passes() -> AbstractContextManager[ForwardPassCounter]:
    """Count forward passes, under the former name of `count_forward_passes`.

    .. deprecated:: 0.1
        Use :func:`count_forward_passes`, whose counter has `computed` and `cache_hits`.
    """
    warnings.warn(
        "count_passes is deprecated; use count_forward_passes, whose counter has .computed and "
        ".cache_hits in place of .passed and .kept",
        FutureWarning,
        stacklevel=2,
    )
    return count_forward_passes()


def record(*, computed: int = 0, cache_hits: int = 0) -> None:
    """Add to every counter that is open."""
    with _lock:
        for counter in _counters:
            counter.computed += computed
            counter.cache_hits += cache_hits
