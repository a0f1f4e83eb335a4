"""Cross-fitting: the folds, their networks, and the output of these for images."""

import numbers
from types import SimpleNamespace

import numpy as np
from scipy.special import logit
from sklearn.base import clone, is_classifier
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils import _safe_indexing

from ._base import warn_of_failures
from .exceptions import ImageReadError

# Share of a uniform distribution in the probabilities whose log-odds are taken. It bounds these,
# so that an overconfident network makes no outliers for the next model. In
# bench_fine_tuned_transformer.py, it is as good as unbounded log-odds.
_UNIFORM_SHARE = 0.03


def checked_folds(cv, X, y, *, is_stratified, seed, weights=None, split=None):
    """Return positions (train, test) for each fold; `split` are arguments of the splitter."""
    splitter = 5 if cv is None else cv
    if isinstance(splitter, numbers.Integral):
        kind = StratifiedKFold if is_stratified else KFold
        splitter = kind(splitter, shuffle=True, random_state=seed)
    positions = np.arange(len(y))
    try:
        folds = [
            (positions[train], positions[test])
            for train, test in check_cv(splitter).split(X, y, **(split or {}))
        ]
    except ValueError as error:
        raise ValueError(
            f"cv={cv!r} can't split the {len(y)} images: {error} Set another cv"
        ) from error
    tested = np.concatenate([test for _, test in folds])
    is_split = all(np.intersect1d(train, test).size == 0 for train, test in folds)
    if not is_split or not np.array_equal(np.sort(tested), positions):
        raise ValueError(
            f"cv={cv!r} must hold out each image in one fold, and not train on it there; "
            "use a splitter such as StratifiedKFold, KFold or GroupKFold"
        )
    if is_stratified:
        _check_classes(cv, np.ravel(y), weights, folds)
    return folds


def _check_classes(cv, y, weights, folds):
    """Raise when the network of a fold would not know a class."""
    is_used = np.ones(len(y), dtype=bool) if weights is None else np.asarray(weights) != 0
    known = [y[train][is_used[train]] for train, _ in folds]
    missing = [np.setdiff1d(y[is_used], labels) for labels in known]
    if any(labels.size for labels in missing):
        names = ", ".join(repr(label) for label in np.unique(np.concatenate(missing)).tolist())
        raise ValueError(
            f"cv={cv!r} leaves no image of the classes {names} to train on in some folds; each "
            "class needs images in at least two folds: add some, join rare classes, or set "
            "another cv"
        )


def for_a_fold(network, of_all):
    """Return the estimator to clone for each fold, given the one fitted on all images."""
    network = clone(network)
    if isinstance(network.pixel_range, str):  # "fit": one range for all networks and their rows
        low, high = of_all._pixel_range.low, of_all._pixel_range.high
        if low < high:
            network.set_params(pixel_range=(low, high))
    return network


# output of a fitted estimator


def values_of(network, X, output):
    """Return values (n_images, width), float32; NaN where an image is skipped."""
    try:
        return _of_readable(network, X, output)
    except ImageReadError as error:
        if network.on_error != "skip":
            raise
        failures, n_images = list(error.failures), error.n_images
    warn_of_failures(failures, n_images, "rows of NaN")
    good = np.delete(np.arange(n_images), [failure.position for failure in failures])
    values = np.full((n_images, width_of(network, output)), np.nan, dtype=np.float32)
    if good.size:
        values[good] = _of_readable(network, _safe_indexing(X, good), output)
    return values


def _of_readable(network, X, output):
    if output == "rows":
        values = np.mean(list(_without_head(network)._outputs_of_views(X)), axis=0)
    elif is_classifier(network):
        values = _log_odds(network.predict_proba(X), network._is_multilabel)
    else:
        values = network.predict(X)
    return values.reshape(len(values), -1).astype(np.float32)


def _log_odds(probabilities, is_multilabel):
    """Return the log-odds of each label or class; of two classes those of the second."""
    n_alternatives = 2 if is_multilabel else probabilities.shape[1]
    odds = logit((1 - _UNIFORM_SHARE) * probabilities + _UNIFORM_SHARE / n_alternatives)
    return odds if is_multilabel or n_alternatives > 2 else odds[:, 1]


def _without_head(network):
    """Return an estimator that shares the trained stages and has no head."""
    bare = object.__new__(type(network))
    stages = network.net_.module_.stages
    vars(bare).update(vars(network), net_=SimpleNamespace(module_=stages))
    return bare


def width_of(network, output):
    """Return the number of columns."""
    if output == "rows":
        standardise, *_ = network.net_.module_.head.children()
        return len(standardise.mean)
    n_outputs = network._targets.n_outputs
    is_one_of_two = is_classifier(network) and not network._is_multilabel and n_outputs == 2
    return 1 if is_one_of_two else n_outputs
