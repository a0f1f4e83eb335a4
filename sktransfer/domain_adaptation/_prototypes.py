"""The default classifier of pseudo-labels: nearest class mean in the discriminant space."""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.covariance import shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

# Share of the covariance that is that of uncorrelated columns of equal deviation. From 0.2 to
# 0.4 the accuracies of benchmarks/bench_adaptation.py differ by less than a seed's do.
_SHRINKAGE = 0.3
# Rows of length 1 forget how far from the middle a row lies. With few columns a class may lie
# there; then they are told apart worse than this much, and keep their length.
_TOLERATED_LOSS = 0.05
_ROUNDING = 1e-12  # variance within classes of one row, as a share of that of all rows


class _ShrunkCovariance(BaseEstimator):
    """What `LinearDiscriminantAnalysis` computes with a number as `shrinkage`.

    It would warn of a class of one row. The covariance that it uses is the mean over classes,
    to which such a class adds nothing.
    """

    def __init__(self, shrinkage):
        self.shrinkage = shrinkage

    def fit(self, X):
        self.covariance_ = shrunk_covariance(np.atleast_2d(np.cov(X.T, bias=True)), self.shrinkage)
        return self


class DiscriminantPrototypes(ClassifierMixin, BaseEstimator):
    """Classify by the nearest class mean in the space of a linear discriminant analysis.

    With three classes or more, rows of that space are scaled to length 1. The probabilities
    are those of normal classes of one variance around their means.

    Parameters
    ----------
    shrinkage : float, default=0.3
        Of the covariance within classes, from 0 to 1. Where each class has one row there is
        none, and the space is that of the rows.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    prototypes_ : ndarray of shape (n_classes, n_discriminants)
    """

    def __init__(self, shrinkage=_SHRINKAGE):
        self.shrinkage = shrinkage

    def fit(self, X, y):
        """Learn the discriminant space and the class means.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        y : ndarray of shape (n_samples,)
            Labels of two classes at least.

        Returns
        -------
        self : DiscriminantPrototypes
        """
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._analysis = None
        if any(np.ptp(X[labels == k], axis=0).any() for k in range(len(self.classes_))):
            self._analysis = LinearDiscriminantAnalysis(
                solver="eigen", covariance_estimator=_ShrunkCovariance(self.shrinkage)
            ).fit(X, labels)
        Z = self._transformed(X)
        self._has_length_1 = False
        self._learn(Z, labels)
        if len(self.classes_) > 2:  # with two there is one discriminant, and all lengths were 1
            with_length = self._accuracy(Z, labels)
            self._has_length_1 = True
            self._learn(Z, labels)
            if self._accuracy(Z, labels) < with_length - _TOLERATED_LOSS:
                self._has_length_1 = False
                self._learn(Z, labels)
        return self

    def predict_proba(self, X):
        """Return the probability of each class, of shape (n_samples, n_classes)."""
        check_is_fitted(self)
        return softmax(-self._distances(self._transformed(X)) / (2 * self._variance), axis=1)

    def predict(self, X):
        """Return the class of the nearest prototype, of shape (n_samples,)."""
        check_is_fitted(self)
        return self.classes_[self._distances(self._transformed(X)).argmin(axis=1)]

    def _transformed(self, X):
        return X if self._analysis is None else self._analysis.transform(X)

    def _learn(self, Z, labels):
        Z = self._scaled(Z)
        means = np.stack([Z[labels == k].mean(axis=0) for k in range(len(self.classes_))])
        self.prototypes_ = self._scaled(means)
        # of one coordinate: a mean over classes, so that a rare one counts as much
        variances = [
            np.mean((Z[labels == k] - mean) ** 2) for k, mean in enumerate(self.prototypes_)
        ]
        within, total = float(np.mean(variances)), float(np.mean(np.var(Z, axis=0)))
        # Where each class has one row, that of all rows: every probability would be 0 or 1.
        self._variance = within if within > _ROUNDING * total else total or 1.0

    def _accuracy(self, Z, labels):
        return np.mean(self._distances(Z).argmin(axis=1) == labels)

    def _scaled(self, Z):
        return normalize(Z) if self._has_length_1 else Z

    def _distances(self, Z):
        return cdist(self._scaled(Z), self.prototypes_, "sqeuclidean")
