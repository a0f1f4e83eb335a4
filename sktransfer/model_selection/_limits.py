"""How much a search may take."""

import time
from dataclasses import dataclass, field

from ._strategies import Strategy

OUT_OF_TIME, OUT_OF_FITS = "max_time reached", "max_fits reached"


@dataclass
class Limits:
    """What a search may still take, and how long the next fits will.

    Attributes
    ----------
    max_time : float or None
        Seconds, to which the fit of the best strategy belongs.
    max_fits : int or None
    n_folds : int
    n_at_once : int
        Fits that run at the same time.
    refits : bool
        Whether the best strategy is fitted in the end.
    n_fits : int
        Fits so far.
    """

    max_time: float | None
    max_fits: int | None
    n_folds: int
    n_at_once: int = 1
    refits: bool = True
    n_fits: int = 0
    _start: float = field(default_factory=time.perf_counter)
    _rates: dict[str | None, float] = field(default_factory=dict)  # seconds a unit of work
    _pass_rates: dict[str | None, float] = field(default_factory=dict)  # seconds an image

    def n_allowed(self, n_strategies: int) -> int:
        """Return how many of so many strategies may be tried."""
        if self.n_fits == 0:  # there is a best strategy in any case
            n_strategies = n_strategies if not self.is_over() else 1
        elif self.is_over():
            return 0
        if self.max_fits is None:
            return n_strategies
        return min(n_strategies, (self.max_fits - self.n_fits) // self.n_folds)

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._start

    def is_over(self) -> bool:
        """Return whether the time is over."""
        return self.max_time is not None and self.elapsed() >= self.max_time

    def which(self) -> str:
        """Return the limit that was reached."""
        return OUT_OF_TIME if self.is_over() else OUT_OF_FITS

    def learn(self, strategy: Strategy, seconds: float) -> None:
        """Keep how long a fit took; the slowest counts, to be on the safe side."""
        of_passes = strategy.passes * self._pass_rates.get(strategy.backbone, 0.0)
        if strategy.work > 0:
            # views may have been stored before, so not all of a fit can be their passes
            rate = max(seconds - of_passes, seconds / 2) / strategy.work
            self._rates[strategy.backbone] = max(self._rates.get(strategy.backbone, 0.0), rate)

    def learn_passes(self, backbone: str | None, seconds: float, n_images: int) -> None:
        """Keep how long it took to read images and to pass them through a backbone."""
        if n_images:
            self._pass_rates[backbone] = seconds / n_images

    def why_not(self, strategy: Strategy) -> str | None:
        """Return why a strategy can't be fitted to all folds any more, or None."""
        if self.n_allowed(1) < 1:
            return self.which()
        if self.max_time is None or strategy.backbone not in self._rates:
            return None
        n_in_a_row = -(-self.n_folds // self.n_at_once) + self.refits
        of_a_pass = self._pass_rates.get(strategy.backbone, 0.0)
        of_a_fit = strategy.work * self._rates[strategy.backbone] + strategy.passes * of_a_pass
        needed = of_a_fit * n_in_a_row
        left = self.max_time - self.elapsed()
        if needed <= left:
            return None
        return f"{OUT_OF_TIME}: about {needed:.0f} s, {left:.0f} s left"
