"""Displays of searches and estimators, and a report on what a classifier gets wrong."""

from ._depth_curve_display import DepthCurveDisplay
from ._error_report import ErrorReport
from ._label_curve_display import LabelCurveDisplay
from ._model_card import model_card
from ._strategy_display import StrategyDisplay
from ._training_curve_display import TrainingCurveDisplay

__all__ = [
    "DepthCurveDisplay",
    "ErrorReport",
    "LabelCurveDisplay",
    "StrategyDisplay",
    "TrainingCurveDisplay",
    "model_card",
]
