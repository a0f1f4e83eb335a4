"""What a fitted estimator says: its rows' network, its predictions, its training images."""

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._base import ImageEstimator
from .._feature_transformer import PretrainedFeatureTransformer
from .._fine_tuning import FineTunedEstimator
from ..hygiene._reading import for_each
from ..images._decode import DecodeError


def transformer_for(estimator) -> PretrainedFeatureTransformer:
    """Return the transformer of the rows that an estimator reads, not fitted.

    The first step of a pipeline, or the frozen backbone of a fine-tuned estimator; else that
    of ``"mini"``.
    """
    part = unwrapped(estimator)
    if isinstance(part, Pipeline):
        part = part.steps[0][1]
    if isinstance(part, PretrainedFeatureTransformer):
        return clone(part)
    if isinstance(part, FineTunedEstimator):
        shared = ImageEstimator._parameter_constraints.keys()
        return PretrainedFeatureTransformer(**{name: getattr(part, name) for name in shared})
    return PretrainedFeatureTransformer("mini")


def unwrapped(estimator):
    """Return the fitted estimator of a search, and the only step of a pipeline."""
    part = getattr(estimator, "best_estimator_", estimator)
    while isinstance(part, Pipeline) and len(part.steps) == 1:
        part = part.steps[0][1]
    return part


def checked_estimator(estimator):
    """Return an estimator that is fitted and predicts classes or numbers, or raise."""
    check_is_fitted(estimator)
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"estimator is a {type(estimator).__name__} without predict_proba; pass a classifier "
            "that has it, such as CalibratedClassifierCV makes of this one"
        )
    if not is_classifier(estimator) and not is_regressor(estimator):
        raise TypeError(
            "estimator must be a fitted classifier with predict_proba or a regressor, got "
            f"{type(estimator).__name__}"
        )
    return estimator


def outputs_of(estimator, X) -> np.ndarray:
    """Return the predicted probabilities or numbers (n, n_outputs)."""
    if is_classifier(estimator):
        values = estimator.predict_proba(X)
        if isinstance(values, list) or not np.allclose(values.sum(axis=1), 1, atol=1e-3):
            raise ValueError(
                "estimator predicts several labels for an image, and shares of classes need one; "
                "fit a monitor for each label, or one without estimator"
            )
        return np.asarray(values, dtype=np.float64)
    return np.asarray(estimator.predict(X), dtype=np.float64).reshape(len(X), -1)


def n_trained_on(estimator, X) -> int | None:
    """Return how many images of `X` have the content of one that the estimator was fitted on.

    None where the estimator does not know on which images it was fitted.
    """
    part = unwrapped(estimator)
    digests = getattr(part, "_fitted_digests", None)
    if digests is None:
        return None
    known = {digest.tobytes() for digest in digests}
    images = part._validate_images(X, reset=False)
    found = for_each(images, range(len(images)), lambda image: image.digest(), part.n_jobs)
    return sum(not isinstance(one, DecodeError) and one in known for one in found)
