"""Which images are scored in which round: whole groups, in the proportions of the classes."""

from typing import NamedTuple

import numpy as np

# Images of the first round, at least. With 300 of 600 photographs of rubbish, a random network
# was placed before one with ImageNet weights that all 600 place before it.
_LEAST_IMAGES = 500
_LEAST_OF_A_CLASS = 20
_LEAST_GROUPS = 20
_ROUNDS = 3


class Draw(NamedTuple):
    """Images in the order in which the rounds add them.

    Attributes
    ----------
    positions : ndarray of shape (n_images,), dtype int64
    ends : ndarray of shape (n_groups,), dtype int64
        The numbers of images after which a group is complete.
    """

    positions: np.ndarray
    ends: np.ndarray


def draw(classes: np.ndarray | None, groups: np.ndarray, max_images: int | None) -> Draw:
    """Draw whole groups until there are `max_images` images.

    Any number of the first ones has about the proportions of the classes.

    Parameters
    ----------
    classes : ndarray of shape (n_images,) or None
        Numbers of classes from 0; None where targets are numbers.
    groups : ndarray of shape (n_images,)
        Numbers of groups from 0.
    max_images : int or None
    """
    rng = np.random.default_rng(0)
    n_groups = int(groups.max()) + 1
    first_of = np.unique(groups, return_index=True)[1]
    kinds = np.zeros(n_groups, dtype=int) if classes is None else classes[first_of]
    place = rng.permutation(n_groups)
    by_kind = np.lexsort((place, kinds))
    # the i-th of the m groups of a kind comes after about i / m of all
    sizes_of_kinds = np.bincount(kinds)
    starts = np.repeat(np.cumsum(sizes_of_kinds) - sizes_of_kinds, sizes_of_kinds)
    shares = np.empty(n_groups)
    shares[by_kind] = (np.arange(n_groups) - starts + rng.random(n_groups)) / np.repeat(
        sizes_of_kinds, sizes_of_kinds
    )
    order, sizes = np.argsort(shares, kind="stable"), np.bincount(groups)
    if max_images is not None:
        order = _those_that_fit(order, sizes, max_images)
    rank = np.full(n_groups, n_groups)
    rank[order] = np.arange(len(order))
    positions = np.argsort(rank[groups], kind="stable")[: sizes[order].sum()]
    return Draw(positions.astype(np.int64), np.cumsum(sizes[order]))


def _those_that_fit(order: np.ndarray, sizes: np.ndarray, max_images: int) -> np.ndarray:
    fitting, n_images = [], 0
    for group in order:
        if n_images + sizes[group] <= max_images:
            fitting.append(group)
            n_images += sizes[group]
    if not fitting:
        raise ValueError(
            f"max_images={max_images} is less than the images of any group; the smallest group "
            f"has {sizes.min()}"
        )
    return np.array(fitting)


def round_ends(ends: np.ndarray, n_classes: int) -> list[int]:
    """Return how many images each round has: half as many as the next, and at the end all."""
    n_images = int(ends[-1])
    least = max(_LEAST_IMAGES, _LEAST_OF_A_CLASS * n_classes)
    rounds = [n_images]
    for halvings in range(1, _ROUNDS):
        n_groups = int(np.searchsorted(ends, n_images / 2**halvings, side="right"))
        if n_groups < _LEAST_GROUPS or ends[n_groups - 1] < least:
            break
        rounds.insert(0, int(ends[n_groups - 1]))
    return rounds
