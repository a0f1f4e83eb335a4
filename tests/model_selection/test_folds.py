import numpy as np
import pytest
from sklearn.model_selection import ShuffleSplit

from sktransfer.model_selection._folds import folds_of

X = np.zeros((24, 1))
GROUPS = np.arange(24) // 3


@pytest.mark.parametrize("is_classifier", [True, False])
@pytest.mark.parametrize("groups", [None, GROUPS])
def test_a_number_of_folds_is_shuffled_and_keeps_groups_together(is_classifier, groups):
    y = np.repeat([0, 1], 12)  # class by class
    split = {"groups": groups}
    given = {"is_classifier": is_classifier}
    folds = folds_of(4, X, y, split, random_state=0, **given)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(24))
    other = folds_of(4, X, y, split, random_state=1, **given)
    assert any(set(a[1]) != set(b[1]) for a, b in zip(folds, other, strict=True))
    for train, test in folds:
        if groups is not None:
            assert not set(groups[train]) & set(groups[test])
        if is_classifier:
            assert set(y[test]) == {0, 1}


def test_a_splitter_is_asked_once_so_that_all_strategies_get_the_same_folds():
    random = ShuffleSplit(3)
    folds = folds_of(random, X, np.zeros(24), {}, is_classifier=False, random_state=None)
    assert isinstance(folds, list)
    assert len(folds) == 3


def test_none_is_five_folds():
    y = np.arange(24) % 2
    assert len(folds_of(None, X, y, {}, is_classifier=True, random_state=0)) == 5
