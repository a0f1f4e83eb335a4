"""Checks of the arguments of `fit`, before an image is read."""

import numbers
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_sample_weight, _num_samples, check_consistent_length

from ._domains import Domains
from .images._augment import make_augmentation
from .images._collection import is_missing
from .training._naming import name_of
from .training._net import check_callbacks, check_net_params
from .training._recipe import is_auto

# Parameters that may hold code of the user, which is part of a checkpoint's name.
_NAMED_IN_CHECKPOINTS = (
    "head",
    "optimizer",
    "optimizer_params",
    "augment",
    "callbacks",
    "net_params",
)


def check_present(y, title):
    """Raise where targets are missing, or are text and numbers together.

    scikit-learn names neither which, nor how many. In an array of text None and NaN would
    become classes of these names, and 1 that of "1".
    """
    if y is None or issparse(y):
        return
    values = np.array(y, dtype=object) if isinstance(y, (list, tuple)) else np.asarray(y)
    if values.dtype.kind not in "fO" or values.ndim == 0:
        return
    rows = values.reshape(len(values), -1) if len(values) else values
    if values.dtype.kind == "f":
        is_bad = np.isnan(rows)
    else:
        is_bad = np.array([[is_missing(value) for value in row] for row in rows], dtype=bool)
    bad = np.flatnonzero(is_bad.any(axis=1)) if is_bad.size else is_bad
    if len(bad):
        raise ValueError(
            f"{title} contains NaN, None or NA: {len(bad)} of {len(values)} images have no target, "
            f"the first at position {bad[0]}; leave these images out, or label them"
        )
    if values.dtype.kind == "O":
        _check_one_kind(rows.ravel().tolist(), title)


def _check_one_kind(values, title):
    """Raise where text and other values are mixed."""
    text = [value for value in values if isinstance(value, str)]
    other = [value for value in values if not isinstance(value, str)]
    if text and other:
        raise ValueError(
            f"{title} mixes text and other values, such as {str(text[0])!r} and {other[0]} (of "
            f"type {type(other[0]).__name__}); give labels of one type, as with "
            f"[str(label) for label in {title}]"
        )


def check_combinations(estimator, X_val, y_val):
    """Raise for parameters of an estimator and of `fit` that can't be combined."""
    head = estimator.head
    if isinstance(head, (tuple, list)) and not all(
        isinstance(width, numbers.Integral) and int(width) > 0 for width in head
    ):
        raise ValueError(f"head must be 'linear', widths > 0 or a callable, got {head!r}")
    if callable(head) and estimator.dropout and not is_auto(estimator.dropout):
        raise ValueError(
            f"dropout={estimator.dropout} has no place in a head that a callable makes; set "
            "dropout=0 and put dropout into the module"
        )
    if head != "linear" and not is_auto(estimator.probe_weight) and estimator.probe_weight:
        raise ValueError(
            f"probe_weight={estimator.probe_weight} needs head='linear', which starts from a "
            f"linear probe, got head={head!r}; set probe_weight=0"
        )
    if (X_val is None) != (y_val is None):
        given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
        raise ValueError(f"{given} is given without {missing}; pass both to fit")
    if X_val is not None and not estimator.early_stopping:
        raise ValueError("X_val and y_val are used by early stopping only; set early_stopping=True")
    if not is_auto(estimator.augment):
        views = None if is_auto(estimator.augment_views) else estimator.augment_views
        check_views(estimator, estimator.augment, views)
    for name, own in (("lr", "lr"), ("weight_decay", "weight_decay"), ("params", "optimizer")):
        if name in (estimator.optimizer_params or {}):
            raise ValueError(
                f"optimizer_params must not hold {name!r}; set the parameter {own}= of "
                f"{type(estimator).__name__}"
            )
    check_net_params(estimator.net_params or {}, type(estimator).__name__)
    check_callbacks(estimator.callbacks or (), type(estimator).__name__)
    if estimator.checkpoint_dir is not None:  # an error here, not after the images are read
        for name in _NAMED_IN_CHECKPOINTS:
            name_of(getattr(estimator, name), name)


def check_adaptation(estimator, adapt, goes_on):
    """Raise for parameters and calls that can't be combined with `adapt`."""
    if adapt is None:
        return
    if goes_on:
        raise ValueError(
            f"adapt={adapt!r} trains from the pretrained network, with all images of both domains; "
            "use fit with warm_start=False, not partial_fit"
        )
    if estimator.batch_norm != "frozen":
        raise ValueError(
            f"adapt={adapt!r} needs batch_norm='frozen', got {estimator.batch_norm!r}: running "
            "means over two domains suit neither"
        )


def check_targets_left(adapt, n):
    """Raise where so few images of the target are left that they have no deviation."""
    if n < 2:
        raise ValueError(
            f"adapt={adapt!r} standardises the images of the target domain by their own mean and "
            f"deviation, and {n} of them {'is' if n == 1 else 'are'} left; give two at least, "
            "better some dozens"
        )


def check_views(estimator, augment, augment_views):
    """Raise for parameters of random views if nothing is augmented."""
    make_augmentation(augment)  # an error here, not after the images are read
    n_views = 1 if isinstance(estimator.tta, str) else estimator.tta
    for name, value, default in (("augment_views", augment_views, None), ("tta", n_views, 1)):
        if augment is None and value != default:
            raise ValueError(
                f"{name}={value} needs random views of images; set augment='light' or another "
                f"augmentation, or {name}={default}"
            )


def column_names(y):
    """Return the column names of targets in a DataFrame; None where they are not all strings."""
    names = list(getattr(y, "columns", ()))
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return np.array(names, dtype=object)


def check_column_names(names, fitted, title):
    """Raise when targets have other column names than those of the fit, or in another order.

    `names` and `fitted` are None where targets had none. `title` is the argument of `fit`.
    """
    if names is None or fitted is None or np.array_equal(names, fitted):
        return
    names, fitted = names.tolist(), fitted.tolist()
    message = f"{title} has the columns {names}, and the first call of fit had {fitted}"
    if sorted(names) == sorted(fitted):
        raise ValueError(f"{message}, in this order; pass {title}[{fitted}]")
    unknown = [name for name in names if name not in fitted]
    missing = [name for name in fitted if name not in names]
    raise ValueError(
        f"{message}; unknown: {unknown}, missing: {missing}. Pass the same columns, or fit anew "
        "with warm_start=False"
    )


def nonzero_weights(X, y, sample_weight):
    """Return the positions of the images whose weight is not zero, and their weights."""
    n = _num_samples(X)
    if sample_weight is None:
        return np.arange(n), np.ones(n)
    if y is not None:
        check_consistent_length(X, y)
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if np.any(weights < 0):
        raise ValueError(
            f"sample_weight must not be negative, got {weights.min()} for X[{weights.argmin()}]"
        )
    kept = np.flatnonzero(weights)
    if not kept.size:  # newer versions of scikit-learn say so themselves
        raise ValueError("sample_weight must contain at least one non-zero number")
    return kept, weights[kept]


class FitRows(NamedTuple):
    """What a fit trains on of what it was given: images of weight 0 and labels of targets are not.

    Attributes
    ----------
    X : sequence of images
        Those with a label, and after them those of the target domain, if they are used.
    y : array-like
        Labels of the former.
    weights : ndarray of shape (n_labelled,)
    positions : ndarray of shape (len(X),)
        Where the images are in what was given.
    n_given : int
    """

    X: Any
    y: Any
    weights: np.ndarray
    positions: np.ndarray
    n_given: int

    @property
    def n_labelled(self) -> int:
        """Number of images with a label."""
        return len(self.weights)


def rows_to_fit(X, y, sample_weight, domains: Domains | None, adapt: str | None) -> FitRows:
    """Return the images with a label and a weight, and those of the target to `adapt` to.

    Without `domains` all images have a label. Labels and weights of targets are not read.
    """
    n = _num_samples(X)
    if domains is None:
        positions, weights = nonzero_weights(X, y, sample_weight)
        if len(positions) < n:  # images of weight 0 have no effect, on pixel_range either
            X, y = _safe_indexing(X, positions), _safe_indexing(y, positions)
        return FitRows(X, y, weights, positions, n)
    if not len(domains.source):
        raise ValueError(
            f"none of the {n} images is of a source domain, so that none has a label to learn "
            "from; sample_domain must have numbers above 0"
        )
    if adapt is not None and not len(domains.target):
        raise ValueError(
            f"adapt={adapt!r} needs images of a target domain in fit, and all {n} are of a source; "
            "give sample_domain with numbers below 0 for them, or mask their labels, if these are "
            "numbers, with -1"
        )
    if adapt is not None:
        check_targets_left(adapt, len(domains.target))
    if sample_weight is not None and np.ndim(sample_weight) > 0:
        check_consistent_length(X, sample_weight)
        of_all = np.ones(n)  # of the target whatever passes the check
        of_all[domains.source] = _safe_indexing(sample_weight, domains.source)
        sample_weight = of_all
    nonzero, weights = nonzero_weights(X, None, sample_weight)
    is_labelled = ~domains.target_in(nonzero)
    labelled, weights = nonzero[is_labelled], weights[is_labelled]
    if not len(labelled):
        raise ValueError("sample_weight must contain at least one non-zero number for the source")
    if y is not None:
        domains.source_labels(y)  # one for each image?
        y = _safe_indexing(y, labelled)
    positions = labelled if adapt is None else np.concatenate([labelled, domains.target])
    return FitRows(_safe_indexing(X, positions), y, weights, positions, n)


def hold_out(n, fraction, seed, strata):
    """Return positions to train on, and positions to validate on, both sorted.

    With `strata`, both have its values in the same proportions.
    """
    try:
        train, held_out = train_test_split(
            np.arange(n), test_size=fraction, random_state=seed, stratify=strata
        )
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True can't hold out validation_fraction={fraction} of {n} images: "
            f"{error}; set another fraction, pass X_val and y_val to fit, or early_stopping=False"
        ) from None
    return np.sort(train), np.sort(held_out)
