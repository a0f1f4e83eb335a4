"""The base of all estimators: from the user's parameters and ``X`` to rows."""

import numbers
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from ._callbacks import CallbackSupportMixin, FitTasks, without_callbacks
from ._documentation_link import DocumentationLinkMixin
from ._spec import FittedPlan, InputSpec
from ._stage_diagram import StageDiagramMixin
from ._stage_table import StageTable
from .backbones._backbone import Backbone
from .backbones._registry import load_backbone, reload_backbone
from .exceptions import (
    ImageFailure,
    ImageReadError,
    InconsistentVersionWarning,
    UnreadableImageWarning,
)
from .extraction._extract import Extraction, extract
from .extraction._feature_extractor import ExtractionPlan
from .extraction._precision import PRECISIONS, resolve_precision
from .images._augment import AugmentedView
from .images._collection import ImageCollection, PixelRange, as_images, row_shape, value_range
from .images._colour import checked_range
from .runtime._device import resolve_device
from .store._store import open_store

_KEY = "_versions"
# The packages that a fitted state depends on. Only another version of sktransfer is a reason
# for the warning; the warning names the others where they differ too.
_PACKAGES = ("sktransfer", "scikit-learn", "skorch", "torch", "torchvision")


def with_versions(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an estimator and the versions that it was saved with."""
    return {**state, _KEY: installed_versions()}


def without_versions(state: Mapping[str, Any], estimator: str) -> dict[str, Any]:
    """Return the state alone; warn where another version of sktransfer saved it."""
    state = dict(state)
    saved, installed = state.pop(_KEY, {}), installed_versions()
    if saved.get("sktransfer") != installed["sktransfer"]:
        warnings.warn(InconsistentVersionWarning(estimator, saved, installed), stacklevel=3)
    return state


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that a fitted state depends on."""
    return dict(_installed())


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    return tuple((package, version(package)) for package in _PACKAGES)


# The smallest side that every supported network can halve five times.
_SMALLEST_IMAGE_SIZE = 32


class ImageEstimator(
    StageDiagramMixin, DocumentationLinkMixin, CallbackSupportMixin, BaseEstimator
):
    """Base of the public estimators, with the parameters that mean the same in all."""

    _parameter_constraints: dict = {
        "backbone": [str, os.PathLike],
        "backbone_params": [dict, None],
        "weights": [str, os.PathLike, None],
        "image_size": [Interval(numbers.Integral, _SMALLEST_IMAGE_SIZE, None, closed="left"), None],
        "image_shape": ["array-like", None],
        "pixel_range": [StrOptions({"fit"}), tuple, list, None],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "n_jobs": [
            Interval(numbers.Integral, 1, None, closed="left"),
            Interval(numbers.Integral, None, -1, closed="right"),
            None,
        ],
        "feature_cache": [str, os.PathLike, list, tuple, None],
        "verbose": [Interval(numbers.Integral, -1, None, closed="left"), "boolean"],
    }

    # what `fit` learns under names that are not public
    _learned: tuple[str, ...] = ("_pixel_range", "_plan")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        takes_rows = self.image_shape is not None
        tags.input_tags.two_d_array = takes_rows
        # Paths are taken in any case. For scikit-learn's checks the tag means columns only.
        tags.input_tags.one_d_array = not takes_rows
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.input_tags.dict = True
        return tags

    # pickle, joblib and skops call these two
    def __getstate__(self):
        state = super().__getstate__()
        return with_versions(without_callbacks(state, is_fitted=self.__sklearn_is_fitted__()))

    def __setstate__(self, state):
        state = without_versions(state, type(self).__name__)
        if "stages_" in state:  # skops restores all subclasses of tuple as tuple
            state["stages_"] = StageTable(state["stages_"])
        super().__setstate__(state)

    def _load_backbone(self) -> tuple[Backbone, InputSpec]:
        backbone = load_backbone(self.backbone, self.backbone_params, self.weights)
        return backbone, backbone.spec.input.at(self.image_size)

    def _reloaded_backbone(self) -> Backbone:
        """Return the backbone that the estimator was fitted with, from where its weights are."""
        return reload_backbone(
            self.backbone_spec_, (self.backbone, self.backbone_params, self.weights)
        )

    def _validate_images(self, X, *, reset: bool) -> ImageCollection:
        """Return the images of `X`; with `reset`, learn what `fit` learns of them."""
        if reset:
            self._forget()
        if self._is_rows_of_numbers(X):
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype="numeric",
                ensure_min_features=1,
                ensure_all_finite="allow-nan" if get_tags(self).input_tags.allow_nan else True,
            )
            X = X.reshape(len(X), *row_shape(X.shape[1], tuple(self.image_shape)))
        elif hasattr(X, "columns"):
            validate_data(self, X, reset=reset, skip_check_array=True)
        if reset:
            self._pixel_range = self._resolve_pixel_range(X)
        images = as_images(X, image_shape=self.image_shape, pixel_range=self._pixel_range)
        if len(images) == 0:
            raise ValueError(
                f"X holds no images: {type(self).__name__} needs at least one (0 sample(s))"
            )
        return images

    def _forget(self) -> None:
        """Delete what an earlier fit learned.

        If this fit fails or is interrupted, the estimator is not fitted, and has no state
        of two fits.
        """
        for name in [name for name in vars(self) if name.endswith("_") or name in self._learned]:
            delattr(self, name)

    def _is_rows_of_numbers(self, X) -> bool:
        """Return whether `X` holds rows of flattened images, and not images."""
        if self.image_shape is None:
            return False
        if issparse(X):  # some sparse containers are dicts; scikit-learn's check refuses them
            return True
        if isinstance(X, (torch.Tensor, Image.Image, str, bytes, os.PathLike, dict)):
            return False
        if isinstance(X, np.ndarray):
            return X.ndim < 3 and not _is_image(X.flat[0] if X.size else None)
        if hasattr(X, "columns"):
            return not any(_is_image(value) for value in X[X.columns[0]][:1])
        if isinstance(X, (list, tuple)):
            return not (X and _is_image(X[0]))
        return not hasattr(X, "to_numpy")  # a Series has cells; other array-likes have rows

    def _resolve_pixel_range(self, X) -> PixelRange | None:
        if self.pixel_range is None:
            return None
        if isinstance(self.pixel_range, str):
            return value_range(as_images(X, image_shape=self.image_shape))
        return checked_range(self.pixel_range, "None, 'fit'")

    def _fitted_plan(
        self, backbone: Backbone, input_spec: InputSpec, depths: Sequence[int], pooling: str | None
    ) -> FittedPlan:
        """Return the plan of this fit for the frozen stages."""
        return FittedPlan(
            backbone=backbone.spec,
            input=input_spec,
            depths=tuple(depths),
            pooling=pooling,
            precision=resolve_precision(
                self.precision,
                resolve_device(self.device),
                backbone,
                input_spec.size,
                lambda: open_store(self.feature_cache),
            ),
        )

    def _extract(
        self,
        images: ImageCollection,
        backbone: Backbone,
        plan: FittedPlan,
        batch_size: int | None = None,
        view: AugmentedView | None = None,
        keep: bool = True,
        tasks: FitTasks | None = None,
    ) -> Extraction:
        """Return the rows of all images, and the failures.

        If `keep` is false, the store is neither read nor written. `tasks` are those of a fit
        whose callbacks are told.
        """
        with nullcontext() if tasks is None else tasks.images(len(images)) as on_done:
            return extract(
                images,
                ExtractionPlan(backbone, plan, resolve_device(self.device), view),
                open_store(self.feature_cache) if keep else None,
                batch_size=batch_size,
                n_jobs=self.n_jobs,
                verbose=self.verbose,
                on_done=on_done,
            )


def raise_failures(failures: list[ImageFailure], n_images: int) -> None:
    """Raise the error that lists all images that can't be read, if there are any."""
    if failures:
        raise ImageReadError(failures, n_images)


def warn_of_failures(
    failures: list[ImageFailure], n_images: int, what_becomes_of_them: str
) -> None:
    """Warn once of all images that can't be read, if there are any."""
    if failures:
        error = ImageReadError(failures, n_images)
        warnings.warn(f"{what_becomes_of_them}: {error}", UnreadableImageWarning, stacklevel=5)


def _is_image(value) -> bool:
    """Return whether a cell is an image, and not a number or a row of numbers."""
    if isinstance(value, (str, bytes, os.PathLike, Image.Image, dict, torch.Tensor)):
        return True
    return isinstance(value, np.ndarray) and value.ndim >= 2
