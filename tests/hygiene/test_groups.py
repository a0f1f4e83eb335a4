import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer
from sktransfer.hygiene import DuplicateGroups


@pytest.fixture(scope="module")
def images():
    """Return 24 images of noise: the last twelve are the first twelve again."""
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    return np.concatenate([images, images])


@pytest.fixture(scope="module")
def y():
    return np.tile(["ant", "bee"], 12)


def crossing(splits, groups):
    return [set(groups[train]) & set(groups[test]) for train, test in splits]


def test_groups_are_those_of_the_duplicates(images):
    assert DuplicateGroups(images).groups_.tolist() == [*range(12), *range(12)]


@pytest.mark.parametrize(
    "cv", [3, GroupKFold(4), StratifiedGroupKFold(2), GroupShuffleSplit(3), LeaveOneGroupOut()]
)
def test_no_duplicate_crosses_a_fold(images, y, cv):
    folds = DuplicateGroups(images, cv=cv)
    splits = list(folds.split(images, y))
    assert len(splits) == folds.get_n_splits(images, y) == folds.get_n_splits()
    assert crossing(splits, folds.groups_) == [set()] * len(splits)
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(24))


def test_groups_serve_the_splitters_of_scikit_learn(images, y):
    groups = DuplicateGroups(images).groups_
    assert crossing(GroupKFold(3).split(images, y, groups), groups) == [set()] * 3


def test_classes_are_stratified_and_numbers_are_not(images, y):
    folds = DuplicateGroups(images, cv=2)
    for _, test in folds.split(images, y):
        assert (y[test] == "ant").sum() == 6
    assert len(list(folds.split(images, np.linspace(0, 1, 24)))) == 2
    assert len(list(folds.split(images))) == 2


def test_it_is_cv_of_cross_validation_and_grid_search(images, y):
    model = make_pipeline(PretrainedFeatureTransformer("mini"), LogisticRegression())
    X = list(images)
    assert cross_val_score(model, X, y, cv=DuplicateGroups(X, cv=2)).shape == (2,)
    grid = {"logisticregression__C": [0.1, 1]}
    nested = GridSearchCV(model, grid, cv=DuplicateGroups(cv=2))
    assert cross_val_score(nested, X, y, cv=DuplicateGroups(X, cv=3)).shape == (3,)


def test_made_without_images_it_finds_the_duplicates_of_what_is_split(images, y):
    folds = DuplicateGroups(cv=3)
    assert not hasattr(folds, "groups_")
    groups = np.tile(np.arange(6), 2)
    some = np.concatenate([images[:6], images[12:18]])
    assert crossing(folds.split(some, y[:12]), groups) == [set()] * 3


def test_neither_duplicates_nor_further_groups_cross_a_fold(images, y):
    patients = np.repeat(np.arange(8), 3)
    folds = DuplicateGroups(images, cv=2)
    splits = list(folds.split(images, y, groups=patients))
    assert crossing(splits, patients) == [set()] * 2
    assert crossing(splits, folds.groups_) == [set()] * 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30))
def test_joined_groups_are_the_finest_that_hold_both_together(pairs):
    own, theirs = np.array(pairs).T
    folds = DuplicateGroups()
    folds.groups_ = own
    joined = folds._groups_of(own, theirs)
    expected = list(range(len(own)))
    for i in range(len(own)):  # the slow way: paint one colour over the other
        for j in range(i):
            if own[i] == own[j] or theirs[i] == theirs[j]:
                old, new = expected[i], expected[j]
                expected = [new if colour == old else colour for colour in expected]
    same = np.equal.outer(np.array(expected), np.array(expected))
    assert (np.equal.outer(joined, joined) == same).all()


def test_a_splitter_that_ignores_groups_is_refused(images, y):
    class Halves(KFold):
        def split(self, X, y=None, groups=None):
            return super().split(X, y)

    with pytest.raises(ValueError, match=r"cv=.* lets duplicates cross a fold: pass a splitter"):
        list(DuplicateGroups(images, cv=Halves(2)).split(images, y))


def test_other_images_than_it_was_made_with_are_refused(images, y):
    with pytest.raises(ValueError, match="X has 3 images, and DuplicateGroups was made with 24"):
        next(DuplicateGroups(images).split(images[:3], y[:3]))


def test_copies_and_pickles_hold_no_image(images, y):
    folds = DuplicateGroups(images, cv=2)
    assert len(pickle.dumps(folds)) < 2000
    for other in (copy.deepcopy(folds), pickle.loads(pickle.dumps(folds))):
        expected = [test.tolist() for _, test in folds.split(images, y)]
        assert [test.tolist() for _, test in other.split(images, y)] == expected


def test_its_repr_says_how_it_splits(images):
    assert repr(DuplicateGroups(images, cv=3)).startswith("DuplicateGroups(<24 images>, cv=3, max")
    assert repr(DuplicateGroups()).startswith("DuplicateGroups(cv=5, max_distance=12")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": 1}, "'cv' parameter of DuplicateGroups"),
        ({"cv": None}, "'cv' parameter of DuplicateGroups"),
        ({"min_cosine": 2}, "'min_cosine' parameter of DuplicateGroups"),
        ({"max_distance": "few"}, "'max_distance' parameter of DuplicateGroups"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(options, message):
    with pytest.raises(ValueError, match=message):
        DuplicateGroups(**options)


def table_of(images):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"photo": list(images), "age": np.arange(len(images))})


def test_of_a_table_the_named_column_has_the_images(images, y):
    table = table_of(images)
    known = DuplicateGroups(table, cv=3, column="photo")
    assert known.groups_.tolist() == [*range(12), *range(12)]
    unknown = DuplicateGroups(cv=3, column="photo")
    for one, other in zip(known.split(table, y), unknown.split(table, y), strict=True):
        np.testing.assert_array_equal(one[1], other[1])
    assert "column='photo'" in repr(known)


def test_a_column_that_is_not_there_is_named_with_those_that_are(images, y):
    with pytest.raises(ValueError, match=r"column='picture' is no column.*'photo', 'age'"):
        next(DuplicateGroups(cv=3, column="picture").split(table_of(images), y))
    with pytest.raises(TypeError, match=r"column='photo' names a column of a table, got .*ndarray"):
        DuplicateGroups(images, column="photo")


def test_folds_that_large_groups_make_lopsided_are_told(images, y):
    groups = np.r_[np.zeros(20, int), np.arange(1, 5)]
    images = np.random.default_rng(1).integers(0, 256, images.shape, dtype=np.uint8)
    folds = DuplicateGroups(images, cv=4)
    with pytest.warns(UserWarning, match=r"fold \d tests 2\d of 24 images.*groups has 20 images"):
        list(folds.split(images, y, groups))
