"""Where a network looked: the evidence for the predicted class at each place of an image.

The map is the activation of the last stage times the gradient of the difference of two
classes' outputs, summed over channels (HiResCAM: R. Draelos, L. Carin, arXiv 2011.08891). Where
the last activation is averaged and a linear head follows, it is exact: the places sum up to the
difference (class activation mapping: B. Zhou et al., arXiv 1512.04150).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import nn

from .._base import ImageEstimator
from .._feature_transformer import PretrainedFeatureTransformer
from .._fine_tuning import FineTunedEstimator
from .._spec import InputSpec
from ..backbones._backbone import Backbone
from ..images._preprocess import resized_shape
from ._predictions import Predictions

_TOLERANCE = 1e-3  # of outputs, relative to their spread, by which a head counts as linear


@dataclass(frozen=True)
class ActivationMap:
    """Evidence for the predicted class and against another one, by place.

    Attributes
    ----------
    values : ndarray of shape (height, width)
        Positive where the place speaks for the prediction.
    other : int
        Position of the class that the prediction is compared with: the label, or the second
        most probable class where the prediction is right.
    input : InputSpec
        The part of the image that the network saw.
    """

    values: np.ndarray
    other: int
    input: InputSpec

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, top, width and height of the part that was seen, as shares of 1."""
        rows, columns = resized_shape(height, width, self.input)
        seen = min(1.0, self.input.size / columns), min(1.0, self.input.size / rows)
        return (1 - seen[0]) / 2, (1 - seen[1]) / 2, *seen


class NoMaps(Exception):
    """Raised where an estimator has no map; the message says why."""


def is_free(predictions: Predictions) -> bool:
    """Tell whether maps need no image to pass a frozen network once more."""
    if not predictions.models:
        return False
    model = getattr(predictions.models[0], "best_estimator_", predictions.models[0])
    return (
        isinstance(model, FineTunedEstimator)
        and model.freeze_depth_ < len(model.backbone_spec_.stages)
        and model.feature_cache is not None
    )


def activation_maps(
    predictions: Predictions, images: Any, positions: Sequence[int]
) -> dict[int, ActivationMap]:
    """Return the maps of some images by their positions.

    Raises
    ------
    NoMaps
        Where the last activation has no places, or the head is not known to be linear.
    """
    if not predictions.models:
        raise NoMaps("no estimator was given")
    maps = {}
    for position in positions:
        model = predictions.model_of(position)
        model = getattr(model, "best_estimator_", model)
        predicted = int(predictions.predicted[position])
        other = int(predictions.labels[position])
        if other == predicted:
            other = int(np.argsort(predictions.probabilities[position])[-2])
        columns = [int(np.flatnonzero(model.classes_ == predictions.classes[k])[0])
                   for k in (predicted, other)
                   if predictions.classes[k] in model.classes_]  # fmt: skip
        if isinstance(model, FineTunedEstimator):
            values = _of_fine_tuned(model, images, position, columns)
        elif isinstance(model, Pipeline) and isinstance(
            model.steps[0][1], PretrainedFeatureTransformer
        ):
            values = _of_pipeline(model, images, position, columns)
        else:
            raise NoMaps(
                f"{type(model).__name__} is neither a FineTunedClassifier nor a pipeline of a "
                "PretrainedFeatureTransformer and a linear model"
            )
        network = model.steps[0][1] if isinstance(model, Pipeline) else model
        maps[position] = ActivationMap(values, other, network._plan.input)
    return maps


def _of_fine_tuned(
    model: FineTunedEstimator, images: Any, position: int, columns: list[int]
) -> np.ndarray:
    """Return the map of the image as it is, of the trained network and of the probe."""
    collection = model._validate_images(images, reset=False)
    backbone, part = model._backbone, model.net_.module_
    if isinstance(part.stages, nn.Identity):
        activation = _last_activation(model, backbone, collection, position)
    else:
        activation = model._extract_at_cut(collection.take([position])).values
    networks = [(1 - part.probe_weight, part.stages, part.head)]
    if part.probe is not None:
        networks.append((part.probe_weight, *part.probe.children()))
    values = 0.0
    for weight, stages, head in networks:
        before, pool = _without_pool(stages, backbone)

        def difference(row: torch.Tensor, head: nn.Module = head) -> torch.Tensor:
            outputs = head(row)[0]
            return outputs[columns[0]] - sum(outputs[k] for k in columns[1:])

        values = values + weight * _map(activation, before, pool, difference)
    return np.asarray(values)


def _without_pool(stages: nn.Module, backbone: Backbone) -> tuple[nn.Module | None, nn.Module]:
    """Return trained stages, and what makes a row of their last activation."""
    if isinstance(stages, nn.Identity):
        return None, backbone.pool(backbone.pooling("auto"), len(backbone.stages))
    *first, last = stages.children()
    if backbone.pre_logits is None:
        return nn.Sequential(*first), last
    stage, pool = last.children()
    return nn.Sequential(*first, stage), pool


def _of_pipeline(model: Pipeline, images: Any, position: int, columns: list[int]) -> np.ndarray:
    transformer = model.steps[0][1]
    if isinstance(transformer.depth_, tuple):
        raise NoMaps("rows of several depths are side by side; use one depth")
    weights = _linear_weights(model, images, position)
    weight = weights[columns[0]] - sum(weights[k] for k in columns[1:])
    backbone = transformer._reloaded_backbone()
    collection = transformer._validate_images(images, reset=False)
    activation = _last_activation(transformer, backbone, collection, position)
    pool = backbone.pool(transformer.pooling_, transformer.depth_)
    vector = torch.from_numpy(np.asarray(weight, dtype=np.float64))
    return _map(activation, None, pool, lambda row: row[0].double() @ vector)


def _last_activation(
    network: ImageEstimator, backbone: Backbone, collection: Any, position: int
) -> np.ndarray:
    """Return the last activation before it is pooled; the image passes the network."""
    plan = replace(network._plan, pooling=None)
    return network._extract(collection.take([position]), backbone, plan, keep=False).values


def _linear_weights(model: Pipeline, images: Any, position: int) -> np.ndarray:
    """Return the weights (n_classes, n_features) of all that follows the rows.

    Scalers, projections and linear models are one linear map together. It is read off its
    values, and whether it is linear is seen at the row of the image.
    """
    later = model[1:]
    if not hasattr(later, "decision_function"):
        raise NoMaps(f"{type(later.steps[-1][1]).__name__} has no decision_function")
    n_features = model.steps[0][1].n_features_out_
    rng = np.random.default_rng(0)
    probe = np.concatenate(
        [np.zeros((1, n_features)), np.eye(n_features), rng.normal(size=(3, n_features))]
    )
    with warnings.catch_warnings():  # where the rows were a frame; the order is the same
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        values = np.asarray(later.decision_function(probe), dtype=np.float64)
    if values.ndim == 1:
        values = np.column_stack([np.zeros(len(values)), values])
    weights = (values[1 : n_features + 1] - values[0]).T
    expected = values[0] + probe[n_features + 1 :] @ weights.T
    error = np.abs(values[n_features + 1 :] - expected).max()
    if error > _TOLERANCE * np.abs(expected - values[0]).max():
        raise NoMaps("the steps after the rows are not linear")
    return weights


def _map(
    activation: np.ndarray,
    before: nn.Module | None,
    pool: nn.Module,
    difference: Callable[[torch.Tensor], torch.Tensor],
) -> np.ndarray:
    x = torch.from_numpy(np.array(activation))
    if before is not None:
        with torch.no_grad():
            x = before(x)
    x = x.detach().clone().requires_grad_(True)
    if x.ndim not in (3, 4):
        raise NoMaps("the last activation has no places")
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(difference(pool(x)), x)
    product = (x.detach() * gradient)[0]
    if product.ndim == 3:
        return product.sum(0).double().numpy()
    n_prefix = getattr(pool, "n_prefix_tokens", 0)
    places = product[n_prefix:].sum(1).double().numpy()
    side = round(len(places) ** 0.5)
    if getattr(pool, "pooling", None) == "cls" or side * side != len(places):
        raise NoMaps("the head reads a class token, which has no place")
    return places.reshape(side, side)
