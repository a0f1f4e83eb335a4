"""The tests of a comparison, their correction, and the report of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ._domain_classifier import Separation, separation
from ._drift_report import ClassShare, DriftReport, DriftTest, NovelImage
from ._image_quality import MEASURES
from ._label_shift import Shares, corrected_shares
from ._novelty_detector import NoveltyDetector
from ._sample import Sample
from ._two_sample import (
    corrected,
    distribution_difference,
    n_permutations,
    p_value_of_low_scores,
    p_value_of_more,
    share_difference,
)


@dataclass(frozen=True)
class Comparison:
    """New images against the reference.

    Each family of tests has an equal part of the level, and each test in it what Holm's method
    leaves, so that all together keep the level.
    """

    reference: Sample
    new: Sample
    detector: NoveltyDetector
    scores: np.ndarray
    classes: np.ndarray | None
    level: float
    min_difference: float
    rng: np.random.Generator

    def report(self, most_novel: Sequence[NovelImage], notes: Sequence[str]) -> DriftReport:
        families, separated = self._families()
        tests = [test for family in families for test in self._corrected(family, len(families))]
        return DriftReport(
            tests,
            level=self.level,
            min_difference=self.min_difference,
            auc=separated.auc,
            auc_interval=(separated.low, separated.high),
            novelty_rate=self._novelty_rate(self.scores),
            contamination=self._novelty_rate(self.detector.scores_),
            class_shares=self._class_shares(),
            most_novel=most_novel,
            n_reference=len(self.reference.rows),
            n_new=len(self.new.rows),
            n_unreadable=self.new.n_unreadable,
            notes=notes,
        )

    def _families(self) -> tuple[list[list[DriftTest]], Separation]:
        """Return the tests, by family and with p-values that are not corrected."""
        has_outputs, has_images = self.new.outputs is not None, self.new.quality is not None
        n_families = 2 + has_outputs + (self.classes is not None) + has_images
        permutations = n_permutations(self.level / n_families)
        separated = separation(self.reference.rows, self.new.rows, permutations, self.rng)
        families = [
            [_test("rows", "rows", None, None, 2 * separated.auc - 1, separated.p_value)],
            [self._novelty()],
        ]
        if has_outputs:
            families.append(list(self._predictions()))
        if self.classes is not None:
            families.append([self._shares(permutations)])
        if has_images:
            families.append(list(self._quality()))
        assert len(families) == n_families
        return families, separated

    def _corrected(self, family: list[DriftTest], n_families: int) -> Iterator[DriftTest]:
        values = corrected([test.p_value for test in family])
        for test, value in zip(family, values, strict=True):
            value = min(1.0, value * n_families)
            is_drift = value <= self.level and test.effect >= self.min_difference
            yield replace(test, p_value=value, is_drift=is_drift)

    def _novelty(self) -> DriftTest:
        before, now = map(self._novelty_rate, (self.detector.scores_, self.scores))
        p_value = p_value_of_low_scores(self.detector.scores_, self.detector.offset_, self.scores)
        return _test("novelty", "novelty", before, now, now - before, p_value)

    def _novelty_rate(self, scores: np.ndarray) -> float:
        return float(np.mean(scores < self.detector.offset_))

    def _predictions(self) -> Iterator[DriftTest]:
        before, now = self.reference.outputs, self.new.outputs
        assert before is not None
        assert now is not None
        if self.classes is None:
            names = [f"number {i}" for i in range(now.shape[1])]
            columns = range(now.shape[1])
        else:
            names = [str(label) for label in self.classes.tolist()]
            columns = range(now.shape[1]) if len(names) > 2 else range(1, 2)  # the other is 1 - p
        for i in columns:
            yield _distributions("predictions", names[i], before[:, i], now[:, i])

    def _shares(self, permutations: int) -> DriftTest:
        before, now = self._counts(self.reference), self._counts(self.new)
        effect, p_value = share_difference(before, now, permutations, self.rng)
        return _test("classes", "classes", None, None, effect, p_value)

    def _counts(self, sample: Sample) -> np.ndarray:
        assert sample.outputs is not None
        return np.bincount(sample.outputs.argmax(axis=1), minlength=sample.outputs.shape[1])

    def _quality(self) -> Iterator[DriftTest]:
        before, now = self.reference.quality, self.new.quality
        assert before is not None
        assert now is not None
        for i, name in enumerate(MEASURES):
            yield _distributions("quality", name, before[:, i], now[:, i])
        given = self.reference.n_given, self.new.n_given
        unreadable = self.reference.n_unreadable, self.new.n_unreadable
        before_share, now_share = (n / of for n, of in zip(unreadable, given, strict=True))
        p_value = p_value_of_more(*given, *unreadable)
        effect = now_share - before_share
        yield _test("quality", "unreadable", before_share, now_share, effect, p_value)

    def _class_shares(self) -> list[ClassShare]:
        if self.classes is None:
            return []
        reference, new = self.reference, self.new
        assert reference.outputs is not None
        assert new.outputs is not None
        before = self._counts(reference)
        shares: Shares | None = None
        if reference.labels is not None:
            before = np.bincount(reference.labels, minlength=len(self.classes))
            shares = corrected_shares(reference.outputs, reference.labels, new.outputs, self.rng)
        before, now = before / before.sum(), self._counts(new) / len(new.rows)
        records = []
        for i, label in enumerate(self.classes.tolist()):
            known: list[float | None] = [None, None, None]
            if shares is not None and np.isfinite(shares.values[i]):
                known = [float(values[i]) for values in shares]
            records.append(ClassShare(label, float(before[i]), float(now[i]), *known))
        return records


def _distributions(family: str, what: str, before: np.ndarray, now: np.ndarray) -> DriftTest:
    effect, p_value = distribution_difference(before, now)
    return _test(family, what, float(np.median(before)), float(np.median(now)), effect, p_value)


def _test(
    family: str,
    what: str,
    reference: float | None,
    new: float | None,
    effect: float,
    p_value: float,
) -> DriftTest:
    return DriftTest(family, what, reference, new, max(0.0, effect), p_value, False)
