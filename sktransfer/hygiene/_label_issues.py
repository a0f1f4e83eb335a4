"""Which labels are likely wrong."""

import numbers
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import validate_params
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._feature_transformer import PretrainedFeatureTransformer
from .._text_table import Table
from ..images._collection import ImageReference
from ._duplicates import CONSTRAINTS
from ._reading import images_of

# Inverse strength of the ridge penalty, on standardised rows: a model that is fitted more
# closely believes the wrong labels that it was given. Chosen with the number of neighbours
# by benchmarks/bench_label_issues.py.
_C = 0.003
_N_NEIGHBOURS = 10
_NEIGHBOURS_AT_ONCE = 2**22  # in memory: 64 MiB with their distances


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """An image whose label is likely wrong.

    Attributes
    ----------
    position : int
        Its position in `X`.
    source : str
        Its path, or a description of an image without a path.
    label : object
        Its label in `y`.
    suggested : object
        The class that has more support than the label, and at least as much as the images
        of that class have on average.
    score : float
        Mean of the two next ones, from 0 to 1: the lower, the likelier the label is wrong.
    probability : float
        Probability of the label by a model that was not fitted on the image.
    neighbours : float
        Share of its nearest images that have the label.
    """

    position: int
    source: str
    label: Any
    suggested: Any
    score: float
    probability: float
    neighbours: float


class LabelIssues(Table[LabelIssue]):
    """Images whose labels are likely wrong, the likeliest first.

    Attributes
    ----------
    scores : ndarray of shape (n_images,)
        The score of each label of `y`, listed or not; NaN for images that can't be read.
    n_images : int
        Images that were examined, those that can't be read included.
    """

    _record = LabelIssue

    def __init__(self, records: Sequence[LabelIssue], scores: np.ndarray):
        super().__init__(records)
        self.scores = scores
        self.n_images = len(scores)

    def _headline(self) -> str:
        return f"{self.n_images} images: {len(self)} labels are likely wrong"


@validate_params(
    {
        **{n: CONSTRAINTS[n] for n in ("image_shape", "pixel_range", "feature_cache", "n_jobs")},
        "X": "no_validation",
        "y": ["array-like"],
        "cv": ["cv_object"],
        "groups": ["array-like", None],
        "backbone": [str, os.PathLike],
        "image_size": PretrainedFeatureTransformer._parameter_constraints["image_size"],
    },
    prefer_skip_nested_validation=True,
)
def label_issues(
    X,
    y,
    cv=5,
    *,
    groups=None,
    backbone="mini",
    image_size=None,
    image_shape=None,
    pixel_range=None,
    feature_cache="auto",
    n_jobs=None,
):
    """List the images whose labels are likely wrong, the likeliest first.

    A linear model on frozen rows predicts each image without having been fitted on it,
    and its nearest images vote. Where both together speak for another class more than
    for the label, and more than they do for the images of that class on average, the label
    is likely wrong: confident learning, with neighbours.

    Parameters
    ----------
    X : sequence of images
        Any kind that the estimators take.
    y : array-like of shape (n_images,)
        Labels of classes, at least two images of each.
    cv : int, splitter or iterable of (train, test), default=5
        The folds by which images are predicted; each image must be tested once. An int is
        the number of folds, in the proportions of the classes and shuffled.
    groups : array-like of shape (n_images,), default=None
        Images of one group are predicted in one fold, and are no neighbours of one
        another: patients, or the `labels` of `near_duplicates`.
    backbone : str or path-like, default="mini"
        The network whose rows are used. The better its rows tell the classes apart, the
        more of what is listed is wrong.
    image_size : int, default=None
        Side of the square that the network sees, in pixels. None is what the weights were
        trained with.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
    pixel_range : tuple of float or "fit", default=None
        The values of arrays that mean black and white.
    feature_cache : str, path-like or None, default="auto"
        Where rows are stored, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.

    Returns
    -------
    issues : LabelIssues
        A sequence of :class:`LabelIssue`. It prints as a table; ``to_frame()`` is a
        pandas DataFrame.

    Raises
    ------
    TypeError, ValueError
        When the type or value of a parameter is not allowed, `X` holds no images, or a
        class has fewer than two.

    Warns
    -----
    UnreadableImageWarning
        When images can't be read. None of them is listed.

    See Also
    --------
    near_duplicates : Equal images, which may have different labels.

    Notes
    -----
    Each image passes the network once, or not at all where its row is stored. Look at
    what is listed before a label is changed: rare kinds of a class are listed as well.

    References
    ----------
    C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in
    dataset labels", JAIR 2021, arXiv 1911.00068.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer.hygiene import label_issues
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> X, y = X[:100], y[:100]
    >>> y[7] = (y[7] + 1) % 3
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "feature_cache": None}
    >>> label_issues(X, y, **digits)[0].position
    7
    """
    images = images_of(X, image_shape, pixel_range)
    y = column_or_1d(y)
    check_consistent_length(images, y)
    classes, labels = _checked_classes(y)
    transformer = PretrainedFeatureTransformer(
        backbone,
        image_size=image_size,
        image_shape=image_shape,
        pixel_range=pixel_range,
        feature_cache=feature_cache,
        n_jobs=n_jobs,
        on_error="nan",
    )
    rows = transformer.set_output(transform="default").fit_transform(X)
    read = np.flatnonzero(np.isfinite(rows).all(axis=1))
    _check_counts(labels[read], classes)
    if groups is not None:
        groups = np.unique(column_or_1d(groups), return_inverse=True)[1]
        check_consistent_length(images, groups)

    some = None if groups is None else groups[read]
    probabilities = np.full((len(y), len(classes)), np.nan)
    probabilities[read] = _probabilities(
        rows[read], labels[read], cv, some, n_left_out=len(y) - len(read)
    )
    support = label_support(labels, probabilities, rows, groups)
    return issues_of(images, classes, labels, support)


def label_support(
    labels: np.ndarray,
    probabilities: np.ndarray,
    rows: np.ndarray,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Return what a model and the neighbours say for each class, (2, n_images, n_classes).

    Both are NaN for images that can't be read.

    Parameters
    ----------
    labels : ndarray of shape (n_images,), int
        Position of each label among the classes.
    probabilities : ndarray of shape (n_images, n_classes)
        By models that were not fitted on the image; NaN for images that can't be read.
    rows : ndarray of shape (n_images, n_features)
        Neighbours in these vote; NaN for images that can't be read.
    groups : ndarray of shape (n_images,), int, default=None
        Images of one group do not vote for one another.
    """
    read = np.flatnonzero(np.isfinite(rows).all(axis=1) & np.isfinite(probabilities).all(axis=1))
    support = np.full((2, *probabilities.shape), np.nan)
    support[0, read] = probabilities[read]
    if len(read):
        some = None if groups is None else groups[read]
        support[1, read] = _votes(rows[read], labels[read], probabilities.shape[1], some)
    return support


def issues_of(
    images: Sequence[ImageReference],
    classes: np.ndarray,
    labels: np.ndarray,
    support: np.ndarray,
    n_least: int = 0,
) -> LabelIssues:
    """List labels that are likely wrong, given what speaks for each class.

    Parameters
    ----------
    images : sequence of ImageReference
    classes : ndarray of shape (n_classes,)
    labels : ndarray of shape (n_images,), int
        Position of each label among the classes.
    support : ndarray of shape (2, n_images, n_classes)
        As `label_support` returns it.
    n_least : int, default=0
        Where fewer labels are likely wrong, those with the next lowest scores are listed
        as well, up to this many, as long as another class has more support.
    """
    both = support.mean(axis=0)
    of_own = both[np.arange(len(labels)), labels]
    is_read = np.isfinite(of_own)
    thresholds = np.full(len(classes), np.inf)  # a class that has no image is not suggested
    for k in np.unique(labels[is_read]):
        thresholds[k] = of_own[is_read & (labels == k)].mean()
    # The threshold of a rare class may be near 0: it must have more support than the label too.
    # Comparisons with NaN are False.
    is_likely = (both >= thresholds) & (both > of_own[:, None])
    suggested = np.where(is_likely, both, -1.0).argmax(axis=1)
    is_issue = is_likely.any(axis=1)
    if n_least > is_issue.sum():
        strongest = np.where(is_read[:, None], both, -1.0).argmax(axis=1)
        doubtful = np.flatnonzero(is_read & ~is_issue & (strongest != labels))
        lowest = doubtful[np.argsort(of_own[doubtful], kind="stable")]
        more = lowest[: n_least - int(is_issue.sum())]
        suggested[more] = strongest[more]
        is_issue[more] = True
    listed = np.flatnonzero(is_issue)
    names = classes.tolist()
    records = [
        LabelIssue(
            int(i),
            images[i].describe(),
            names[labels[i]],
            names[suggested[i]],
            float(of_own[i]),
            *support[:, i, labels[i]].tolist(),
        )
        for i in listed[np.argsort(of_own[listed], kind="stable")]
    ]
    return LabelIssues(records, of_own)


def _checked_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes, and the position of each label among them."""
    if type_of_target(y) not in ("binary", "multiclass"):
        raise ValueError(f"y must hold the labels of classes, got {type_of_target(y)} targets")
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y has the class {classes.tolist()[0]!r} alone; give images of two at least"
        )
    return classes, labels


def _check_counts(labels: np.ndarray, classes: np.ndarray) -> None:
    rare = classes[np.bincount(labels, minlength=len(classes)) < 2].tolist()
    if rare:
        raise ValueError(
            f"y has fewer than two images that can be read of the classes {rare}; add some, or "
            "leave these classes out"
        )


def _probabilities(
    rows: np.ndarray, labels: np.ndarray, cv: Any, groups: np.ndarray | None, n_left_out: int
) -> np.ndarray:
    """Return the probabilities (n, n_classes) of models not fitted on the image."""
    if isinstance(cv, numbers.Integral):
        splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
        cv = splitter(int(cv), shuffle=True, random_state=0)
    elif n_left_out and cv is not None and not hasattr(cv, "split"):
        raise ValueError(
            f"cv holds positions of all images, and {n_left_out} can't be read; leave these "
            "images out of X and y, or pass a splitter"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_C, max_iter=1000))
    with warnings.catch_warnings():
        # a rare class is in fewer folds than there are
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return cross_val_predict(model, rows, labels, cv=cv, groups=groups, method="predict_proba")


def _votes(
    rows: np.ndarray, labels: np.ndarray, n_classes: int, groups: np.ndarray | None
) -> np.ndarray:
    """Return the share (n, n_classes) of each class among the nearest images of other groups."""
    n = len(rows)
    groups = np.arange(n) if groups is None else groups
    n_nearest = min(n, _N_NEIGHBOURS + np.bincount(groups).max())
    rows = rows - rows.mean(axis=0)
    nearest = NearestNeighbors(n_neighbors=n_nearest, metric="cosine").fit(rows)
    votes = np.zeros((n, n_classes))
    # with a large group there are many neighbours of each image
    for some in gen_batches(n, max(1, _NEIGHBOURS_AT_ONCE // n_nearest)):
        found = nearest.kneighbors(rows[some], return_distance=False)
        for i, neighbours in enumerate(found, start=some.start):
            others = neighbours[groups[neighbours] != groups[i]][:_N_NEIGHBOURS]
            votes[i] = np.bincount(labels[others], minlength=n_classes) / max(1, len(others))
    return votes
