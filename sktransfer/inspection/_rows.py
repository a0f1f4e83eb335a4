"""The rows of images that an estimator has stored already, and a map of them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from .._base import ImageEstimator
from .._feature_transformer import PretrainedFeatureTransformer
from .._fine_tuning import FineTunedEstimator
from ..exceptions import UnreadableImageWarning
from ._predictions import Predictions

_MOST_FOR_TSNE = 2000  # images; it takes seconds for a thousand
_LEAST_FOR_TSNE = 20
_WIDTH_FOR_TSNE = 50  # principal components, as van der Maaten and Hinton have it
_PERPLEXITY = 30
_AT_ONCE = 256  # activations that are pooled
# bounds the log-odds of probabilities that are 0 or 1
_LEAST_PROBABILITY = 1e-3


@dataclass(frozen=True)
class Rows:
    """A row for each image, NaN for one that can't be read, and what the rows are."""

    values: np.ndarray
    name: str
    is_of_images: bool  # and not made of the predictions


@dataclass(frozen=True)
class RowMap:
    """Places (n_images, 2) of the images in the unit square, and how they were found."""

    places: np.ndarray
    method: str


def inside(estimator: Any, kind: type) -> Any:
    """Return the first estimator of a kind within another one, fitted where that is; or None."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if isinstance(estimator, kind):
        return estimator
    if isinstance(estimator, Pipeline):
        parts = [step for _, step in estimator.steps]
    else:
        parts = list(estimator.get_params(deep=True).values())
        for name in ("transformers_", "transformer_list", "estimators_", "estimator_"):
            found = getattr(estimator, name, [])
            parts = [*(found if isinstance(found, list) else [found]), *parts]
        # (name, transformer, columns), as ColumnTransformer and FeatureUnion have them
        parts = [part[1] if isinstance(part, tuple) and len(part) > 1 else part for part in parts]
    for part in parts:
        if hasattr(part, "get_params") and not isinstance(part, type):
            found = inside(part, kind)
            if found is not None:
                return found
    return None


def reader_of(estimator: Any) -> tuple[Any, Any]:
    """Return `image_shape` and `pixel_range` with which an estimator reads images."""
    network = None if estimator is None else inside(estimator, ImageEstimator)
    return (None, None) if network is None else (network.image_shape, network.pixel_range)


def rows_of(estimator: Any, images: Any, predictions: Predictions) -> Rows:
    """Return the rows that an estimator makes of images, which are stored by now.

    Those of a transformer are its own. Of fine-tuned networks of several folds, rows of the
    last stage can't be compared: theirs are the pooled activations at the cut, which are
    equal in all. Where neither is found, rows are the log-odds of the predictions.
    """
    model = predictions.models[0] if predictions.models else None
    transformer = None if model is None else inside(model, PretrainedFeatureTransformer)
    if transformer is not None:
        transformer = clone(transformer).set_params(on_error="nan")
        with warnings.catch_warnings():  # the prediction has warned of these
            warnings.simplefilter("ignore", UnreadableImageWarning)
            values = transformer.set_output(transform="default").fit_transform(images)
        return Rows(values, f"rows of {_short(transformer.backbone_spec_.name)}", True)
    network = None if model is None else inside(model, FineTunedEstimator)
    # a template that is not fitted has no depth yet
    if network is not None and getattr(network, "freeze_depth_", 0) > 0:
        name = _short(network.backbone_spec_.name)
        frozen = network.backbone_spec_.stages[: network.freeze_depth_]
        return Rows(
            _pooled_at_cut(network, images),
            f"activations of {name} after its frozen stages (the last is {frozen[-1]})",
            True,
        )
    probabilities = np.clip(predictions.probabilities, _LEAST_PROBABILITY, 1)
    return Rows(np.log(probabilities).astype(np.float32), "logarithms of the probabilities", False)


def _short(name: str) -> str:
    """Return the name of a backbone; of a file, without its folder."""
    return PurePath(name).name if name.endswith(".safetensors") else name


def _pooled_at_cut(network: Any, images: Any) -> np.ndarray:
    collection = network._validate_images(images, reset=False)
    extraction = network._extract_at_cut(collection)
    values, failed = extraction.values, [failure.position for failure in extraction.failures]
    if network._plan.pooling is None:
        backbone = network._backbone
        pool = backbone.pool(backbone.structure.layout.head, network.freeze_depth_)
        with torch.inference_mode():
            parts = [
                pool(torch.from_numpy(np.asarray(values[start : start + _AT_ONCE]))).numpy()
                for start in range(0, len(values), _AT_ONCE)
            ]
        values = np.concatenate(parts)
    values = np.array(values, dtype=np.float32)
    values[failed] = np.nan
    return values


def map_of(rows: np.ndarray, method: str) -> RowMap:
    """Return places of rows in two dimensions; NaN for rows of NaN.

    Parameters
    ----------
    rows : ndarray of shape (n_images, n_features)
    method : {"auto", "pca", "tsne"}
    """
    read = np.flatnonzero(np.isfinite(rows).all(axis=1))
    n = len(read)
    places = np.full((len(rows), 2), np.nan)
    if method == "auto":
        method = "tsne" if _LEAST_FOR_TSNE <= n <= _MOST_FOR_TSNE else "pca"
    if n < 3:
        return RowMap(places, method)
    with sklearn.config_context(transform_output="default"):  # arrays, whatever the user chose
        places[read] = _places(rows[read], method)
    return RowMap(places, method)


def _places(rows: np.ndarray, method: str) -> np.ndarray:
    n = len(rows)
    # doubles: the signs of components should not depend on rounding
    scaled = StandardScaler().fit_transform(rows.astype(np.float64))
    if not scaled.any():  # all rows are equal
        return np.full((n, 2), 0.5)
    n_components = min(2 if method == "pca" else _WIDTH_FOR_TSNE, *scaled.shape)
    found = PCA(n_components, random_state=0).fit_transform(scaled)
    if method == "tsne":
        perplexity = min(_PERPLEXITY, (n - 1) / 3)
        # the layout is started from the first components: repeatable, and far less by chance
        start = np.zeros((n, 2))
        start[:, : found.shape[1]] = found[:, :2]
        start *= 1e-4 / max(start[:, 0].std(), np.finfo(np.float64).tiny)
        found = TSNE(init=start, perplexity=perplexity, random_state=0).fit_transform(found)
    elif found.shape[1] < 2:
        found = np.column_stack([found, np.zeros(n)])
    low, high = found.min(axis=0), found.max(axis=0)
    return (found - low) / np.maximum(high - low, np.finfo(np.float64).tiny)


def centred_unit_rows(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that gives rows of length 1 at positions, their mean taken off.

    The cosine of such rows says the same for each network: those of unlike images are
    about 0, and of two that look alike near 1.
    """
    centred = rows - np.nanmean(rows, axis=0)

    def rows_at(positions: np.ndarray) -> np.ndarray:
        some = np.nan_to_num(centred[positions])
        lengths = np.linalg.norm(some, axis=1, keepdims=True)
        return some / np.maximum(lengths, np.finfo(np.float32).tiny)

    return rows_at
