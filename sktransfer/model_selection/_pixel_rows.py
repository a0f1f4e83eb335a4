"""Small pixels as rows: what a network must be better than."""

from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._base import ImageEstimator, raise_failures
from ..exceptions import DecodeError, ImageFailure
from ..hygiene._reading import for_each
from ..images._collection import ImageReference


class PixelRows(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImageEstimator):
    """Resize images to a small square and flatten it, without a network.

    Nothing is stored: the images are decoded in each call.

    Parameters
    ----------
    side : int, default=32
        Of the square, in pixels.
    image_shape, pixel_range, n_jobs
        As in :class:`~sktransfer.PretrainedFeatureTransformer`.
    """

    _parameter_constraints: dict = {
        name: ImageEstimator._parameter_constraints[name]
        for name in ("image_shape", "pixel_range", "n_jobs")
    }

    def __init__(self, side=32, *, image_shape=None, pixel_range=None, n_jobs=None):
        self.side = side
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Check the images."""
        self._validate_images(X, reset=True)
        self.n_features_out_ = 3 * self.side**2
        return self

    def transform(self, X):
        """Return rows (n_images, 3 * side * side) from 0 to 1, float32."""
        check_is_fitted(self)
        images = self._validate_images(X, reset=False)
        rows = np.empty((len(images), self.n_features_out_), dtype=np.float32)
        failures = []
        found = for_each(images, range(len(images)), self._row, self.n_jobs)
        for position, row in enumerate(found):
            if isinstance(row, DecodeError):
                source = images[position].describe()
                failures.append(ImageFailure(position, source, str(row)))
            else:
                rows[position] = row
        raise_failures(failures, len(images))
        return rows

    def _row(self, image: ImageReference) -> np.ndarray[Any, Any]:
        small = Image.fromarray(image.read()).resize((self.side,) * 2, Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32).ravel() / 255

    def __sklearn_is_fitted__(self):
        return hasattr(self, "n_features_out_")  # what `fit` sets last

    @property
    def _n_features_out(self):
        return self.n_features_out_
