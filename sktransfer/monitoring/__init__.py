"""Whether images differ from those of a reference, and which of them to label."""

from ._drift_curve_display import DriftCurveDisplay
from ._drift_monitor import DriftMonitor
from ._drift_report import ClassShare, DriftReport, DriftTest, NovelImage
from ._novelty_detector import NoveltyDetector
from ._select import select_to_label

__all__ = [
    "ClassShare",
    "DriftCurveDisplay",
    "DriftMonitor",
    "DriftReport",
    "DriftTest",
    "NovelImage",
    "NoveltyDetector",
    "select_to_label",
]
