"""The first step of a pipeline for tools that take nothing but numbers as ``X``."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from .._documentation_link import DocumentationLinkMixin


class ImagesFromIds(TransformerMixin, DocumentationLinkMixin, BaseEstimator):
    """Turn ids into the images that have these positions.

    skada's splitters and scorers take arrays of numbers. They take ids,
    ``numpy.arange(len(images)).reshape(-1, 1)``, and this first step of a pipeline hands the
    images to the next one. Nothing is learned, and no image is read.

    Parameters
    ----------
    images : sequence of images
        What the next step takes: a list, tuple, array, Series or one-column DataFrame of
        paths, of other images, or a stack of arrays. `clone` copies it, once for each fold
        and candidate of a search: paths are better than pixels.

    Attributes
    ----------
    n_features_in_ : int
        1.

    See Also
    --------
    sktransfer.PretrainedFeatureTransformer : Rows of features of these images.
    sktransfer.FineTunedClassifier : Adapts to the images of a target domain, with `adapt`.

    Notes
    -----
    What a scorer computes on ``X`` itself is computed on ids. `ImportanceWeightedScorer`
    needs a `weight_estimator` that starts with this step and ends with densities of rows.
    `DeepEmbeddedValidation` takes the output of the last transformer, which must be rows; behind
    a `FineTunedClassifier` it needs a `domain_classifier` that takes images. `MixValScorer` mixes
    rows of ``X``, which has no meaning for ids, and is an error.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.domain_adaptation import ImagesFromIds
    >>> paths = np.array(["a.png", "b.png", "c.png"], dtype=object)
    >>> ImagesFromIds(paths).fit_transform([[2], [0]])
    array(['c.png', 'a.png'], dtype=object)
    """

    _parameter_constraints: dict = {"images": ["array-like"]}

    def __init__(self, images):
        self.images = images

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the ids.

        Parameters
        ----------
        X : array-like of int, of shape (n_images, 1) or (n_images,)
            Positions among `images`, from 0.
        y : object, default=None
            Ignored, as scikit-learn's API has it.

        Returns
        -------
        self : ImagesFromIds
            The step, as it was.

        Raises
        ------
        TypeError
            When the ids are not of an integer type.
        ValueError
            When they have more than one column, or one of them is out of range.
        """
        self._positions(X)
        self.n_features_in_ = 1
        return self

    def transform(self, X):
        """Return the images with these ids.

        Parameters
        ----------
        X : array-like of int, of shape (n_images, 1) or (n_images,)
            Positions among `images`, from 0.

        Returns
        -------
        images : ndarray of shape (n_images,) or (n_images, ...)
            Objects such as paths; where `images` is an array, of its type.

        Raises
        ------
        TypeError, ValueError
            As in `fit`.
        """
        positions = self._positions(X)
        if isinstance(self.images, np.ndarray):
            return self.images[positions]
        cells = self.images
        if getattr(cells, "ndim", 1) == 2 and hasattr(cells, "iloc"):
            if cells.shape[1] != 1:
                raise ValueError(
                    f"images has {cells.shape[1]} columns, and images are in one; pass the column, "
                    "or images.to_numpy() for rows of pixels"
                )
            cells = cells.iloc[:, 0]
        chosen = np.empty(len(positions), dtype=object)
        for i, cell in enumerate(_safe_indexing(cells, positions)):
            chosen[i] = cell
        return chosen

    def _positions(self, X):
        ids = X.to_numpy() if hasattr(X, "to_numpy") else np.asarray(X)
        if ids.ndim not in (1, 2) or ids.shape[1:] not in ((), (1,)):
            raise ValueError(
                f"ids must have one column, got the shape {ids.shape}; pass "
                "numpy.arange(len(images)).reshape(-1, 1), or some of its rows"
            )
        ids = ids.reshape(-1)
        if ids.dtype.kind not in "iu":
            raise TypeError(
                f"ids must be of an integer type, got {ids.dtype}. A step or scorer that computes "
                "with rows of X, as skada's MixValScorer mixes them, can't work on ids: use another"
            )
        n = _num_samples(self.images)
        is_bad = (ids < 0) | (ids >= n)
        if is_bad.any():
            position = is_bad.argmax()
            raise ValueError(
                f"ids must be from 0 to {n - 1}, as there are {n} images, got {ids[position]} at "
                f"position {position}"
            )
        return ids

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True
        return tags
