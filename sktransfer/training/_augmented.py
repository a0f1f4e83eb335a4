"""The activations of training images that are augmented: one array for each random view."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np


class AugmentedActivations:
    """Activations of the training images: one array for each random view of them.

    Parameters
    ----------
    extract : callable
        Returns the activations of view number v, in the order of the images.
    n_views : int or None
        Number of views, which the epochs take in turns. None is a new view for each
        epoch.
    n_at_start : int, default=1
        Number of views that the head's start is fitted on where `n_views` is None. They are
        extracted again for their epochs.
    may_overlap : bool, default=False
        Whether a view may be extracted in another thread while the one before trains. It must
        not draw from a random state that training draws from.
    """

    def __init__(
        self,
        extract: Callable[[int], np.ndarray],
        n_views: int | None,
        n_at_start: int = 1,
        may_overlap: bool = False,
    ):
        self._extract = extract
        self._n_views = n_views
        self._n_at_start = n_at_start
        self._may_overlap = may_overlap
        self._held: dict[int, np.ndarray] = {}
        self._under_way: tuple[int, Future[np.ndarray]] | None = None

    @classmethod
    def fixed(cls, activations: np.ndarray) -> "AugmentedActivations":
        """Return the one view of images that are not augmented."""
        return cls(lambda number: activations, 1)

    def concatenated_with(self, others: np.ndarray) -> "AugmentedActivations":
        """Return the same views, each followed by the activations of other images."""
        return AugmentedActivations(
            lambda n: np.concatenate([self._extract(n), others]),
            self._n_views,
            self._n_at_start,
            self._may_overlap,
        )

    @property
    def are_reused(self) -> bool:
        """Whether later epochs train on the views of earlier ones."""
        return self._n_views is not None

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Return the activations that an epoch trains on."""
        number = epoch if self._n_views is None else epoch % self._n_views
        if number not in self._held:
            if self._n_views is None:
                self._held.clear()  # no later epoch trains on the view of an earlier one
            self._held[number] = self._result(number)
        return self._held[number]

    def begin(self, epoch: int) -> None:
        """Begin to extract the new view of an epoch, while the one before trains."""
        if not self._may_overlap or self.are_reused or self._under_way is not None:
            return
        if epoch not in self._held:
            pool = ThreadPoolExecutor(1, thread_name_prefix="sktransfer-view")
            self._under_way = epoch, pool.submit(self._extract, epoch)
            pool.shutdown(wait=False)  # its thread ends with the view

    def end(self, waits: bool = True) -> None:
        """Drop a view that is being extracted, after its end by default: training has ended."""
        if self._under_way is not None:
            (_, under_way), self._under_way = self._under_way, None
            if waits:
                wait([under_way])  # whether it failed does not matter: nobody trains on it

    def _result(self, number: int) -> np.ndarray:
        if self._under_way is not None:
            begun, under_way = self._under_way
            if begun == number:
                self._under_way = None
                return under_way.result()
            self.end()
        return self._extract(number)

    def for_the_head_start(self) -> Iterator[np.ndarray]:
        """Yield the views that the head's probe is fitted on.

        These are all views that later epochs train on again; where each epoch has a view
        of its own, the first `n_at_start`.
        """
        for number in range(self._n_views or self._n_at_start):
            yield self.of_epoch(number)
