"""A share of the old images that training on new ones goes on with."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Replay:
    """Activations, targets, weights and counts of images that were trained on before."""

    activations: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def followed_by(self, other: "Replay") -> "Replay":
        """Return these images and then those of `other`."""
        pairs = zip(self._columns(), other._columns(), strict=True)
        return Replay(*(np.concatenate(pair) for pair in pairs))

    def sample(self, n: int, rng: np.random.RandomState) -> "Replay":
        """Return `n` images drawn at random, of each kind of target as many as there are room for.

        Rare classes are kept whole before common ones get more.
        """
        if n >= len(self):
            return self
        order = rng.permutation(len(self))
        _, kinds = np.unique(self.targets[order], axis=0, return_inverse=True)
        # how many of its kind come before each image in the order
        turn = np.empty(len(self), dtype=np.intp)
        for kind in np.unique(kinds):
            members = np.flatnonzero(kinds.ravel() == kind)
            turn[members] = np.arange(len(members))
        chosen = np.sort(order[np.argsort(turn, kind="stable")[:n]])
        return Replay(*(column[chosen] for column in self._columns()))

    def _columns(self) -> list[np.ndarray]:
        return [getattr(self, field.name) for field in fields(self)]
