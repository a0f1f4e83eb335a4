"""Domain adaptation: from labelled images of one kind to unlabelled images of another."""

from ._images_from_ids import ImagesFromIds
from ._pseudo_label_classifier import PseudoLabelClassifier
from ._recalibrate import RecalibratedNorm, Recalibration, recalibrate_backbone

__all__ = [
    "ImagesFromIds",
    "PseudoLabelClassifier",
    "RecalibratedNorm",
    "Recalibration",
    "recalibrate_backbone",
]
