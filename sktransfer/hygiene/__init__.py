"""What is wrong with a set of images: bad files, duplicates, and what leaks over folds."""

from ._checks import ImageCheck, ImageChecks, check_images
from ._duplicates import Duplicates, DuplicateSet, near_duplicates
from ._groups import DuplicateGroups
from ._label_issues import LabelIssue, LabelIssues, label_issues
from ._leakage import FoldLeakage, LeakageReport, leakage_report

__all__ = [
    "DuplicateGroups",
    "DuplicateSet",
    "Duplicates",
    "FoldLeakage",
    "ImageCheck",
    "ImageChecks",
    "LabelIssue",
    "LabelIssues",
    "LeakageReport",
    "check_images",
    "label_issues",
    "leakage_report",
    "near_duplicates",
]
