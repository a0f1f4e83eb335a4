"""What is known of the images of a sample: rows, predictions and quality, each read once."""

from dataclasses import dataclass, field

import numpy as np
from sklearn.utils import _safe_indexing

from ..images._collection import ImageCollection
from ._image_quality import quality_of
from ._outputs import outputs_of


@dataclass
class Sample:
    """What is known of the images that could be read.

    Attributes
    ----------
    rows : ndarray of shape (n, n_features)
    outputs : ndarray of shape (n, n_outputs) or None
        Probabilities of the classes, or predicted numbers; None without an estimator.
    positions : ndarray of shape (n,)
        Where they are in ``X``.
    n_given : int
        Images of ``X``.
    quality : ndarray of shape (n, n_measures) or None
        None where ``X`` holds rows.
    images : ImageCollection or None
    labels : ndarray of shape (n,) or None
        Columns of `outputs`.
    """

    rows: np.ndarray
    outputs: np.ndarray | None
    positions: np.ndarray
    n_given: int
    quality: np.ndarray | None = None
    images: ImageCollection | None = field(default=None, repr=False)
    labels: np.ndarray | None = None

    @property
    def n_unreadable(self) -> int:
        return self.n_given - len(self.rows)


def read_images(X, transformer, estimator, n_jobs: int | None) -> Sample:
    """Return what is known of images; those that can't be read are left out and counted."""
    images = transformer._validate_images(X, reset=False)
    rows = transformer.transform(X)
    quality = quality_of(images, n_jobs)
    readable = np.flatnonzero(np.isfinite(rows).all(axis=1) & np.isfinite(quality).all(axis=1))
    if not len(readable):
        raise ValueError(f"none of the {len(rows)} images of X can be read")
    if len(readable) < len(rows):
        X, rows = _taken(X, readable), rows[readable]
    outputs = None if estimator is None else outputs_of(estimator, X)
    return Sample(rows, outputs, readable, len(images), quality[readable], images)


def read_rows(rows: np.ndarray, X, estimator) -> Sample:
    """Return what is known of rows; `X` are the same as the estimator takes them."""
    outputs = None if estimator is None else outputs_of(estimator, X)
    return Sample(rows, outputs, np.arange(len(rows)), len(rows))


def columns_of(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the column of the probabilities of each label."""
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"y has the labels {unknown.tolist()}, and the estimator only has "
            f"{classes.tolist()}; leave these images out of the reference"
        )
    return np.searchsorted(classes, labels)


def _taken(X, positions: np.ndarray):
    if hasattr(X, "to_pylist"):  # Arrow, which not every scikit-learn slices
        X = (X.column(0) if hasattr(X, "column_names") else X).to_pylist()
    return _safe_indexing(X, positions)
