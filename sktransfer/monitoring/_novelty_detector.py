"""Which rows are unlike those that were fitted."""

import hashlib
import math
import numbers

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from .._documentation_link import DocumentationLinkMixin
from ._novelty_scores import MahalanobisScores, NearestNeighbourScores

_METHODS = ("auto", "knn", "mahalanobis", "relative_mahalanobis")
_WITH_LABELS = _METHODS[2:]
_DIGEST_SIZE = 16  # bytes


class NoveltyDetector(DocumentationLinkMixin, OutlierMixin, BaseEstimator):
    """Find rows, and as a step of a pipeline images, that are unlike those that were fitted.

    Without labels, a row is scored by its distance to the nearest fitted rows. With labels,
    by its Mahalanobis distance to the nearest class, as it is and relative to that to all rows.
    Rows are normalised: the square roots of their values, scaled to length 1.

    The threshold is set so that of new rows of the same kind as the fitted ones a share of
    `contamination` is called novel: it is computed from the score of each fitted row by the
    others, with that row left out.

    Parameters
    ----------
    method : {"auto", "knn", "mahalanobis", "relative_mahalanobis"}, default="auto"
        ``"knn"`` is the mean distance to the nearest rows. The others need ``y``:
        ``"relative_mahalanobis"`` is the squared Mahalanobis distance to the nearest class less
        that to the mean of all rows, and finds images that are of no class; what is unlike
        any image it may miss. ``"mahalanobis"`` finds both: it adds the distance to the nearest
        class as it is, each in units of its standard deviation. ``"auto"`` is
        ``"mahalanobis"`` where `fit` is given ``y``, else ``"knn"``.
    n_neighbors : int, default=5
        Nearest rows of ``"knn"``; at most as many as there are other rows.
    contamination : float, default=0.05
        Share of new rows without novelty that are called novel, above 0 and at most 0.5. Of
        the fitted rows as many are.

    Attributes
    ----------
    method_ : str
        The method that was used.
    offset_ : float
        Scores below it are novel.
    scores_ : ndarray of shape (n_samples,), dtype float64
        Score of each fitted row by the others.
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; only where the method uses them.
    n_features_in_ : int
        Columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame whose column names are strings.

    See Also
    --------
    DriftMonitor : Whether many images together differ from a reference.
    sklearn.neighbors.LocalOutlierFactor : Distances relative to those of the neighbours.

    Notes
    -----
    A row that is equal to a fitted one is scored as that one was, without itself. So
    ``fit(X).predict(X)`` says the same of `X` as of new rows of its kind. Rows on which the
    network itself was trained are no such rows: they lie closer together than new ones,
    and more than a share of `contamination` of these is called novel. Fit on images that
    neither the network nor a head was trained on. Duplicates have the same effect:
    :func:`~sktransfer.hygiene.near_duplicates` finds them.

    The rate of `contamination` is that over many fits: with n fitted rows, the rate of one
    fit varies about it by a standard deviation of about
    ``sqrt(contamination * (1 - contamination) / n)``. With fewer than ``1 / contamination``
    rows, a row is novel where its score is lower than each of theirs, which is a share of
    ``1 / (n + 1)``.

    ``"knn"`` compares each fitted row with all others, and holds the fitted rows.
    Mahalanobis distances hold two matrices of ``n_features_in_`` columns and as many rows, or as
    there are samples if these are fewer. All are deterministic.

    References
    ----------
    Y. Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022,
    arXiv 2204.06507.

    J. Ren et al., "A simple fix to Mahalanobis distance for improving near-OOD detection",
    2021, arXiv 2106.09022.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.utils import shuffle
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.monitoring import NoveltyDetector
    >>> X, y = shuffle(*load_digits(n_class=3, return_X_y=True), random_state=0)
    >>> transformer = PretrainedFeatureTransformer(
    ...     "mini", image_shape=(8, 8), pixel_range=(0, 16), feature_cache=None
    ... )
    >>> detector = make_pipeline(transformer, NoveltyDetector()).fit(X[:200])
    >>> upside_down = 16 - X[200:210]
    >>> detector.predict(upside_down)
    array([-1, -1, -1, -1, -1, -1, -1, -1, -1, -1])
    >>> bool((detector.predict(X[200:400]) == -1).mean() < 0.1)
    True
    """

    _scores: NearestNeighbourScores | MahalanobisScores

    _parameter_constraints: dict = {
        "method": [StrOptions(set(_METHODS))],
        "n_neighbors": [Interval(numbers.Integral, 1, None, closed="left")],
        "contamination": [Interval(numbers.Real, 0, 0.5, closed="right")],
    }

    def __init__(self, method="auto", *, n_neighbors=5, contamination=0.05):
        self.method = method
        self.n_neighbors = n_neighbors
        self.contamination = contamination

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn what rows without novelty are like, and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, two at least.
        y : array-like of shape (n_samples,), default=None
            Labels of two classes at least. ``method="knn"`` does not use them.

        Returns
        -------
        self : NoveltyDetector
            The fitted detector.

        Raises
        ------
        ValueError
            When a parameter is not allowed, `X` has a row alone or values that are not
            finite, or the method needs labels and `y` has fewer than two classes.
        """
        has_labels = y is not None
        if self.method in _WITH_LABELS and not has_labels:
            raise ValueError(
                f"method={self.method!r} requires y to be passed, but the target y is None; use "
                "method='knn' where there are no labels"
            )
        for name in ("classes_", "feature_names_in_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        X = validate_data(self, X, dtype=[np.float32, np.float64], ensure_min_samples=2)
        if not has_labels or self.method == "knn":
            self.method_ = "knn"
            neighbours = NearestNeighbourScores(self.n_neighbors)
            self.scores_, self._scores = neighbours.fit(X), neighbours
        else:
            labels = self._checked_labels(X, y)
            self.method_ = "mahalanobis" if self.method == "auto" else self.method
            classes = MahalanobisScores(self.method_ == "relative_mahalanobis")
            self.scores_, self._scores = classes.fit(X, labels), classes
        self._digests = np.array(_digests(X))
        self.offset_ = _threshold(self.scores_, self.contamination)
        return self

    def score_samples(self, X):
        """Return the score of each row: the lower, the more novel.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Minus the mean distance to the nearest rows, or minus the Mahalanobis distance to
            the nearest class.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        scores = self._scores.score(X)
        fitted = dict(zip(self._digests.tolist(), self.scores_.tolist(), strict=True))
        for i, digest in enumerate(_digests(X)):
            if digest in fitted:
                scores[i] = fitted[digest]
        return scores

    def decision_function(self, X):
        """Return ``score_samples(X) - offset_``, which is negative where a row is novel.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Return -1 for each row that is novel, and 1 for the others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        is_inlier : ndarray of shape (n_samples,), int64
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _checked_labels(self, X, y):
        y = column_or_1d(y)
        check_classification_targets(y)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows and y has {len(y)} labels; give one for each")
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class, {self.classes_.tolist()[0]!r}, and the relative Mahalanobis "
                "distance needs two at least; leave y out, or use method='knn'"
            )
        return labels


def _threshold(scores, contamination):
    """Return the value below which a new score lies with a probability of `contamination`.

    As in conformal prediction: the rank of a new score among n of its kind and itself is each
    of n + 1 with the same probability, so it is one of the k lowest in k / (n + 1) of cases.
    """
    ordered = np.sort(scores)
    k = math.floor(contamination * (len(ordered) + 1) + 1e-9)  # 0.1 * 30 is a whole number
    if k == 0 or ordered[k - 1] == ordered[k]:  # ties are not novel
        return float(ordered[max(0, k - 1)])
    return float(np.nextafter(ordered[k - 1], np.inf))


def _digests(X):
    """Return a digest of each row; equal numbers have the same, in float32 and in float64."""
    return [
        hashlib.blake2b(
            row.astype(np.float64, order="C").tobytes(), digest_size=_DIGEST_SIZE
        ).hexdigest()
        for row in X + 0.0  # -0.0 is 0.0
    ]
