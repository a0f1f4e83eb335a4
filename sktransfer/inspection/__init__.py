"""Displays of fitted searches and estimators."""

from ._depth_curve_display import DepthCurveDisplay
from ._training_curve_display import TrainingCurveDisplay

__all__ = ["DepthCurveDisplay", "TrainingCurveDisplay"]
