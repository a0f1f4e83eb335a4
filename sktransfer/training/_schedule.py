"""How the learning rate runs over the steps of a fit."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class WarmUpAndCosine:
    """Factor of the learning rate: up in a line, down in half a cosine, to zero.

    As in SGDR (arXiv 1608.03983) without restarts, after the warm-up of arXiv
    1706.02677.
    """

    n_steps: int
    warm_up: float = 0.1  # share of the steps

    def __call__(self, step: int) -> float:
        n_warm_up = max(1, round(self.n_steps * self.warm_up))
        if step < n_warm_up:
            return (step + 1) / n_warm_up
        done = (step - n_warm_up) / max(1, self.n_steps - n_warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
