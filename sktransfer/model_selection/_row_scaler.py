"""Standardised rows, as the heads of fine-tuned networks standardise them."""

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ..training._probe import mean_and_scale


class RowScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Standardise rows, in 64 bits, and hardly varying columns by less than others.

    A column is divided by no less than 0.3 of the median deviation: what hardly varies in
    few images would be the largest number in others, and its rounding errors with it.

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (`n_features_in_`,)
    """

    def fit(self, X, y=None):
        """Learn mean and scale of each column."""
        X = validate_data(self, X, dtype=np.float64)
        self.mean_, self.scale_ = mean_and_scale(X, np.ones(len(X)))
        return self

    def transform(self, X):
        """Return the rows without their mean and divided by their scale."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return (X - self.mean_) / self.scale_
