"""What the parameters that are "auto" become in a fit."""

import numpy as np
from sklearn.base import is_classifier

from .backbones._registry import load_backbone
from .extraction._extract import compacted
from .images._augment import MIRRORED, AugmentedView
from .training._mirroring import is_harmless
from .training._recipe import RECIPES, filled_in, is_augmented, is_auto

# Stored views are the same in all fits, so that folds and candidates share them.
SEED_OF_KEPT_VIEWS = 0


def recipe_of(estimator, augment):
    """Return the values that a fit uses of the parameters that may be "auto".

    `augment` is that of the fit, "auto" resolved.
    """
    depth, n_stages = estimator.freeze_depth_, len(estimator._backbone.stages)
    names = (
        "augment_views",
        "dropout",
        "label_smoothing",
        "max_grad_norm",
        "probe_weight",
        "tta",
    )
    given = {name: getattr(estimator, name) for name in names if hasattr(estimator, name)}
    if is_auto(estimator.dropout) and (callable(estimator.head) or not is_classifier(estimator)):
        given["dropout"] = 0.0  # what a callable makes is the user's; numbers gain nothing
    if is_auto(estimator.probe_weight) and not (
        estimator.head == "linear" and is_classifier(estimator)
    ):
        given["probe_weight"] = 0.0  # without a linear model to start from; measured for classes
    values = filled_in(given, RECIPES[estimator.recipe], depth, n_stages, augment)
    return {"freeze_depth": depth, "augment": augment, **values}


def may_be_augmented(estimator):
    """Return whether images are changed at random, as far as the parameters tell."""
    if not is_auto(estimator.augment):
        return estimator.augment is not None
    # a crop at another scale changes what many numbers measure: sizes, counts, distances
    n_stages = len(estimator._backbone.stages)
    recipe = RECIPES[estimator.recipe]
    return is_classifier(estimator) and is_augmented(recipe, estimator.freeze_depth_, n_stages)


def augmentation_of(estimator, images, y, weights):
    """Return how a first fit changes its images: `augment`, "auto" resolved."""
    if not is_auto(estimator.augment):
        return estimator.augment
    if not may_be_augmented(estimator):
        return None
    return "light" if _may_be_mirrored(estimator, images, y, weights) else "crop"


def _may_be_mirrored(estimator, images, y, weights):
    """Return whether mirrored images have the targets of the images themselves.

    Two forward passes of each image through the whole network; both are stored.
    """
    backbone = load_backbone(estimator.backbone, estimator.backbone_params, estimator.weights)
    n_stages, pooling = len(backbone.stages), backbone.pooling("auto")
    plan = estimator._fitted_plan(backbone, estimator._plan.input, [n_stages], pooling)
    views = (None, AugmentedView(MIRRORED, 0, SEED_OF_KEPT_VIEWS))
    plain, mirrored = (estimator._extract(images, backbone, plan, view=view) for view in views)
    failed = {failure.position for part in (plain, mirrored) for failure in part.failures}
    good = np.setdiff1d(np.arange(len(images)), sorted(failed))
    if not len(good) or (failed and estimator.on_error == "raise"):
        return False  # `fit` raises when it reads them
    targets = estimator._fit_targets(y[good], weights[good])
    rows, mirrored_rows = (compacted(part.values, good) for part in (plain, mirrored))
    return is_harmless(rows, mirrored_rows, targets.encode(y[good]), weights[good], targets)
