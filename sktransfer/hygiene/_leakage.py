"""What duplicates between training and test images do to a score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, validate_params
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length

from .._feature_transformer import PretrainedFeatureTransformer
from .._text_table import Table
from ._duplicates import CONSTRAINTS, near_duplicates
from ._reading import images_in

_ALPHAS = np.logspace(-3, 4, 8)


@dataclass(frozen=True, slots=True)
class FoldLeakage:
    """Duplicates between the training and the test images of one fold, and scores.

    Attributes
    ----------
    fold : int
        Counted from 0.
    n_test : int
        Test images.
    n_twins : int
        Test images with a duplicate among the training images.
    score : float
        Score on all test images.
    score_without : float
        Score on those without a duplicate in training; NaN where there is none.
    score_twins : float
        Score on those with a duplicate in training; NaN where there is none.
    """

    fold: int
    n_test: int
    n_twins: int
    score: float
    score_without: float
    score_twins: float


class LeakageReport(Table[FoldLeakage]):
    """The folds, and their sums and means.

    Attributes
    ----------
    n_test, n_twins : int
        Sums over the folds.
    score : float
        Mean over the folds.
    score_without : float
        Mean over the folds that have images without a twin; NaN where none has.
    n_together : int
        Test images with a duplicate in the test images of their own fold, and none in
        training: other folds of the same images, such as shuffled ones, may separate them.
    """

    _record = FoldLeakage

    def __init__(self, records: Sequence[FoldLeakage], n_together: int = 0):
        super().__init__(records)
        self.n_together = n_together
        self.n_test = sum(record.n_test for record in records)
        self.n_twins = sum(record.n_twins for record in records)
        self.score = float(np.mean([record.score for record in records]))
        without = [record.score_without for record in records if record.n_twins < record.n_test]
        self.score_without = float(np.mean(without)) if without else math.nan

    def _headline(self) -> str:
        text = (
            f"{self.n_twins} of {self.n_test} test images ({self.n_twins / self.n_test:.1%}) have "
            f"a twin in training; score {self.score:.3f}, without them {self.score_without:.3f}"
        )
        if self.n_together:
            text += (
                f"; {self.n_together} more have a duplicate in their own fold, which shuffled "
                "folds would separate"
            )
        return text


@validate_params(
    {
        **CONSTRAINTS,
        "X": "no_validation",
        "y": ["array-like"],
        "cv": ["cv_object"],
        "estimator": [HasMethods("fit"), None],
        "groups": ["array-like", None],
        "scoring": "no_validation",  # by check_scoring
        "column": [str, None],
    },
    prefer_skip_nested_validation=True,
)
def leakage_report(
    X,
    y,
    cv=5,
    *,
    estimator=None,
    groups=None,
    scoring=None,
    column=None,
    max_distance=12,
    min_cosine=0.95,
    backbone="mini",
    image_shape=None,
    pixel_range=None,
    feature_cache="auto",
    n_jobs=None,
):
    """Count the test images that have a duplicate in training, and score without them.

    Parameters
    ----------
    X : sequence of images, or table
        Any kind that the estimators take and scikit-learn can slice.
    y : array-like of shape (n_images,)
        Labels or numbers.
    cv : int, splitter or iterable of (train, test), default=5
        The folds to examine, as in ``cross_val_score``. ``[(train, test)]`` is one
        split, such as that of a published data set.
    estimator : estimator, default=None
        The estimator to score. None is a logistic regression on features of `backbone`, or a
        ridge regression where `y` are numbers.
    groups : array-like of shape (n_images,), default=None
        Groups for `cv`, where it uses them.
    scoring : str or callable, default=None
        As in ``cross_val_score``. None is the estimator's own score.
    column : str, default=None
        The column of the images where `X` is a table. `estimator` gets the whole table, and the
        default estimator the images.
    max_distance : int, default=12
        Bits in which the hashes of duplicates may differ, as in `near_duplicates`.
    min_cosine : float, default=0.95
        Least cosine of the features of duplicates, as in `near_duplicates`.
    backbone : str, path-like or None, default="mini"
        The network whose features are compared, as in `near_duplicates`, and that of the
        default estimator. None needs an `estimator`.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
    pixel_range : tuple of float or "fit", default=None
        The values of arrays that mean black and white.
    feature_cache : str, path-like or None, default="auto"
        Where features are stored, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.

    Returns
    -------
    report : LeakageReport
        A sequence of :class:`FoldLeakage`. It prints as a table; ``to_frame()`` is a
        pandas DataFrame.

    Raises
    ------
    TypeError, ValueError
        When the type or value of a parameter is not allowed, or `X` holds no images.

    See Also
    --------
    DuplicateGroups : Folds without any leak.

    Notes
    -----
    One model is fitted for each fold, on all its training images. Its score without the
    duplicates is that of other images, which may be easier or harder. For the score of a
    model that was not trained on duplicates of its test images, pass
    ``cv=DuplicateGroups(X)`` to ``cross_val_score``.

    Duplicates often lie side by side in a folder. An int as `cv` is a split without shuffling,
    as in ``cross_val_score``, which may leave such neighbours in one fold: `n_together` counts
    them. For the leak of shuffled folds pass
    ``StratifiedKFold(5, shuffle=True, random_state=0)``.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.hygiene import leakage_report
    >>> X = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    >>> X[5] = X[0]
    >>> y = [0, 1, 0, 1, 0, 1]
    >>> report = leakage_report(X, y, cv=[([0, 1, 2, 3], [4, 5])], feature_cache=None)
    >>> report.n_twins, report.n_test
    (1, 2)
    """
    table, images = X, images_in(X, column)
    if estimator is None:
        if backbone is None:
            raise ValueError("backbone=None leaves nothing to score with; pass an estimator")
        transformer = PretrainedFeatureTransformer(
            backbone,
            image_shape=image_shape,
            pixel_range=pixel_range,
            feature_cache=feature_cache,
            n_jobs=n_jobs,
        )
        is_classes = type_of_target(y) in ("binary", "multiclass")
        model = LogisticRegression(max_iter=1000) if is_classes else RidgeCV(_ALPHAS)
        estimator = make_pipeline(transformer, model)
        X = images
    check_consistent_length(X, y)
    scorer = check_scoring(estimator, scoring)
    labels = near_duplicates(
        images,
        max_distance=max_distance,
        min_cosine=min_cosine,
        backbone=backbone,
        image_shape=image_shape,
        pixel_range=pixel_range,
        feature_cache=feature_cache,
        n_jobs=n_jobs,
    ).labels

    records, n_together = [], 0
    splits = check_cv(cv, y, classifier=is_classifier(estimator)).split(table, y, groups)
    for fold, (train, test) in enumerate(splits):
        train, test = np.arange(len(labels))[train], np.arange(len(labels))[test]  # or masks
        fitted = clone(estimator).fit(_safe_indexing(X, train), _safe_indexing(y, train))

        def score(some, fitted=fitted):
            if not len(some):
                return math.nan
            return float(scorer(fitted, _safe_indexing(X, some), _safe_indexing(y, some)))

        is_twin = np.isin(labels[test], labels[train])
        twins, others = test[is_twin], test[~is_twin]
        _, place, sizes = np.unique(labels[others], return_inverse=True, return_counts=True)
        n_together += int((sizes[place] > 1).sum())
        records.append(
            FoldLeakage(fold, len(test), len(twins), score(test), score(others), score(twins))
        )
    return LeakageReport(records, n_together)
