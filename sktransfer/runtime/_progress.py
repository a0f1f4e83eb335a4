"""A line of progress: when asked for, and when a run takes long."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

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
