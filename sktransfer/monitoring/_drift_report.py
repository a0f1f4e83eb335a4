"""What a comparison found: tests, shares of classes, and the most novel images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .._html_page import HtmlPage, render_page
from .._text_table import Table
from ..images._thumbnail import Thumbnail


@dataclass(frozen=True, slots=True)
class DriftTest:
    """One test of whether new images differ from the reference.

    Attributes
    ----------
    family : str
        "rows", "predictions", "classes", "novelty" or "quality".
    what : str
        What is compared: a class, a measure of quality, and so on.
    reference, new : float or None
        The median of the reference and of the new images, or the shares of them; None
        where it is no single number.
    effect : float
        How large the difference is, from 0 to 1.
    p_value : float
        Corrected for the number of tests: it is compared with `level`.
    is_drift : bool
        Whether the test is significant, and the effect as large as the user asked.
    """

    family: str
    what: str
    reference: float | None
    new: float | None
    effect: float
    p_value: float
    is_drift: bool


@dataclass(frozen=True, slots=True)
class ClassShare:
    """The share of a class among the reference and the new images.

    Attributes
    ----------
    label : object
        The class.
    reference : float
        Share of its label, or of its prediction where the reference has no labels.
    predicted : float
        Share of the new images that are predicted as it.
    corrected : float or None
        Share of the new images by black-box shift estimation; None where the reference has no
        labels, or none of this class.
    low, high : float or None
        Interval of 95 % of `corrected`.
    """

    label: Any
    reference: float
    predicted: float
    corrected: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class NovelImage:
    """One of the new images that are most unlike the reference.

    Attributes
    ----------
    position : int
        Its position in `X`.
    source : str
        Its path, or a description of an image without a path.
    score : float
        As in :meth:`NoveltyDetector.score_samples`: the lower, the more novel.
    is_novel : bool
        Whether the score is below the threshold.
    """

    position: int
    source: str
    score: float
    is_novel: bool
    picture: Thumbnail | None = field(default=None, repr=False)


class DriftReport(HtmlPage, Table[DriftTest]):
    """A sequence of :class:`DriftTest`, with what they say together.

    It prints as a table, ``to_frame()`` is a pandas DataFrame, and ``html()``, ``save(path)`` and
    ``open()`` make a page of it.

    Attributes
    ----------
    is_drift : bool
        Whether any test found drift.
    verdict : str
        A sentence that says so, with the level and the least difference.
    level, min_difference : float
        As in :class:`DriftMonitor`.
    auc : float
        Area under the ROC curve of a classifier that tells new from reference rows, on rows it
        was not fitted on. 0.5 where it can't.
    auc_interval : tuple of float
        Interval of 95 % of `auc`.
    novelty_rate : float
        Share of the new images that are novel.
    contamination : float
        The share that is expected without drift.
    class_shares : tuple of ClassShare
        One for each class; empty without a classifier.
    most_novel : tuple of NovelImage
        The new images that are most unlike the reference, the most unlike first.
    n_reference, n_new : int
        Images that were compared, those that can't be read not counted.
    n_unreadable : int
        New images that can't be read.
    notes : tuple of str
        What to know before this report is believed.
    """

    _record = DriftTest

    def __init__(
        self,
        tests: Sequence[DriftTest],
        *,
        level: float,
        min_difference: float,
        auc: float,
        auc_interval: tuple[float, float],
        novelty_rate: float,
        contamination: float,
        class_shares: Sequence[ClassShare],
        most_novel: Sequence[NovelImage],
        n_reference: int,
        n_new: int,
        n_unreadable: int,
        notes: Sequence[str],
    ):
        super().__init__(tests)
        self.level = level
        self.min_difference = min_difference
        self.auc = auc
        self.auc_interval = auc_interval
        self.novelty_rate = novelty_rate
        self.contamination = contamination
        self.class_shares = tuple(class_shares)
        self.most_novel = tuple(most_novel)
        self.n_reference = n_reference
        self.n_new = n_new
        self.n_unreadable = n_unreadable
        self.notes = tuple(notes)
        self.is_drift = any(test.is_drift for test in tests)
        self.verdict = self._verdict()

    def html(self) -> str:
        """Return the report as a page, one self-contained text of HTML.

        Returns
        -------
        page : str

        Raises
        ------
        ImportError
            When jinja2 is not installed.
        """
        return render_page(
            "drift.html",
            needed_by="DriftReport.html",
            title="Drift" if self.is_drift else "No drift",
            kind="sktransfer drift report",
            report=self,
            tests=[_cells(test) for test in self],
            shares=[_share_cells(share) for share in self.class_shares],
        )

    def _verdict(self) -> str:
        found = [test for test in self if test.is_drift]
        small = sum(test.p_value <= self.level for test in self) - len(found)
        rule = (
            f"significant at level {self.level:g} with a difference of at least "
            f"{self.min_difference:g}"
        )
        if found:
            largest = sorted(found, key=lambda test: -test.effect)[:3]
            names = ", ".join(f"{_name(test)} ({test.effect:.2f})" for test in largest)
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            text = f"Drift: {len(found)} of {len(self)} tests are {rule}: {names}{more}"
        else:
            text = f"No drift: none of {len(self)} tests is {rule}"
        if small:
            text += f"; {small} with a smaller one"
        return text

    def _headline(self) -> str:
        low, high = self.auc_interval
        lines = [
            self.verdict,
            f"{self.n_new} new images, {self.n_reference} of reference; AUC {self.auc:.3f} "
            f"({low:.3f} to {high:.3f}); novel {self.novelty_rate:.1%}, expected "
            f"{self.contamination:.1%}; unreadable {self.n_unreadable}",
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def _name(test: DriftTest) -> str:
    return test.what if test.family in (test.what, "quality") else f"{test.family}: {test.what}"


def _cells(test: DriftTest) -> list[str]:
    return [
        test.family,
        test.what,
        _number(test.reference),
        _number(test.new),
        f"{test.effect:.3f}",
        _p_value(test.p_value),
        "drift" if test.is_drift else "-",
    ]


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _share_cells(share: ClassShare) -> list[str]:
    interval = "-"
    if share.low is not None and share.high is not None:
        interval = f"{share.low:.1%} to {share.high:.1%}"
    corrected = "-" if share.corrected is None else f"{share.corrected:.1%}"
    return [
        str(share.label),
        f"{share.reference:.1%}",
        f"{share.predicted:.1%}",
        corrected,
        interval,
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
