"""What a search tried, what it left out and why, and its answer in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .._text_table import Table, table
from ._paired import difference, standard_error
from ._strategies import FINE_TUNING, PIXELS
from ._trials import Trial

_SHOWN = 20  # strategies that are printed: a screen


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """What became of one strategy in a search.

    Attributes
    ----------
    strategy : str
        Its name.
    score : float or None
        Mean score over the folds; None where it was not tried.
    below : float or None
        Mean of the differences to the best strategy over the folds, zero or less.
    error : float or None
        Standard error of `below`; of the best strategy that of its score.
    seconds : float or None
        Mean time of a fit; where rows are used, with the forward pass of all images, which
        other strategies share, as long as it took in this search.
    forward_passes : int or None
        Images that passed the network in this search, in all folds together; those of rows
        are shared by all strategies with rows of the backbone. None where fits ran in other
        processes.
    status : str
        "best"; "within noise" of it or "worse", by paired comparison; "failed"; or "not
        tried".
    reason : str
        Why it was not tried.
    kind : str
        "pixels", "rows" or "fine-tuning".
    """

    strategy: str
    score: float | None
    below: float | None
    error: float | None
    seconds: float | None
    forward_passes: int | None
    status: str
    reason: str
    kind: str


class StrategyTable(Table[StrategyResult]):
    """The strategies of a search, the best first, and then those that were not tried.

    Attributes
    ----------
    metric : str
        Name of the score.
    """

    _record = StrategyResult

    def __init__(self, records: Sequence[StrategyResult], metric: str):
        super().__init__(records)
        self.metric = metric

    def _headline(self) -> str:
        n_tried = sum(record.score is not None for record in self)
        return f"{n_tried} strategies tried, {len(self) - n_tried} not tried; score: {self.metric}"

    def __repr__(self) -> str:
        tried = [record for record in self if record.score is not None]
        header = ("strategy", "score", "below", "±", "seconds", "passes", "status")
        lines = [
            (
                record.strategy,
                *(f"{value:.3f}" for value in (record.score, abs(record.below), record.error)),
                f"{record.seconds:.3g}",
                record.forward_passes,
                record.status,
            )
            for record in tried[:_SHOWN]
        ]
        parts = [self._headline(), table(header, lines)]
        if len(tried) > _SHOWN:
            parts.append(f"... and {len(tried) - _SHOWN} more")
        not_tried: dict[str, list[str]] = {}
        for record in self[len(tried) :]:
            not_tried.setdefault(record.reason, []).append(record.strategy)
        for reason, names in not_tried.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            parts.append(f"not tried: {names[0]}{more} ({reason})")
        return "\n".join(parts)


def strategy_table(trials: Iterable[Trial], metric: str, n_errors: float | None) -> StrategyTable:
    """Return the table; within noise is at most `n_errors` standard errors below the best."""
    trials = list(trials)
    tried = [trial for trial in trials if trial.scores is not None]
    tried.sort(key=lambda trial: -_mean(trial))
    best = tried[0]
    assert best.scores is not None
    records = []
    for trial in tried:
        assert trial.scores is not None
        below = difference(trial.scores, best.scores)
        if not np.isfinite(trial.scores).all():
            status = "failed"
        elif trial is best:
            status = "best"
        else:
            status = (
                "worse" if below.is_below(2 if n_errors is None else n_errors) else ("within noise")
            )
        records.append(
            StrategyResult(
                trial.strategy.name,
                float(trial.scores.mean()),
                below.mean,
                standard_error(trial.scores) if trial is best else below.error,
                trial.fit_time + trial.pass_time,
                trial.forward_passes,
                status,
                "",
                trial.strategy.kind,
            )
        )
    for trial in trials:
        if trial.scores is None:
            name, kind = trial.strategy.name, trial.strategy.kind
            nothing = (None, None, None, None, None)
            records.append(StrategyResult(name, *nothing, "not tried", trial.reason, kind))
    return StrategyTable(records, metric)


def answer(trials: Iterable[Trial]) -> str:
    """Return which strategy to take, and what fine-tuning is worth, in one sentence."""
    trials = list(trials)

    def best(kinds: Sequence[str], is_among: bool) -> Trial | None:
        tried = [
            trial
            for trial in trials
            if trial.scores is not None
            and np.isfinite(trial.scores).all()
            and (trial.strategy.kind in kinds) is is_among
        ]
        return max(tried, key=_mean, default=None)

    frozen, tuned = best([FINE_TUNING], False), best([FINE_TUNING], True)
    first = frozen or tuned
    if first is None or first.scores is None:
        return "every fit failed"
    error = standard_error(first.scores)
    parts = [f"{first.strategy.name}: {_mean(first):.3f} ± {error:.3f}"]
    pixels = best([PIXELS], True)
    if pixels is not None and pixels is not first:
        parts.append(f"{pixels.strategy.name} alone: {_mean(pixels):.3f}")
    if tuned is not None and tuned is not first:
        parts.append(_worth(tuned, first))
    elif tuned is None:
        reasons = [t.reason for t in trials if t.strategy.kind == FINE_TUNING]
        if reasons:
            parts.append(f"fine-tuning was not tried: {reasons[0]}")
    return "; ".join(parts)


def _worth(tuned: Trial, frozen: Trial) -> str:
    """Return what fine-tuning adds to frozen rows, and how many times the time it takes."""
    assert tuned.scores is not None
    assert frozen.scores is not None
    gain = difference(tuned.scores, frozen.scores)
    noise = " (within noise)" if abs(gain.mean) <= gain.error else ""
    verb = "adds" if gain.mean >= 0 else "loses"
    times = tuned.fit_time / max(frozen.fit_time + frozen.pass_time, 1e-9)
    return f"{tuned.strategy.name} {verb} {gain}{noise} for {times:.2g} times the time"


def _mean(trial: Trial) -> float:
    """Return the mean score, of failed fits minus infinity."""
    mean = -np.inf if trial.scores is None else float(trial.scores.mean())
    return mean if np.isfinite(mean) else -np.inf
