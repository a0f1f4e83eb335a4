"""Transfer learning on images as scikit-learn estimators."""

from importlib.metadata import version

from .runtime import _openmp  # noqa: F401  imports torch, which nothing may do before it

# isort: split
from . import domain_adaptation, hygiene, inspection, jobs, model_selection, monitoring
from ._feature_transformer import PretrainedFeatureTransformer
from ._fine_tuned_classifier import FineTunedClassifier
from ._fine_tuned_regressor import FineTunedRegressor
from ._fine_tuned_transformer import FineTunedTransformer
from ._spec import InputSpec
from ._zero_shot_classifier import ZeroShotClassifier
from .backbones._catalogue import backbone_info, list_backbones
from .backbones._registration import register_backbone
from .images._folder import load_image_folder
from .images._reading import read_image
from .inspection import DepthCurveDisplay, TrainingCurveDisplay
from .runtime._progress import count_forward_passes, count_passes
from .runtime._search_progress import search_progress
from .store._store import clear_feature_cache, feature_cache_info

__version__ = version("sktransfer")

__all__ = [
    "DepthCurveDisplay",
    "FineTunedClassifier",
    "FineTunedRegressor",
    "FineTunedTransformer",
    "InputSpec",
    "PretrainedFeatureTransformer",
    "TrainingCurveDisplay",
    "ZeroShotClassifier",
    "backbone_info",
    "clear_feature_cache",
    "count_forward_passes",
    "count_passes",
    "domain_adaptation",
    "feature_cache_info",
    "hygiene",
    "inspection",
    "jobs",
    "list_backbones",
    "load_image_folder",
    "model_selection",
    "monitoring",
    "read_image",
    "register_backbone",
    "search_progress",
]
