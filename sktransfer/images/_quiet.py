"""Pillow's warnings, kept from the user while an image is decoded.

Pillow warns of damaged metadata and of large sizes. Here each image is either read or
reported as an error, so these warnings say nothing new, and would come once for each
bad file, from threads, without its name.

`warnings.catch_warnings` puts back a saved list when it ends. With several threads the
last to end may put back what another had set, so it is no use here. Instead one filter
of our own stands in the list while any thread decodes.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .._fork import ForkSafeLock

_lock = ForkSafeLock()
_n_inside = 0
_MODULE = r"PIL(\.|$)"


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that Pillow's modules issue inside the block, in any thread."""
    global _n_inside
    with _lock:
        _n_inside += 1
        if not any(_is_ours(entry) for entry in warnings.filters):
            warnings.filterwarnings("ignore", module=_MODULE)
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0:
                # all of them: a catch_warnings elsewhere may have put back an old one
                warnings.filters[:] = [entry for entry in warnings.filters if not _is_ours(entry)]


def _is_ours(entry: tuple) -> bool:
    module = entry[3]
    return entry[0] == "ignore" and getattr(module, "pattern", module) == _MODULE
