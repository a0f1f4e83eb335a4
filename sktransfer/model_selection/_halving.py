"""Successive halving: more images for fewer backbones, round by round."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit
from sklearn.metrics import check_scoring

from ..exceptions import ImageFailure, ImageReadError
from ._candidates import Candidate
from ._probes import differences, fold_scores, folds_of, linear, neighbours

# A backbone stays for the next round where a difference of 0 is within the interval of this
# probability, by Student's t over the folds: wider than the one standard error of the last
# round, because what is dropped does not come back.
_PROBABILITY = 0.95


class Halving:
    """The rounds over images in the order of the draw.

    Parameters
    ----------
    X : sequence of images
    y : ndarray of shape (n_images,) or (n_images, n_outputs)
    groups : ndarray of shape (n_images,)
        Numbers of groups, which cross no fold.
    cv : int or splitter
    scoring : str, callable or None
    is_classes : bool
        Whether `y` are labels of classes.
    ends : list of int
        Images that each round has: the first so many.

    Attributes
    ----------
    failures : dict of int to ImageFailure
        By position, the images that can't be read.
    n_images : list of int
        Images that were scored on in each round.
    """

    def __init__(
        self,
        X: Any,
        y: np.ndarray,
        groups: np.ndarray,
        cv: Any,
        scoring: Any,
        is_classes: bool,
        ends: list[int],
    ):
        self.X, self.y, self.groups = X, y, groups
        self.cv, self.scoring, self.is_classes, self.ends = cv, scoring, is_classes, ends
        self.failures: dict[int, ImageFailure] = {}
        self.n_images: list[int] = []

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Score the candidates that have no reason to be left out, and tell the outcome of each.

        Raises
        ------
        ValueError
            When no candidate is left.
        ImageReadError
            When no image can be read.
        """
        left, start = list(candidates), 0
        for number, end in enumerate(self.ends, start=1):
            left = self._extend(left, start, end)
            if not left:
                reasons = "; ".join(f"{c.label}: {c.reason}" for c in candidates if c.reason)
                raise ValueError(f"backbones: none of them can be ranked. {reasons}")
            self._score(left, number, end)
            left = self._those_that_stay(left, number)
            start = end

    def readable(self, end: int) -> np.ndarray:
        """Return the positions before `end` of the images that can be read."""
        return np.setdiff1d(np.arange(end), list(self.failures))

    def _extend(self, candidates: Sequence[Candidate], start: int, end: int) -> list[Candidate]:
        """Add the rows of a round's new images; return the candidates that have them."""
        candidates = [candidate for candidate in candidates if candidate.reason is None]
        for candidate in candidates:
            failures = candidate.extend(self.X, start, end)
            self.failures.update((failure.position, failure) for failure in failures)
        read = self.readable(end)
        candidates = [candidate for candidate in candidates if candidate.reason is None]
        if candidates and not len(read):
            raise ImageReadError(list(self.failures.values()), end)
        for candidate in candidates:
            if not np.isfinite(candidate.rows[read]).all():
                candidate.reason = "its rows hold values that are not finite"
        return [candidate for candidate in candidates if candidate.reason is None]

    def _score(self, candidates: Sequence[Candidate], number: int, end: int) -> None:
        """Score at each depth, and compare the best depths with the best candidate's."""
        read = self.readable(end)
        self.n_images.append(len(read))
        y = self.y[read]
        folds = folds_of(self.cv, y, self.groups[read], self.is_classes)
        is_first_of_several = number == 1 < len(self.ends)
        probe = (
            neighbours(self.is_classes, len(read))
            if is_first_of_several
            else linear(self.is_classes)
        )
        scorer = check_scoring(probe, self.scoring)
        for candidate in candidates:
            started = time.perf_counter()
            by_depth = [
                fold_scores(probe, candidate.rows_at(depth, read), y, folds, scorer)
                for depth in range(len(candidate.widths))
            ]
            candidate.depth = max(range(len(by_depth)), key=lambda i: _worth(by_depth[i]))
            candidate.scores = by_depth[candidate.depth]
            candidate.seconds += time.perf_counter() - started
            candidate.n_images, candidate.round = len(read), number
        best = max(candidates, key=lambda candidate: _worth(candidate.scores))
        for candidate in candidates:
            candidate.difference, candidate.error = differences(best.scores, candidate.scores)

    def _those_that_stay(self, candidates: Sequence[Candidate], number: int) -> list[Candidate]:
        """Return the candidates of the next round, and tell the outcome of the others."""
        ranked = sorted(candidates, key=lambda candidate: _worth(candidate.scores), reverse=True)
        is_last = number == len(self.ends)
        # standard errors; the fewer the folds, the less their spread is known
        allowed = stdtrit(len(ranked[0].scores) - 1, (1 + _PROBABILITY) / 2)
        stay = []
        for place, candidate in enumerate(ranked):
            below = f"{candidate.difference:.3f} ± {candidate.error:.3f} below the best"
            if is_last:
                candidate.outcome = f"worse: {below}"
                if is_within_noise(candidate):
                    candidate.outcome = "within noise of the best" if place else "best"
            elif (
                place < math.ceil(len(ranked) / 2)
                or candidate.difference <= allowed * candidate.error
            ):
                stay.append(candidate)
            else:
                candidate.rows = candidate.rows[:0]  # the memory is for the others
                candidate.outcome = f"dropped in round {number} of {len(self.ends)}: {below}"
        return stay


def _worth(scores: np.ndarray) -> float:
    """Return the mean score; below all others where a fold has none."""
    mean = float(scores.mean())
    return -math.inf if math.isnan(mean) else mean


def is_within_noise(candidate: Candidate) -> bool:
    """Return whether a candidate is at most one standard error below the best."""
    return candidate.difference <= candidate.error  # False for NaN


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates by last round and score, those that were left out at the end.

    Of those within noise of the best at the end, the ones whose ImageNet accuracy is known
    change places among themselves, to stand in its order.
    """
    scored = [c for c in candidates if c.reason is None]
    ranked = sorted(scored, key=lambda c: (c.round, _worth(c.scores)), reverse=True)
    last = ranked[0].round
    known = {
        i: c.top1
        for i, c in enumerate(ranked)
        if c.round == last and is_within_noise(c) and c.top1 is not None
    }
    by_top1 = [ranked[i] for i in sorted(known, key=lambda i: known[i], reverse=True)]
    for i, candidate in zip(known, by_top1, strict=True):
        ranked[i] = candidate
    if ranked[0].difference > 0:
        ranked[0].outcome = "within noise of the best, and first by ImageNet accuracy"
    return ranked + [c for c in candidates if c.reason is not None]
