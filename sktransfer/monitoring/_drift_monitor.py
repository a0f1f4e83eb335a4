"""Whether images in production still look like those of a reference."""

import numbers
import warnings
from dataclasses import replace

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from .._documentation_link import DocumentationLinkMixin
from .._feature_transformer import PretrainedFeatureTransformer
from ._comparison import Comparison
from ._drift_curve_display import DriftCurveDisplay
from ._most_novel import most_novel
from ._novelty_detector import NoveltyDetector
from ._outputs import checked_estimator, n_trained_on, transformer_for
from ._sample import columns_of, read_images, read_rows

_PASSTHROUGH = "passthrough"
_LEAST_IMAGES = 4  # two for each of two folds


class DriftMonitor(DocumentationLinkMixin, BaseEstimator):
    """Tell whether new images differ from a reference, in what, and by how much.

    `fit` takes the images of a time when all was well, and the estimator that is used on them.
    `compare` tests new images against them:

    - *rows*: whether a linear classifier tells new rows from those of the reference;
    - *predictions*: the probability of each class, or the numbers that are predicted;
    - *classes*: the shares of the predicted classes;
    - *novelty*: the share of images that are unlike any of the reference;
    - *quality*: brightness, contrast, sharpness, size, and files that can't be read.

    There is drift where a test is significant *and* its effect is at least `min_difference`.
    With many images, differences that do not matter are significant as well.

    Parameters
    ----------
    transformer : PretrainedFeatureTransformer, "passthrough" or None, default=None
        What makes rows of images. None is the one that `estimator` begins with, or the frozen
        backbone of a fine-tuned `estimator`; without either, that of ``"mini"``.
        ``"passthrough"``: `X` holds rows already, and there is no test of quality.
    level : float, default=0.05
        Probability that a comparison finds drift where there is none, at most; of all tests
        together.
    min_difference : float, default=0.1
        Effect from which on a significant difference is drift, from 0 to 1. 0.1 is reached
        where a tenth of the images are altogether different.
    contamination : float, default=0.05
        Share of images without drift that are called novel, as in :class:`NoveltyDetector`.
    n_shown : int, default=12
        Number of the most novel images that a report holds, with a picture of each.
    n_jobs : int, default=None
        Threads that read images to measure their quality. None is one for each core.
    random_state : int, RandomState instance or None, default=0
        Seed of permutations, and of the draw where there are more than 1,000 rows. With
        an int, equal images give equal reports.

    Attributes
    ----------
    transformer_ : PretrainedFeatureTransformer or None
        What makes rows; None with ``"passthrough"``.
    estimator_ : estimator or None
        The one that was given to `fit`.
    detector_ : NoveltyDetector
        Fitted on the rows of the reference.
    classes_ : ndarray of shape (n_classes,)
        Labels of the estimator; only where it is a classifier.
    n_reference_ : int
        Images of the reference, those that can't be read not counted.
    n_trained_on_ : int or None
        Images of the reference that the estimator was fitted on; None where it does not say.
    history_ : list of dict
        One record for each window of `update`: ``window``, ``n_images``, ``is_drift``, ``auc``,
        ``auc_low``, ``auc_high``, ``novelty_rate``, ``verdict``.
    n_features_in_ : int
        Columns of `X`; only for rows and DataFrames.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names; only when `X` is a DataFrame.

    See Also
    --------
    NoveltyDetector : Which single images are unlike the reference.
    select_to_label : Which of the new images to label.

    Notes
    -----
    Each test is exact or a permutation test. `level` is divided equally among the families of
    tests, and among the tests of one by the method of Holm; so it holds however they depend on
    one another. It is for one comparison: of 20 windows without drift, one is expected to
    be called drift at 0.05, at most. Divide it by the number of windows if that is too much.

    The reference must be images that the estimator was not trained on: it is too sure of those
    that it was, and others then differ from them. A fine-tuned estimator knows the content
    of its training images, and `fit` warns where some are in the reference. Other
    estimators do not say what they were fitted on; keep a held-out set.

    Images of the same scene or patient are not independent; many of them look like drift.

    The pickle holds the rows of the reference and the estimator.

    References
    ----------
    S. Rabanser, S. Günnemann, Z. Lipton, "Failing loudly: an empirical study of methods for
    detecting dataset shift", NeurIPS 2019, arXiv 1810.11953.

    Z. Lipton, Y.-X. Wang, A. Smola, "Detecting and correcting for label shift with black box
    predictors", ICML 2018, arXiv 1802.03916.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.utils import shuffle
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.monitoring import DriftMonitor
    >>> X, y = shuffle(*load_digits(n_class=3, return_X_y=True), random_state=0)
    >>> transformer = PretrainedFeatureTransformer(
    ...     "mini", image_shape=(8, 8), pixel_range=(0, 16), feature_cache=None
    ... )
    >>> model = make_pipeline(transformer, LogisticRegression(max_iter=1000))
    >>> model = model.fit(X[:200], y[:200])
    >>> monitor = DriftMonitor().fit(X[200:350], y[200:350], estimator=model)
    >>> monitor.compare(X[350:]).is_drift
    False
    >>> report = monitor.compare(X[350:] * 0.6)
    >>> report.is_drift
    True
    >>> sorted({test.family for test in report if test.is_drift})
    ['novelty', 'predictions', 'quality', 'rows']
    """

    _parameter_constraints: dict = {
        "transformer": [PretrainedFeatureTransformer, StrOptions({_PASSTHROUGH}), None],
        "level": [Interval(numbers.Real, 0, 1, closed="neither")],
        "min_difference": [Interval(numbers.Real, 0, 1, closed="both")],
        "contamination": [Interval(numbers.Real, 0, 0.5, closed="right")],
        "n_shown": [Interval(numbers.Integral, 0, None, closed="left")],
        "n_jobs": [numbers.Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        transformer=None,
        *,
        level=0.05,
        min_difference=0.1,
        contamination=0.05,
        n_shown=12,
        n_jobs=None,
        random_state=0,
    ):
        self.transformer = transformer
        self.level = level
        self.min_difference = min_difference
        self.contamination = contamination
        self.n_shown = n_shown
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if isinstance(self.transformer, PretrainedFeatureTransformer):
            transformer = clone(self.transformer).set_params(on_error="nan")  # as in fit
            tags.input_tags = get_tags(transformer).input_tags
        return tags

    def fit(self, X, y=None, *, estimator=None):
        """Read the reference.

        Parameters
        ----------
        X : sequence of images
            Images of a time when all was well, on which `estimator` was not trained; with
            ``transformer="passthrough"``, rows of shape (n_samples, n_features).
        y : array-like of shape (n_images,), default=None
            Their labels. With a classifier as `estimator` they correct the shares of classes
            among new images. Novelty is then relative to the nearest class. Targets that are
            no classes are not used.
        estimator : estimator, default=None
            A fitted classifier with ``predict_proba``, or regressor, which takes `X`. Without
            one, predictions and shares of classes are not compared.

        Returns
        -------
        self : DriftMonitor
            The fitted monitor.

        Raises
        ------
        TypeError, ValueError
            When a parameter is not allowed, `X` holds no images, fewer than two can be read, or
            `y` has a label that the estimator does not have.
        NotFittedError
            When `estimator` is not fitted.

        Warns
        -----
        UserWarning
            When `estimator` was trained on images of `X`, as far as it says.
        UnreadableImageWarning
            When images can't be read.
        """
        self._validate_params()  # scikit-learn's decorator has an argument `estimator` of its own
        self._forget()
        if y is not None:
            check_consistent_length(X, y)
        if estimator is not None:
            checked_estimator(estimator)
        self.transformer_ = self._fitted_transformer(X, estimator)
        self.estimator_ = estimator
        self.n_trained_on_ = None if estimator is None else self._count_trained_on(estimator, X)
        sample = self._read(X, reset=True)
        labels = None if y is None else column_or_1d(y)[sample.positions]
        if estimator is not None and is_classifier(estimator):
            self.classes_ = np.asarray(estimator.classes_)
            if labels is not None:
                sample.labels = columns_of(labels, self.classes_)
        self.detector_ = NoveltyDetector(contamination=self.contamination)
        self.detector_.fit(sample.rows, labels if _has_two_classes(labels) else None)
        self.n_reference_ = len(sample.rows)
        self.history_ = []
        self._reference = replace(sample, images=None)  # a pickle holds no pixels
        return self

    def compare(self, X):
        """Compare new images with the reference.

        Parameters
        ----------
        X : sequence of images
            As in `fit`, at least four that can be read.

        Returns
        -------
        report : DriftReport
            A sequence of tests, with the verdict, effects, shares and pictures.

        Raises
        ------
        ValueError
            When fewer than four images of `X`, or of the reference, can be read.

        Warns
        -----
        UnreadableImageWarning
            When images can't be read.

        Notes
        -----
        Each image passes the network once, or not at all where its row is stored, and is
        read once more for its quality.
        """
        check_is_fitted(self)
        new = self._read(X, reset=False)
        for what, rows in (("the reference", self._reference.rows), ("X", new.rows)):
            if len(rows) < _LEAST_IMAGES:
                raise ValueError(
                    f"{what} has {len(rows)} images that can be read, and a comparison needs "
                    f"{_LEAST_IMAGES} at least"
                )
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        scores = self.detector_.score_samples(new.rows)
        comparison = Comparison(
            self._reference,
            new,
            self.detector_,
            scores,
            getattr(self, "classes_", None),
            self.level,
            self.min_difference,
            np.random.default_rng(seed),
        )
        return comparison.report(
            most_novel(new, scores, self.detector_.offset_, self.n_shown), self._notes()
        )

    def update(self, X, window=None):
        """Compare the images of the next window of time, and add the result to `history_`.

        Parameters
        ----------
        X : sequence of images
            As in `compare`.
        window : object, default=None
            Name of the window, such as a date. None is its number, from 1.

        Returns
        -------
        report : DriftReport
            As `compare` returns it.

        Raises
        ------
        ValueError
            As in `compare`. Nothing is then added.
        """
        report = self.compare(X)
        self.history_.append(
            {
                "window": len(self.history_) + 1 if window is None else window,
                "n_images": report.n_new,
                "is_drift": report.is_drift,
                "auc": report.auc,
                "auc_low": report.auc_interval[0],
                "auc_high": report.auc_interval[1],
                "novelty_rate": report.novelty_rate,
                "verdict": report.verdict,
            }
        )
        return report

    def plot(self, axes=None):
        """Draw what `update` has found over time.

        Parameters
        ----------
        axes : pair of matplotlib Axes, default=None
            Where to draw. None is a new figure.

        Returns
        -------
        display : DriftCurveDisplay

        Raises
        ------
        ValueError
            When `update` was not called.
        ImportError
            When matplotlib is not installed.
        """
        check_is_fitted(self)
        return DriftCurveDisplay(
            self.history_, min_difference=self.min_difference, contamination=self.contamination
        ).plot(axes)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_reference")  # what `fit` sets last

    def _forget(self):
        """Delete what an earlier fit learned, so that one that fails leaves nothing of two."""
        for name in [name for name in vars(self) if name.endswith("_") or name == "_reference"]:
            delattr(self, name)

    def _fitted_transformer(self, X, estimator):
        if isinstance(self.transformer, str):
            return None
        transformer = transformer_for(estimator if self.transformer is None else self.transformer)
        # images that can't be read are counted
        transformer.set_params(on_error="nan").set_output(transform="default").fit(X)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(transformer, name):
                setattr(self, name, getattr(transformer, name))
        return transformer

    def _count_trained_on(self, estimator, X):
        n = n_trained_on(estimator, X)
        if n:
            warnings.warn(
                f"{n} images of the reference are among those that the estimator was trained on. "
                "It is surer of them than of new ones, and new ones will seem to differ; fit the "
                "monitor on images that were held out",
                UserWarning,
                stacklevel=4,
            )
        return n

    def _read(self, X, *, reset):
        """Return rows, predictions and quality of images."""
        if self.transformer_ is None:
            rows = validate_data(self, X, reset=reset, dtype=[np.float32, np.float64])
            return read_rows(rows, X, self.estimator_)
        return read_images(X, self.transformer_, self.estimator_, self.n_jobs)

    def _notes(self):
        if self.n_trained_on_:
            return [
                f"{self.n_trained_on_} images of the reference were trained on; expect drift where "
                "there is none"
            ]
        return []


def _has_two_classes(labels):
    if labels is None or type_of_target(labels) not in ("binary", "multiclass"):
        return False
    return len(np.unique(labels)) > 1
