"""The order in which strategies are tried, and which are not worth it any more."""

import time
from collections.abc import Sequence
from typing import Any

from ..runtime._progress import count_forward_passes
from ._limits import OUT_OF_TIME
from ._strategies import FINE_TUNING, OfBackbone, Strategy
from ._trials import Trials

# recipe and cut, as positions in their lists
Position = tuple[int, int]

# From this recipe on, the one before must have gained on frozen rows.
_FIRST_COSTLY_RECIPE = 2


class Schedule:
    """Tries strategies in rounds, the cheap ones first.

    Parameters
    ----------
    trials : Trials
    n_errors : float or None
        Standard errors by which the mean of the paired differences to the best must be
        below zero for a strategy to be dropped. None drops nothing.
    """

    def __init__(self, trials: Trials, n_errors: float | None):
        self._trials = trials
        self._n_errors = n_errors

    def run(self, pixels: Strategy | None, backbones: Sequence[OfBackbone], X: Any) -> None:
        """Try raw pixels, rows with heads, and fine-tuning."""
        if pixels is not None:
            self._trials.evaluate([pixels])
        read: list[OfBackbone] = []
        for of in backbones:
            if self._trials.limits.is_over() and read:
                self._trials.leave([*of.rows, *of.tuned.values()], OUT_OF_TIME)
                continue
            self._pass_images(of, X)
            for rows in of.at_depths:
                self._trials.evaluate(rows.quick)
            read.append(of)
        self._fine_tune([of for of in read if self._try_other_heads(of)])

    def _pass_images(self, of: OfBackbone, X: Any) -> None:
        """Compute and store the rows of all depths, which folds and heads share."""
        transformer = of.transformer.fit(X)  # refuses what is no image before any fit
        if not of.rows or transformer.feature_cache is None or transformer.pixel_range == "fit":
            return
        start = time.perf_counter()
        with count_forward_passes() as counter:
            transformer.transform(X)
        seconds = time.perf_counter() - start
        self._trials.limits.learn_passes(of.name, seconds, counter.computed)
        for strategy in of.rows:
            trial = self._trials.of(strategy)
            trial.pass_time, trial.forward_passes = seconds, counter.computed

    def _try_other_heads(self, of: OfBackbone) -> bool:
        """Try the other heads at depths that can win; return whether the backbone can."""
        lost = [self._why_lost(rows.quick) for rows in of.at_depths]
        for rows, reason in zip(of.at_depths, lost, strict=True):
            if reason is None:
                self._trials.evaluate(rows.others)
            else:
                self._trials.leave(rows.others, f"quick heads {reason}")
        if None in lost or not lost:
            return True
        self._trials.leave(of.tuned.values(), f"rows at all depths below, {lost[0]}")
        return False

    def _why_lost(self, strategies: Sequence[Strategy]) -> str | None:
        """Return by how much the best of `strategies` is below the best, where it can't win."""
        if self._n_errors is None:
            return None
        below = self._trials.to_best(strategies)
        if below is None or not below.is_below(self._n_errors):
            return None
        return f"{below} below the best"

    def _fine_tune(self, backbones: Sequence[OfBackbone]) -> None:
        """Try recipes and cuts, the cheapest first, each as a step from one that was tried."""
        steps: list[tuple[OfBackbone, Position, Position | None]]
        steps = [(of, (0, 0), None) for of in backbones if of.tuned]
        while steps:
            steps.sort(key=lambda step: step[0].tuned[step[1]].cost)
            of, at, before = steps.pop(0)
            strategy = of.tuned[at]
            if self._trials.is_tried(strategy):
                if before is not None and of.tuned[before] is strategy:  # two names of one cut
                    steps += _steps_from(of, at)
                continue
            reason = self._why_no_step(of, at, before) or self._trials.limits.why_not(strategy)
            if reason is not None:
                self._trials.leave([strategy], reason)
                continue
            self._trials.evaluate([strategy])
            steps += _steps_from(of, at)
        limits = self._trials.limits
        rest = limits.which() if limits.n_allowed(1) < 1 else "no step before it was worth it"
        for of in backbones:
            unreached = [s for s in of.tuned.values() if not self._trials.is_tried(s)]
            self._trials.leave(unreached, rest)

    def _why_no_step(self, of: OfBackbone, at: Position, before: Position | None) -> str | None:
        """Return why a step of fine-tuning is not worth it, or None."""
        if before is None or self._n_errors is None:
            return None
        last = of.tuned[before]
        if reason := self._why_lost([last]):
            return f"the step before {reason}"
        best_tuned = self._trials.best(lambda strategy: strategy in of.tuned.values())
        if best_tuned is not None:
            below = self._trials.difference(last, best_tuned.strategy)
            if below.mean < 0:
                return f"another step was better by {below}"
        if at[0] > before[0] and at[0] >= _FIRST_COSTLY_RECIPE:
            frozen = self._trials.best(lambda strategy: strategy.kind != FINE_TUNING)
            if frozen is not None:
                gain = self._trials.difference(last, frozen.strategy)
                if gain.mean <= gain.error:
                    return f"the recipe before gained {gain.mean:.3f} ± {gain.error:.3f}"
        return None


def _steps_from(of: OfBackbone, at: Position) -> list[tuple[OfBackbone, Position, Position]]:
    """Return the next recipe at the same cut, and the next deeper cut."""
    recipe, cut = at
    return [(of, to, at) for to in ((recipe + 1, cut), (recipe, cut + 1)) if to in of.tuned]
