"""The activations of training images that are augmented: one array for each random view."""

from collections.abc import Callable, Iterator

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
    """

    def __init__(
        self, extract: Callable[[int], np.ndarray], n_views: int | None, n_at_start: int = 1
    ):
        self._extract = extract
        self._n_views = n_views
        self._n_at_start = n_at_start
        self._held: dict[int, np.ndarray] = {}

    @classmethod
    def fixed(cls, activations: np.ndarray) -> "AugmentedActivations":
        """Return the one view of images that are not augmented."""
        return cls(lambda number: activations, 1)

    def concatenated_with(self, others: np.ndarray) -> "AugmentedActivations":
        """Return the same views, each followed by the activations of other images."""
        return AugmentedActivations(
            lambda n: np.concatenate([self._extract(n), others]), self._n_views, self._n_at_start
        )

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Return the activations that an epoch trains on."""
        number = epoch if self._n_views is None else epoch % self._n_views
        if number not in self._held:
            if self._n_views is None:
                self._held.clear()  # no later epoch trains on the view of an earlier one
            self._held[number] = self._extract(number)
        return self._held[number]

    def for_the_head_start(self) -> Iterator[np.ndarray]:
        """Yield the views that the head's probe is fitted on.

        These are all views that later epochs train on again; where each epoch has a view
        of its own, the first `n_at_start`.
        """
        for number in range(self._n_views or self._n_at_start):
            yield self.of_epoch(number)
