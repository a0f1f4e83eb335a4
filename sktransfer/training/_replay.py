"""A share of the old images that training on new ones goes on with."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Replay:
    """Activations, targets and weights of images that were trained on before."""

    activations: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def followed_by(self, other: "Replay") -> "Replay":
        """Return these images and then those of `other`."""
        return Replay(
            np.concatenate([self.activations, other.activations]),
            np.concatenate([self.targets, other.targets]),
            np.concatenate([self.weights, other.weights]),
        )

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
        return Replay(self.activations[chosen], self.targets[chosen], self.weights[chosen])
