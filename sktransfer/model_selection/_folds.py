"""The folds of a search: shuffled where their number is given."""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target

N_FOLDS = 5  # where cv is None, as scikit-learn has it


def folds_of(
    cv: Any,
    X: Any,
    y: np.ndarray,
    split_params: Mapping[str, Any],
    *,
    is_classifier: bool,
    random_state: Any,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds as pairs of positions, which are the same in each round of a search.

    A number of folds is shuffled, in the proportions of classes, and keeps groups together.

    Raises
    ------
    ValueError
        When `cv` has no folds.
    """
    if cv is None or (isinstance(cv, numbers.Integral) and not isinstance(cv, bool)):
        cv = _splitter(
            N_FOLDS if cv is None else int(cv),
            is_classifier and type_of_target(y) in ("binary", "multiclass"),
            split_params.get("groups") is not None,
            check_random_state(random_state).randint(2**31 - 1),
        )
    folds = list(check_cv(cv, y, classifier=is_classifier).split(X, y, **split_params))
    if not folds:
        raise ValueError(f"cv={cv!r} has no folds; give a number, a splitter or a list of folds")
    return folds


def _splitter(n_folds: int, has_classes: bool, has_groups: bool, seed: int) -> Any:
    kinds = {
        (True, True): StratifiedGroupKFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (False, False): KFold,
    }
    return kinds[has_classes, has_groups](n_folds, shuffle=True, random_state=seed)
