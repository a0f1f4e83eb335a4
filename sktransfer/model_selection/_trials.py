"""Strategies that were tried, or left out, and their scores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime._progress import count_forward_passes
from ._limits import Limits
from ._paired import Difference, difference, metric_of, scores_by_fold
from ._strategies import FINE_TUNING, Strategy


@dataclass
class Trial:
    """What became of one strategy.

    Attributes
    ----------
    strategy : Strategy
    scores : ndarray of shape (n_folds,) or None
        None where it was not tried.
    fit_time : float
        Mean seconds of a fit.
    pass_time : float
        Seconds of the forward pass of all images, where rows are used.
    forward_passes : int or None
        None where they were not counted.
    reason : str
        Why it was not tried.
    """

    strategy: Strategy
    scores: np.ndarray | None = None
    fit_time: float = np.nan
    pass_time: float = 0.0
    forward_passes: int | None = None
    reason: str = ""


class Trials:
    """Evaluates strategies as candidates of a search, and compares them.

    Parameters
    ----------
    evaluate_candidates : callable
        Of scikit-learn's search.
    limits : Limits
    refit : bool, str or callable
        Of the search: the name of the metric, where there are several.
    counts_passes : bool
        Whether fits run in this process, where forward passes are counted.
    """

    def __init__(
        self,
        evaluate_candidates: Callable[..., Mapping[str, Any]],
        limits: Limits,
        refit: Any,
        counts_passes: bool,
    ):
        self._evaluate_candidates = evaluate_candidates
        self.limits = limits
        self._refit = refit
        self._counts_passes = counts_passes
        self._trials: dict[Strategy, Trial] = {}
        self.metric = ""

    def __iter__(self):
        return iter(self._trials.values())

    def of(self, strategy: Strategy) -> Trial:
        """Return the trial of a strategy."""
        return self._trials.setdefault(strategy, Trial(strategy))

    def is_tried(self, strategy: Strategy) -> bool:
        return self.of(strategy).scores is not None

    def leave(self, strategies: Iterable[Strategy], reason: str) -> None:
        """Note why strategies are not tried; the first reason of each is kept."""
        for strategy in strategies:
            trial = self.of(strategy)
            trial.reason = trial.reason or reason

    def evaluate(self, strategies: Sequence[Strategy]) -> None:
        """Fit and score strategies on all folds, as many as the limits allow."""
        n = self.limits.n_allowed(len(strategies))
        self.leave(strategies[n:], self.limits.which())
        strategies = strategies[:n]
        if not strategies:
            return
        with count_forward_passes() as counter:
            results = self._evaluate_candidates(
                [{"steps": strategy.steps} for strategy in strategies],
                more_results={"strategy": [strategy.name for strategy in strategies]},
            )
        self.limits.n_fits += n * self.limits.n_folds
        self.metric = metric_of(results, self._refit)
        scores = scores_by_fold(results, self.metric)[-n:]
        for strategy, of_folds, seconds in zip(
            strategies, scores, results["mean_fit_time"][-n:], strict=True
        ):
            trial = self.of(strategy)
            trial.scores, trial.fit_time, trial.reason = of_folds, float(seconds), ""
            if strategy.kind == FINE_TUNING:
                self.limits.learn(strategy, trial.fit_time)
                if self._counts_passes and n == 1:
                    trial.forward_passes = counter.computed

    # comparisons

    def best(self, among: Callable[[Strategy], bool] = lambda strategy: True) -> Trial | None:
        """Return the trial with the best mean score; of equal ones the first, None of none."""
        tried = [t for t in self if t.scores is not None and among(t.strategy)]
        scored = [t for t in tried if np.isfinite(t.scores).all()]
        return max(scored, key=lambda trial: trial.scores.mean(), default=None)

    def difference(self, strategy: Strategy, other: Strategy) -> Difference:
        """Return by how much a strategy that was tried is better than another one."""
        first, second = self.of(strategy).scores, self.of(other).scores
        assert first is not None
        assert second is not None
        return difference(first, second)

    def to_best(self, strategies: Sequence[Strategy]) -> Difference | None:
        """Return by how much the best of `strategies` is below the best; None if not tried."""
        of_these = self.best(lambda strategy: strategy in strategies)
        best = self.best()
        if of_these is None or best is None:
            failed = best is not None and all(self.is_tried(strategy) for strategy in strategies)
            return Difference(np.nan, np.nan) if failed else None
        return self.difference(of_these.strategy, best.strategy)
