"""Which backbone to take: rank several by what their frozen rows are worth."""

import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, validate_params
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._base import ImageEstimator
from .._fine_tuning_checks import check_present
from ..exceptions import ImageReadError, UnreadableImageWarning
from ..hygiene import near_duplicates
from ..hygiene._joining import in_order as numbered
from ..hygiene._joining import join
from ..hygiene._reading import images_of
from ._candidates import Candidate, candidates_of
from ._draw import draw, round_ends
from ._halving import Halving, in_order
from ._probes import linear
from ._ranking_table import BackboneRanking, RankedBackbone

# Bits in which the hashes of duplicates may differ, of 64. Without a network's features to
# confirm them, more bits make one group of many digits.
_DUPLICATE_BITS = 6


@validate_params(
    {
        **{
            name: ImageEstimator._parameter_constraints[name]
            for name in ("image_size", "image_shape", "pixel_range", "feature_cache", "n_jobs")
        },
        "X": "no_validation",
        "y": ["array-like"],
        "backbones": "no_validation",  # by candidates_of
        "depths": [tuple, list],
        "cv": [
            Interval(numbers.Integral, 2, None, closed="left"),
            HasMethods(["split", "get_n_splits"]),
        ],
        "groups": ["array-like", None],
        "scoring": [str, callable, None],
        "max_images": [Interval(numbers.Integral, 2, None, closed="left"), None],
        "max_params": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "licence": [str, tuple, list, None],
        "offline": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def rank_backbones(
    X,
    y,
    backbones=None,
    *,
    depths=(None, -1),
    cv=5,
    groups=None,
    scoring=None,
    max_images=2000,
    max_params=None,
    licence=None,
    offline=False,
    image_size=None,
    image_shape=None,
    pixel_range=None,
    feature_cache="auto",
    n_jobs=None,
):
    """Rank backbones by how well simple models predict `y` from their frozen rows.

    The score is cross-validated: that of nearest neighbours on few images first, then that
    of a linear model in rounds of twice as many. After a round those stay that are within
    noise of the best, and the better half in any case, so that most images pass the good
    ones only. Few images make one round, of the linear model.

    Parameters
    ----------
    X : sequence of images
        Any kind that the estimators take and scikit-learn can slice.
    y : array-like of shape (n_images,) or (n_images, n_outputs)
        Labels of classes, or continuous numbers. Whole numbers are labels.
    backbones : list of str, path-like or PretrainedFeatureTransformer, default=None
        Names from :func:`~sktransfer.list_backbones`, paths of backbone files, and
        transformers, whose parameters other than `depth` and `on_error` are used as they
        are. None is a list of six families of torchvision with 5 to 29 million parameters
        and of what was registered; with `offline`, of all that is on this machine.
    depths : tuple of (int or None), default=(None, -1)
        The depths at which each backbone is tried, ``stages[:depth]``. All come from one
        forward pass.
    cv : int or splitter, default=5
        The folds. An int is their number: shuffled, and for classes in their proportions.
        A splitter must keep groups together where there are any.
    groups : array-like of shape (n_images,), default=None
        Images of one group, such as a patient, are drawn together and cross no fold.
        Images that are equal or nearly so are found, and cross no fold either.
    scoring : str or callable, default=None
        As in ``cross_val_score``. None is accuracy for classes, R² for numbers.
    max_images : int, default=2000
        Images that are drawn at most, in the proportions of the classes. None is all.
    max_params : int, default=None
        Backbones with more parameters, the head included, are left out.
    licence : str or list of str, default=None
        Only backbones whose licence begins with one of these are ranked, such as
        ``["Apache", "BSD", "MIT"]``. Upper and lower case are the same. Weights whose licence
        is not stated are left out.
    offline : bool, default=False
        Whether to leave out backbones whose weights would have to be downloaded.
    image_size : int, default=None
        Side of the square that the networks see, in pixels. None is what the weights of
        each were trained with.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
    pixel_range : tuple of float or "fit", default=None
        The values of arrays that mean black and white, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`.
    feature_cache : str, path-like, list of these, or None, default="auto"
        Where rows are stored, as in :class:`~sktransfer.PretrainedFeatureTransformer`. An
        image passes a network once either way.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.

    Returns
    -------
    ranking : BackboneRanking
        A sequence of :class:`RankedBackbone`, the best first. It prints as a table;
        ``to_frame()`` is a pandas DataFrame, and ``best()`` an estimator to fit.

    Raises
    ------
    TypeError, ValueError
        When the type or value of a parameter is not allowed, `X` holds no images, or no
        backbone is left.
    ImageReadError
        When no image can be read.

    Warns
    -----
    UnreadableImageWarning
        When images can't be read. They are left out.

    See Also
    --------
    sktransfer.list_backbones : The names, with sizes and licences.
    sktransfer.FineTunedClassifier : To train the last stages of the best one.

    Notes
    -----
    Each image passes each backbone once at most. With 2,000 images the rounds have 500,
    1,000 and 2,000 of them; there are fewer where the first would have less than 500 images,
    or less than 20 for each class.

    A backbone is within noise of the best where its mean difference over the folds is at
    most a standard error of these differences. It stays for the next round up to 2.8 of
    them with five folds: the interval of 95 % by Student's t. Of those within noise at the
    end, the ones with a published ImageNet accuracy stand in its order. The score of the
    first of many is a little too high.

    Duplicates are images whose perceptual hashes differ in at most 6 of 64 bits. For more,
    pass the ``labels`` of :func:`~sktransfer.hygiene.near_duplicates` as `groups`.

    The images are drawn with a fixed seed: a second call ranks alike.

    References
    ----------
    K. Jamieson, A. Talwalkar, "Non-stochastic best arm identification and hyperparameter
    optimization", AISTATS 2016, arXiv 1502.07943: successive halving.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.model_selection import rank_backbones
    >>> X, y = load_digits(return_X_y=True)
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16), "feature_cache": None}
    >>> random = PretrainedFeatureTransformer("mini", weights=None, **digits)
    >>> ranking = rank_backbones(X[:150], y[:150], ["mini", random], **digits)
    >>> [record.backbone for record in ranking]
    ['mini', 'mini, weights=None']
    >>> ranking.best().fit(X[:150], y[:150]).score(X[150:250], y[150:250]) > 0.8
    True
    """
    _check_depths(depths)
    y, is_classes = _checked_targets(y)
    images_of(X, image_shape, pixel_range)
    check_consistent_length(X, y)
    candidates = candidates_of(
        backbones,
        depths,
        offline,
        {
            "image_size": image_size,
            "image_shape": image_shape,
            "pixel_range": pixel_range,
            "feature_cache": feature_cache,
            "n_jobs": n_jobs,
        },
    )
    _leave_out(candidates, max_params, licence)
    reading = {"image_shape": image_shape, "pixel_range": pixel_range, "n_jobs": n_jobs}
    X, y, positions, groups, ends = _drawn(X, y, groups, is_classes, max_images, reading)
    n_classes = len(np.unique(y)) if is_classes else 1
    halving = Halving(X, y, groups, cv, scoring, is_classes, round_ends(ends, n_classes))
    halving.run(candidates)
    if halving.failures:
        failures = [
            failure._replace(position=int(positions[position]))
            for position, failure in sorted(halving.failures.items())
        ]
        warnings.warn(
            f"left out: {ImageReadError(failures, len(positions))}",
            UnreadableImageWarning,
            stacklevel=3,  # the caller of rank_backbones, past its checking of parameters
        )
    ordered = in_order(candidates)
    read = halving.readable(len(positions))
    return BackboneRanking(
        [_record(candidate, depths) for candidate in ordered],
        [_estimator(candidate, depths, is_classes) for candidate in ordered],
        scoring=_name_of(scoring, is_classes),
        rounds=tuple(halving.n_images),
        positions=positions[read],
        groups=groups[read],
    )


def _check_depths(depths: Sequence[Any]) -> None:
    whole = [d for d in depths if isinstance(d, numbers.Integral) and not isinstance(d, bool)]
    if not depths or len(whole) + list(depths).count(None) < len(depths):
        raise ValueError(
            f"depths must hold whole numbers and None, one at least, such as (None, -1), got "
            f"{depths!r}"
        )


def _checked_targets(y: Any) -> tuple[np.ndarray, bool]:
    """Return the targets, and whether they are labels of classes."""
    check_present(y, "y")
    kind = type_of_target(y, input_name="y")
    if kind in ("continuous", "continuous-multioutput"):
        return np.asarray(y), False
    if kind not in ("binary", "multiclass"):
        raise ValueError(f"y must hold labels of classes or continuous numbers, got {kind} targets")
    y = column_or_1d(y)
    if len(np.unique(y)) < 2:
        raise ValueError(f"y has the class {y[0]!r} alone; give images of two at least")
    return y, True


def _leave_out(
    candidates: Sequence[Candidate], max_params: int | None, licence: str | Sequence[str] | None
) -> None:
    """Tell of each backbone that the caller does not want the reason."""
    if licence is not None:
        wanted = [licence] if isinstance(licence, str) else list(licence)
        if not wanted or not all(isinstance(text, str) and text for text in wanted):
            raise ValueError(f"licence must be a text or a list of texts, got {licence!r}")
        beginnings = tuple(text.lower() for text in wanted)
    for candidate in candidates:
        if candidate.reason is not None:
            continue
        if max_params is not None and (candidate.n_params or 0) > max_params:
            candidate.reason = f"{candidate.n_params:,} parameters, and max_params={max_params:,}"
        elif licence is not None and not candidate.licence.lower().startswith(beginnings):
            stated = repr(candidate.licence) if candidate.licence else "not stated"
            candidate.reason = f"its licence is {stated}, and licence={licence!r}"


def _drawn(
    X: Any,
    y: np.ndarray,
    groups: Any,
    is_classes: bool,
    max_images: int | None,
    reading: dict[str, Any],
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return images, targets, positions and groups in the order of the draw, and where groups end.

    Duplicates are looked for among the images that are drawn.
    """
    n = len(y)
    classes = np.unique(y, return_inverse=True)[1] if is_classes else None
    if groups is None:
        groups = np.arange(n)
    else:
        groups = column_or_1d(groups)
        check_consistent_length(y, groups)
        groups = np.unique(groups, return_inverse=True)[1]
    drawn = np.sort(draw(classes, groups, max_images).positions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadableImageWarning)  # their rows are missed later
        same = near_duplicates(
            _taken(X, drawn), max_distance=_DUPLICATE_BITS, backbone=None, **reading
        ).labels
    groups = groups[drawn]
    joined = numbered(join(same, same, groups + same.max() + 1))
    order, ends = draw(None if classes is None else classes[drawn], joined, None)
    positions = drawn[order]
    return _taken(X, positions), y[positions], positions, joined[order], ends


def _taken(X: Any, positions: np.ndarray) -> Any:
    if hasattr(X, "to_pylist"):  # Arrow, which not every scikit-learn slices
        X = (X.column(0) if hasattr(X, "column_names") else X).to_pylist()
    return _safe_indexing(X, positions)


def _record(candidate: Candidate, depths: Sequence[int | None]) -> RankedBackbone:
    is_ranked = candidate.reason is None
    return RankedBackbone(
        backbone=candidate.label,
        depth=depths[candidate.depth] if is_ranked else None,
        score=candidate.mean if is_ranked else None,
        error=candidate.error if is_ranked else None,
        n_images=candidate.n_images,
        round=candidate.round if is_ranked else None,
        outcome=candidate.outcome if candidate.reason is None else candidate.reason,
        top1=candidate.top1,
        seconds=candidate.seconds,
        forward_passes=candidate.forward_passes,
        width=candidate.widths[candidate.depth] if is_ranked else None,
        n_params=candidate.n_params,
        n_bytes=candidate.n_bytes,
        licence=candidate.licence,
    )


def _estimator(
    candidate: Candidate, depths: Sequence[int | None], is_classes: bool
) -> Pipeline | None:
    if candidate.reason is not None:
        return None
    transformer = clone(candidate.transformer).set_params(depth=depths[candidate.depth])
    return make_pipeline(transformer, *(step for _, step in linear(is_classes).steps))


def _name_of(scoring: Any, is_classes: bool) -> str:
    if scoring is None:
        return "accuracy" if is_classes else "R²"
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", repr(scoring))
