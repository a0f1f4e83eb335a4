"""What is wrong with a set of images: bad files, duplicates, and what leaks over folds."""

from ._checks import ImageCheck, ImageChecks, check_images
from ._duplicates import Duplicates, DuplicateSet, near_duplicates
from ._groups import DuplicateGroups
from ._leakage import FoldLeakage, LeakageReport, leakage_report

__all__ = [
    "DuplicateGroups",
    "DuplicateSet",
    "Duplicates",
    "FoldLeakage",
    "ImageCheck",
    "ImageChecks",
    "LeakageReport",
    "check_images",
    "leakage_report",
    "near_duplicates",
]
