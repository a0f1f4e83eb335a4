"""FewShotSplit: what an episode holds, what it is drawn from, and the errors."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.model_selection import FewShotSplit

Y = np.repeat(["ant", "bee", "cat", "dog"], [12, 20, 9, 30])


def episodes(splitter, y=Y, groups=None):
    return [(train.tolist(), test.tolist()) for train, test in splitter.split(y, y, groups)]


def test_an_episode_has_as_many_shots_and_queries_of_each_of_its_classes():
    splitter = FewShotSplit(n_way=3, k_shot=2, n_query=4, n_episodes=30, random_state=0)
    drawn = episodes(splitter)
    assert len(drawn) == splitter.get_n_splits() == 30
    seen = set()
    for train, test in drawn:
        ways, n_shots = np.unique(Y[train], return_counts=True)
        assert n_shots.tolist() == [2, 2, 2]
        others, n_queries = np.unique(Y[test], return_counts=True)
        assert others.tolist() == ways.tolist()
        assert n_queries.tolist() == [4, 4, 4]
        assert len({*train, *test}) == 3 * 6
        seen.add(tuple(ways.tolist()))
    assert len(seen) == 4  # each three of four classes


def test_without_n_way_an_episode_has_all_classes():
    (train, test), *_ = episodes(FewShotSplit(k_shot=1, n_query=8, n_episodes=1))
    assert sorted(Y[train]) == ["ant", "bee", "cat", "dog"]
    assert len(test) == 4 * 8


def test_shots_and_queries_come_in_no_order_of_the_classes():
    train, _ = next(FewShotSplit(k_shot=5, n_query=4, random_state=0).split(Y, Y))
    assert (np.diff(np.unique(Y[train], return_inverse=True)[1]) < 0).sum() > 3


def test_every_image_is_as_likely_a_shot_as_the_others_of_its_class():
    n = 3000
    counts = np.zeros(len(Y))
    for train, _ in FewShotSplit(None, 3, 6, n, random_state=0).split(Y, Y):
        counts[train] += 1
    for label in np.unique(Y):
        of = counts[label == Y]
        expected = 3 * n / len(of)
        assert np.abs(of - expected).max() < 5 * np.sqrt(expected)


def test_a_number_as_random_state_gives_the_same_episodes_each_time_and_another_others():
    splitter = FewShotSplit(2, 1, 3, 5, random_state=3)
    expected = episodes(splitter)
    for other in (splitter, copy.deepcopy(splitter), pickle.loads(pickle.dumps(splitter))):
        assert episodes(other) == expected
    assert episodes(FewShotSplit(2, 1, 3, 5, random_state=4)) != expected
    state = np.random.RandomState(3)
    moving = FewShotSplit(2, 1, 3, 5, random_state=state)
    assert episodes(moving) == expected
    assert episodes(moving) != expected


def test_no_group_has_a_shot_and_a_query_also_across_classes():
    groups = np.arange(len(Y)) % 12  # each has images of several classes
    splitter = FewShotSplit(3, 2, 4, 50, random_state=0)
    for train, test in splitter.split(Y, Y, groups):
        assert not set(groups[train]) & set(groups[test])
        assert (len(train), len(test)) == (6, 12)
    assert any(
        set(groups[train]) & set(groups[test]) for train, test in splitter.split(Y, Y)
    )  # without groups it happens


def test_groups_may_have_names_and_change_nothing_where_each_image_is_one():
    names = np.array([f"patient {i}" for i in range(len(Y))])
    splitter = FewShotSplit(2, 1, 3, 5, random_state=0)
    assert [sorted(test) for _, test in episodes(splitter, groups=names[::-1])] == [
        sorted(test) for _, test in episodes(splitter)
    ]


def test_a_large_group_is_left_to_the_queries_where_the_shots_could_not_be_without_it():
    y = np.repeat([0, 1], 24)
    groups = np.arange(48)
    groups[:20] = 0  # a shot of these 20 would leave 4 queries of class 0
    for train, _ in FewShotSplit(None, 2, 8, 100, random_state=0).split(y, y, groups):
        assert 0 not in groups[train]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=12, max_size=40),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_whatever_the_groups_an_episode_is_whole_or_there_is_an_error(pairs, k_shot, n_query):
    y, groups = np.array(pairs).T
    try:
        drawn = list(FewShotSplit(None, k_shot, n_query, 5, 0).split(y, y, groups))
    except ValueError:  # which ones, other tests say
        return
    for train, test in drawn:
        assert not set(groups[train]) & set(groups[test])
        for label in np.unique(y):
            assert (y[train] == label).sum() == k_shot
            assert (y[test] == label).sum() == n_query


@pytest.mark.parametrize(
    ("options", "y", "groups", "message"),
    [
        ({"n_way": 5}, Y, None, "n_way=5 needs 5 classes, and y has 4 .ant, bee, cat, dog."),
        ({}, np.zeros(30), None, "n_way=None needs 2 classes, and y has 1"),
        ({}, Y, None, r"class ant has 12 images, and an episode needs k_shot \+ n_query = 5 \+ 15"),
        (
            {"k_shot": 2, "n_query": 4},
            Y,
            np.repeat([0, 1, 2, 3], [12, 20, 9, 30]),
            "class ant has 12 images in 1 groups, which can't be divided into k_shot=2 and n_quer",
        ),
        (
            {"k_shot": 1, "n_query": 1},
            np.repeat([0, 1], 2),
            np.array([0, 1, 0, 1]),  # one shot of each class, from the same group: allowed
            None,
        ),
        (
            {"k_shot": 1, "n_query": 2},
            np.repeat([0, 1], 3),
            np.array([0, 1, 1, 1, 0, 0]),
            "groups leave no episode of k_shot=1 and n_query=2 without a group in both, in 100",
        ),
        ({}, None, None, "y must not be None"),
        ({}, np.linspace(0, 1, 40), None, "y is continuous, not classes"),
        ({}, np.eye(4, dtype=int)[np.arange(80) % 4], None, "y is multilabel-indicator, not cl"),
        ({}, Y, np.zeros((71, 2)), r"groups must be one for each image, got shape \(71, 2\)"),
        ({}, Y, np.zeros(3), "y has 71 labels, and groups has 3"),
    ],
)
def test_what_can_not_be_drawn_is_an_error_that_says_why(options, y, groups, message):
    X = np.zeros(len(Y) if y is None else len(y))
    splitter = FewShotSplit(**options, n_episodes=20, random_state=0)
    if message is None:
        assert len(list(splitter.split(X, y, groups))) == 20
        return
    with pytest.raises(ValueError, match=message):
        next(splitter.split(X, y, groups))


def test_lengths_that_differ_are_an_error():
    with pytest.raises(ValueError, match="X has 3 images, and y 71 labels"):
        next(FewShotSplit().split(np.zeros(3), Y))


@pytest.mark.parametrize("mixed", [["a", 2], ["a", None], [None, "a"]])
def test_names_and_others_in_one_column_are_an_error_that_says_which_column(mixed):
    mixed = np.array(mixed * 40, dtype=object)
    kinds = "int, str" if 2 in mixed else "NoneType, str"
    with pytest.raises(TypeError, match=f"y must be all strings or all numbers, got {kinds}"):
        next(FewShotSplit().split(mixed, mixed))
    with pytest.raises(TypeError, match=f"groups must be all strings or all numbers, got {kinds}"):
        next(FewShotSplit().split(mixed, np.arange(80) % 2, mixed))


def test_columns_of_data_frames_are_labels_and_groups_whatever_their_index():
    pandas = pytest.importorskip("pandas")
    splitter = FewShotSplit(2, 1, 3, 5, random_state=0)
    names = np.array([f"patient {i // 2}" for i in range(len(Y))])
    for dtype in ("object", "category", "string"):
        y, groups = (pandas.Series(of, range(99, 170), dtype) for of in (Y, names))
        assert episodes(splitter, y, groups) == episodes(splitter, Y, names)


@pytest.mark.parametrize(
    "wrong",
    [{"n_way": 1}, {"k_shot": 0}, {"n_query": 0}, {"n_episodes": 1.5}, {"random_state": "few"}],
)
def test_a_wrong_parameter_is_an_error_that_names_it(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"'{name}' parameter of FewShotSplit"):
        FewShotSplit(**wrong)


def test_its_repr_has_its_parameters():
    assert repr(FewShotSplit(5, 1, random_state=0)) == (
        "FewShotSplit(k_shot=1, n_episodes=200, n_query=15, n_way=5, random_state=0)"
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    rows = PretrainedFeatureTransformer(
        "mini", image_size=32, feature_cache=str(tmp_path_factory.mktemp("s"))
    )
    return make_pipeline(rows, StandardScaler(with_std=False), Normalizer(), LogisticRegression())


@pytest.fixture(scope="module")
def images():
    """Return 36 noisy images of three brightnesses, and their names."""
    rng = np.random.default_rng(0)
    y = np.tile(["dark", "grey", "light"], 12)
    levels = np.tile([30, 110, 190], 12)[:, None, None, None]
    return list((levels + rng.integers(0, 60, (36, 24, 24, 3))).astype(np.uint8)), y


def test_a_search_over_episodes_passes_each_image_once(model, images):
    X, y = images
    episodes = FewShotSplit(2, 2, 3, n_episodes=20, random_state=0)
    with count_forward_passes() as counter:
        search = GridSearchCV(model, {"logisticregression__C": [0.1, 1]}, cv=episodes).fit(X, y)
        cross_validate(model, X, y, cv=episodes, return_train_score=True)
    assert counter.computed == len(X)
    assert search.n_splits_ == 20
    assert search.best_score_ > 0.8


def test_groups_are_routed_to_the_episodes(images):
    y = images[1]
    rows = np.random.default_rng(0).normal(size=(36, 4))
    groups = np.arange(36) // 3
    seen = []

    def score(estimator, X, y):
        seen.append({int(groups[np.flatnonzero((rows == row).all(1))[0]]) for row in X})
        return 0.0

    options = {"cv": FewShotSplit(None, 2, 3, 4, random_state=0), "scoring": score}
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        cross_val_score(LogisticRegression(), rows, y, params={"groups": groups}, **options)
    shots = [set(groups[train].tolist()) for train, _ in options["cv"].split(rows, y, groups)]
    assert len(seen) == 4
    assert not any(of_shots & of_queries for of_shots, of_queries in zip(shots, seen, strict=True))
