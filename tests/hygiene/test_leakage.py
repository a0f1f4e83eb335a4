import inspect
import math

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.hygiene import DuplicateGroups, leakage_report, near_duplicates


@pytest.fixture(scope="module")
def leaky():
    """Return 40 images of noise with labels by chance; the last ten are the first ten."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, 2, 30)
    return list(np.concatenate([images, images[:10]])), np.concatenate([y, y[:10]])


SPLIT = [(np.arange(28), np.arange(28, 40))]  # the twins of 30 to 39 are in training


def nearest():
    return make_pipeline(PretrainedFeatureTransformer("mini"), KNeighborsClassifier(1))


def test_twins_are_counted_and_the_score_without_them_is_that_of_the_others(leaky):
    X, y = leaky
    (fold,) = leakage_report(X, y, SPLIT, estimator=nearest())
    assert (fold.fold, fold.n_test, fold.n_twins) == (0, 12, 10)
    assert fold.score_twins == 1  # the nearest neighbour of a twin is its twin
    model = nearest().fit(X[:28], y[:28])
    assert fold.score == accuracy_score(y[28:], model.predict(X[28:]))
    assert fold.score_without == accuracy_score(y[28:30], model.predict(X[28:30]))


def test_labels_by_chance_score_high_by_twins_alone(leaky):
    X, y = leaky
    cv = StratifiedKFold(4, shuffle=True, random_state=0)
    report = leakage_report(X, y, cv, estimator=nearest())
    assert report.n_test == 40
    assert [fold.fold for fold in report] == [0, 1, 2, 3]
    assert all(fold.n_twins and fold.score_twins == 1 for fold in report)
    assert report.score > report.score_without


def test_folds_by_duplicates_leak_nothing(leaky):
    X, y = leaky
    report = leakage_report(X, y, DuplicateGroups(X, cv=3), estimator=DummyClassifier())
    assert report.n_twins == 0
    for fold in report:
        assert fold.score == fold.score_without
        assert math.isnan(fold.score_twins)


def test_where_every_test_image_has_a_twin_the_score_without_is_nan(leaky):
    X, y = leaky
    split = [(np.arange(30), np.arange(30, 40))]
    (fold,) = leakage_report(X, y, split, estimator=DummyClassifier())
    assert math.isnan(fold.score_without)
    assert fold.score == fold.score_twins


def test_the_mean_without_twins_is_over_the_folds_that_have_one(leaky):
    X, y = leaky
    splits = [(np.arange(30), np.arange(30, 40)), (np.arange(20), np.arange(20, 30))]
    first, second = report = leakage_report(X, y, splits, estimator=DummyClassifier())
    assert math.isnan(first.score_without)
    assert report.score_without == second.score_without
    assert report.score == (first.score + second.score) / 2


def test_masks_groups_and_scoring_are_those_of_scikit_learn(leaky):
    X, y = leaky
    mask = np.arange(40) < 28
    by_mask = leakage_report(X, y, [(mask, ~mask)], estimator=DummyClassifier())
    assert by_mask[0].n_twins == 10
    labels = near_duplicates(X).labels
    by_group = leakage_report(
        X, y, GroupKFold(2), groups=labels, estimator=DummyClassifier(), scoring="neg_log_loss"
    )
    assert by_group.n_twins == 0
    assert by_group.score < 0


def test_the_default_is_a_logistic_regression_on_stored_features(leaky, cache):
    X, y = leaky
    with count_forward_passes() as counter:
        report = leakage_report(X, y, 2, feature_cache=cache)
    assert counter.computed == 30  # each picture once, over folds and scores
    model = make_pipeline(PretrainedFeatureTransformer("mini"), LogisticRegression(max_iter=1000))
    assert report.score == leakage_report(X, y, 2, estimator=model).score


def test_it_prints_as_a_table_and_becomes_a_frame(leaky):
    X, y = leaky
    report = leakage_report(X, y, SPLIT, estimator=nearest())
    first, header, row = repr(report).splitlines()
    assert first.startswith("10 of 12 test images (83.3%) have a twin in training; score ")
    assert header.split()[:3] == ["fold", "n_test", "n_twins"]
    assert row.split()[:3] == ["0", "12", "10"]
    assert report.to_frame()["n_twins"].tolist() == [10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": "some"}, "'cv' parameter of leakage_report"),
        ({"estimator": "svm"}, "'estimator' parameter of leakage_report"),
        ({"min_cosine": 2}, "'min_cosine' parameter of leakage_report"),
        ({"backbone": None}, "backbone=None leaves nothing to score with; pass an estimator"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(leaky, options, message):
    with pytest.raises(ValueError, match=message):
        leakage_report(*leaky, **options)


def test_x_and_y_of_different_lengths_are_refused(leaky):
    X, y = leaky
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        leakage_report(X, y[:3])


@pytest.mark.parametrize("face", [DuplicateGroups, leakage_report])
def test_defaults_are_those_of_near_duplicates(face):
    defaults = inspect.signature(near_duplicates).parameters
    theirs = inspect.signature(face).parameters
    for name, parameter in defaults.items():
        if name != "X":
            assert theirs[name].default == parameter.default, name


def test_duplicates_that_share_a_fold_are_counted_and_said(leaky):
    X, y = leaky
    order = np.argsort(np.r_[np.arange(30), np.arange(10)], kind="stable")  # twins side by side
    X, y = [X[i] for i in order], y[order]
    split = [(np.arange(20, 40), np.arange(20))]  # the ten pairs are in one fold
    report = leakage_report(X, y, split, estimator=DummyClassifier())
    assert (report.n_twins, report.n_together) == (0, 20)
    assert "20 more have a duplicate in their own fold" in repr(report)
    split = [(np.arange(1, 20, 2), np.arange(0, 20, 2))]
    report = leakage_report(X, y, split, estimator=DummyClassifier())
    assert (report.n_twins, report.n_together) == (10, 0)
    assert "own fold" not in repr(report)


def test_of_a_table_the_named_column_is_compared_and_the_estimator_gets_the_table(leaky):
    pandas = pytest.importorskip("pandas")
    X, y = leaky
    table = pandas.DataFrame({"age": np.arange(40), "photo": X})
    columns = make_column_transformer((PretrainedFeatureTransformer("mini"), ["photo"]))
    model = make_pipeline(columns, KNeighborsClassifier(1))
    (fold,) = leakage_report(table, y, SPLIT, estimator=model, column="photo")
    (expected,) = leakage_report(X, y, SPLIT, estimator=nearest())
    assert fold == expected
    assert leakage_report(table, y, SPLIT, column="photo")[0].n_twins == 10


def test_numbers_are_scored_by_a_regression(leaky):
    X, _ = leaky
    numbers = np.random.default_rng(1).normal(size=40)
    (fold,) = leakage_report(X, numbers, SPLIT)
    assert fold.n_twins == 10
    assert np.isfinite([fold.score, fold.score_without, fold.score_twins]).all()


def test_a_splitter_gets_the_table_with_the_default_estimator_too(leaky):
    pandas = pytest.importorskip("pandas")
    X, y = leaky
    table = pandas.DataFrame({"photo": X, "place": range(len(X))})
    report = leakage_report(table, y, DuplicateGroups(column="photo", cv=2), column="photo")
    assert report.n_twins == 0
