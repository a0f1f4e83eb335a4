"""Folds that no duplicate crosses."""

import numbers
import warnings

import numpy as np
from sklearn.model_selection import BaseCrossValidator, GroupKFold, StratifiedGroupKFold
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    validate_parameter_constraints,
)
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples, check_consistent_length, column_or_1d

from ._duplicates import CONSTRAINTS, near_duplicates
from ._joining import in_order, join
from ._reading import images_in

# A fold of more than so many times its share of the images is lopsided.
_LOPSIDED = 2


class DuplicateGroups(BaseCrossValidator):
    """Split images so that no duplicate is in training and in test at once.

    A splitter for ``cv=`` of scikit-learn: it finds the duplicates, and lets another
    splitter divide the groups.

    Parameters
    ----------
    X : sequence of images, default=None
        The images that will be split; their duplicates are found at once and stored as
        `groups_`. With None, `split` finds the duplicates of each ``X``, as nested
        cross-validation needs it.
    cv : int or splitter, default=5
        Number of folds of ``StratifiedGroupKFold`` where ``y`` are classes, else of
        ``GroupKFold``; or any splitter of scikit-learn that uses groups.
    column : str, default=None
        The column of the images where `X` is a table.
    max_distance : int, default=12
        Bits in which the hashes of duplicates may differ, as in `near_duplicates`.
    min_cosine : float, default=0.95
        Least cosine of the features of duplicates, as in `near_duplicates`.
    backbone : str, path-like or None, default="mini"
        The network whose features are compared, as in `near_duplicates`.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
    pixel_range : tuple of float or "fit", default=None
        The values of arrays that mean black and white.
    feature_cache : str, path-like or None, default="auto"
        Where features are stored, as in
        :class:`~sktransfer.PretrainedFeatureTransformer`.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.

    Attributes
    ----------
    groups_ : ndarray of shape (n_images,), dtype int64
        A number for each image of `X`, the same for duplicates: for ``groups=`` of any
        splitter. Only when `X` is given.

    See Also
    --------
    near_duplicates : The duplicates themselves.

    Notes
    -----
    The splitter holds `groups_` and not the images: copies and pickles are small.

    For 60,000 groups ``StratifiedGroupKFold`` takes about ten seconds a split, and
    ``cv=GroupKFold(5)`` a tenth of one.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.hygiene import DuplicateGroups
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    >>> X, y = images[[0, 1, 2, 3, 0, 1]], [0, 1, 0, 1, 0, 1]
    >>> folds = DuplicateGroups(X, cv=2, feature_cache=None)
    >>> folds.groups_
    array([0, 1, 2, 3, 0, 1])
    >>> for train, test in folds.split(X, y):
    ...     assert not set(folds.groups_[train]) & set(folds.groups_[test])
    """

    def __init__(
        self,
        X=None,
        *,
        cv=5,
        column=None,
        max_distance=12,
        min_cosine=0.95,
        backbone="mini",
        image_shape=None,
        pixel_range=None,
        feature_cache="auto",
        n_jobs=None,
    ):
        self.column = column
        self._how = {
            "max_distance": max_distance,
            "min_cosine": min_cosine,
            "backbone": backbone,
            "image_shape": image_shape,
            "pixel_range": pixel_range,
            "feature_cache": feature_cache,
            "n_jobs": n_jobs,
        }
        self.cv = cv
        splitter = HasMethods(["split", "get_n_splits"])
        constraints = {"cv": [Interval(numbers.Integral, 2, None, closed="left"), splitter]}
        validate_parameter_constraints(
            {**constraints, **CONSTRAINTS},
            {"cv": cv, **self._how},
            caller_name=type(self).__name__,
        )
        if X is not None:
            self.groups_ = self._duplicates_of(X)

    def __repr__(self) -> str:
        known = f"<{len(self.groups_)} images>, " if hasattr(self, "groups_") else ""
        told = {**({} if self.column is None else {"column": self.column}), **self._how}
        how = ", ".join(f"{name}={value!r}" for name, value in told.items())
        return f"{type(self).__name__}({known}cv={self.cv!r}, {how})"

    def get_n_splits(self, X=None, y=None, groups=None):
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object, default=None
            As in `split`; only splitters such as ``LeaveOneGroupOut`` need them.

        Returns
        -------
        n_splits : int
        """
        if isinstance(self.cv, numbers.Integral):
            return int(self.cv)
        if X is None and not hasattr(self, "groups_"):
            return self.cv.get_n_splits(X, y, groups)
        X = self.groups_ if X is None else X
        return self.cv.get_n_splits(X, y, self._groups_of(X, groups))

    def split(self, X, y=None, groups=None):
        """Yield the positions of training and test images, fold by fold.

        Parameters
        ----------
        X : sequence of images, or table
            The images that the splitter was made with, in the same order; any images if
            it was made without `X`. Of a table, those in `column`.
        y : array-like of shape (n_images,), default=None
            Labels.
        groups : array-like of shape (n_images,), default=None
            Further groups, such as patients or cameras: neither they nor duplicates
            cross a fold.

        Yields
        ------
        train, test : ndarray of int
            Positions in `X`.

        Raises
        ------
        ValueError
            When `X` and the images that the splitter was made with differ in number, when
            there are fewer groups than folds, or when `cv` lets a group cross a fold.

        Warns
        -----
        UserWarning
            When `cv` is a number, and a fold tests more than twice its share of the images:
            its groups are too large to be divided evenly.
        """
        groups = self._groups_of(X, groups)
        # the splitters need the number of images alone, and some would validate the images
        stand_in = np.zeros(len(groups))
        folds = self._splitter(y).split(stand_in, y, groups)
        for fold, (train, test) in enumerate(folds):
            if np.isin(groups[test], groups[train]).any():
                raise ValueError(
                    f"cv={self.cv!r} lets duplicates cross a fold: pass a splitter that uses "
                    "groups, such as GroupKFold, StratifiedGroupKFold or GroupShuffleSplit"
                )
            if isinstance(self.cv, numbers.Integral):
                self._warn_of_lopsided(fold, groups[test], len(groups))
            yield train, test

    def _warn_of_lopsided(self, fold, tested, n):
        if len(tested) <= _LOPSIDED * n / self.cv:
            return
        largest = np.unique(tested, return_counts=True)[1].max()
        warnings.warn(
            f"fold {fold} tests {len(tested)} of {n} images, where {n / self.cv:.0f} would be an "
            f"even share: the largest of its groups has {largest} images, and no group is divided. "
            "Look at near_duplicates(X): a lower max_distance or a higher min_cosine joins fewer",
            UserWarning,
            stacklevel=3,
        )

    def _splitter(self, y):
        if not isinstance(self.cv, numbers.Integral):
            return self.cv
        is_classes = y is not None and type_of_target(y) in ("binary", "multiclass")
        return StratifiedGroupKFold(self.cv) if is_classes else GroupKFold(self.cv)

    def _duplicates_of(self, X) -> np.ndarray:
        return near_duplicates(images_in(X, self.column), **self._how).labels

    def _groups_of(self, X, groups) -> np.ndarray:
        """Return the duplicates' groups, joined where they share one of the user's."""
        n = _num_samples(X)
        own = getattr(self, "groups_", None)
        if own is None:
            own = self._duplicates_of(X)
        elif len(own) != n:
            raise ValueError(
                f"X has {n} images, and DuplicateGroups was made with {len(own)}; make it "
                "without X to find the duplicates of each X that is split"
            )
        if groups is None:
            return own
        groups = column_or_1d(groups)
        check_consistent_length(own, groups)
        theirs = np.unique(groups, return_inverse=True)[1] + own.max() + 1
        return in_order(join(own, own, theirs))
