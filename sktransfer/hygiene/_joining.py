"""Groups from pairs: images that are connected, over any number of steps, are one group."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def join(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return labels of the images after the labels `one[i]` and `other[i]` became one.

    A label in `other` that no image has connects the labels in `one` that are paired with it.
    """
    size = max(labels.max(), one.max(), other.max()) + 1
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(size, size))
    return connected_components(graph, directed=False)[1][labels].astype(np.int64)


def in_order(labels: np.ndarray) -> np.ndarray:
    """Return the labels renumbered from 0 in the order in which they first appear."""
    _, first_of, labels = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(first_of), dtype=np.int64)
    order[np.argsort(first_of)] = np.arange(len(first_of))
    return order[labels]
