"""TransferSearchCV as a user meets it: one search over drawn digits, and its parts."""

import pickle

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.fixes import parse_version

from sktransfer import FineTunedClassifier, FineTunedRegressor, count_forward_passes
from sktransfer.inspection import TrainingCurveDisplay
from sktransfer.model_selection import FewShotSplit, TransferSearchCV
from sktransfer.model_selection._strategies import short_names

N = 45
FEW = {"depths": (None, -1), "recipes": ("fast",), "freeze_depths": (-1,), "cv": 3}
FEW |= {"random_state": 0}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(n_class=3, return_X_y=True)
    return X[:N], y[:N]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Return a maker of classifiers with a store of their own."""

    def classifier(kind=FineTunedClassifier, **parameters):
        return kind(
            "mini",
            image_shape=(8, 8),
            pixel_range=(0, 16),
            image_size=32,
            precision="float32",
            max_epochs=2,
            random_state=0,
            feature_cache=str(tmp_path_factory.mktemp("store")),
            **parameters,
        )

    return classifier


@pytest.fixture(scope="module")
def fitted(digits, make):
    with count_forward_passes() as counter:
        search = TransferSearchCV(make(), **FEW).fit(*digits)
    return search, counter.computed


def test_it_predicts_with_the_best_strategy_fitted_to_all_images(fitted, digits):
    search, _ = fitted
    X, y = digits
    means = search.cv_results_["mean_test_score"]
    assert search.best_index_ == means.argmax()
    assert search.best_score_ == means.max()
    by_hand = clone(search.best_estimator_).fit(X, y)
    np.testing.assert_array_equal(search.predict(X), by_hand.predict(X))
    assert search.classes_.tolist() == [0, 1, 2]
    assert search.n_features_in_ == 64


def test_scores_are_those_of_cross_validation_on_the_same_folds(fitted, digits):
    search, _ = fitted
    X, y = digits
    seed = np.random.RandomState(0).randint(2**31 - 1)
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    by_hand = cross_val_score(search.best_estimator_, X, y, cv=folds)
    i = search.best_index_
    np.testing.assert_allclose([search.cv_results_[f"split{k}_test_score"][i] for k in range(3)],
                               by_hand)  # fmt: skip


def test_each_image_passes_once_for_the_rows_of_all_depths_and_heads(fitted):
    search, n_passes = fitted
    rows = [result for result in search.strategies_ if result.kind == "rows"]
    assert len(rows) > 10
    assert {result.forward_passes for result in rows if result.score is not None} == {N}
    tuned = sum(r.forward_passes or 0 for r in search.strategies_ if r.kind == "fine-tuning")
    assert n_passes == N + tuned


def test_cheap_strategies_come_first_and_each_has_a_readable_name(fitted):
    search, _ = fitted
    names = search.cv_results_["strategy"].tolist()
    assert names[:3] == [
        "pixels, logistic regression C=0.01",
        "rows of mini, depth None, logistic regression C=0.01",
        "rows of mini, depth None, LDA of unit length",
    ]
    assert names[-1] == "fine-tuned mini, depth -1, fast"
    assert "rows of mini, depth -1, LDA" in names
    assert len(set(names)) == len(names) == search.n_fits_ / 3


def test_the_table_has_scores_with_paired_errors_and_prints_them(fitted):
    search, _ = fitted
    first, *others = search.strategies_
    assert first.status == "best"
    assert first.below == 0
    assert first.score == search.best_score_
    scores = {}
    for i, name in enumerate(search.cv_results_["strategy"]):
        scores[name] = np.array([search.cv_results_[f"split{k}_test_score"][i] for k in range(3)])
    for other in [result for result in others if result.score is not None]:
        differences = scores[other.strategy] - scores[first.strategy]
        assert other.below == pytest.approx(differences.mean())
        assert other.error == pytest.approx(differences.std(ddof=1) / np.sqrt(3))
        clearly = differences.mean() + 2 * other.error < 0
        assert other.status == ("worse" if clearly else "within noise")
    assert f"{len(scores)} strategies tried" in repr(search.strategies_)
    assert len(search.strategies_.to_frame()) == len(search.strategies_)


def test_the_answer_names_the_best_frozen_strategy_and_what_fine_tuning_adds(fitted):
    search, _ = fitted
    frozen = next(r for r in search.strategies_ if r.kind != "fine-tuning")
    assert search.answer_.startswith(f"{frozen.strategy}: {frozen.score:.3f} ± ")
    assert "fine-tuned mini, depth -1, fast " in search.answer_
    assert search.answer_.endswith("times the time")


def test_a_pickled_search_predicts_the_same(fitted, digits):
    search, _ = fitted
    loaded = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(loaded.predict_proba(digits[0]), search.predict_proba(digits[0]))
    assert loaded.answer_ == search.answer_
    assert list(loaded.strategies_) == list(search.strategies_)


def test_a_clone_is_not_fitted_and_has_the_same_parameters(fitted):
    search, _ = fitted
    copied = clone(search)
    assert not hasattr(copied, "best_estimator_")
    assert copied.get_params(deep=False).keys() == search.get_params(deep=False).keys()
    assert copied.set_params(estimator__recipe="thorough").estimator.recipe == "thorough"


def test_two_workers_find_what_one_finds(fitted, digits):
    search, _ = fitted
    same = clone(search).set_params(n_jobs=2, recipes=()).fit(*digits)
    n = len(same.cv_results_["strategy"])
    assert same.cv_results_["strategy"].tolist() == search.cv_results_["strategy"].tolist()[:n]
    np.testing.assert_array_equal(
        same.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"][:n]
    )


def test_a_second_search_passes_no_image_whose_rows_are_stored(fitted, digits):
    search, _ = fitted
    with count_forward_passes() as counter:
        clone(search).fit(*digits)
    assert counter.computed == 0


def test_it_can_be_cross_validated(make, digits):
    search = TransferSearchCV(make(), **{**FEW, "recipes": (), "depths": (-1,)})
    assert cross_val_score(search, *digits, cv=2).min() > 0.8


def test_the_best_fine_tuned_estimator_is_drawn_as_any_other(make, digits):
    pytest.importorskip("matplotlib").use("Agg")
    parameters = {**FEW, "depths": (), "pixels": False, "cv": 2}
    search = TransferSearchCV(make(), **parameters).fit(*digits)
    assert TrainingCurveDisplay.from_estimator(search).epochs.tolist() == [1, 2]
    assert search.answer_.startswith("fine-tuned mini, depth -1, fast: ")


def test_over_episodes_heads_suit_the_images_of_each_class_of_an_episode(make):
    X, y = load_digits(return_X_y=True)
    episodes = FewShotSplit(n_way=2, k_shot=2, n_query=2, n_episodes=3, random_state=0)
    rows_only = {"pixels": False, "depths": (None,), "recipes": (), "n_std_errors": None}
    search = TransferSearchCV(make(), **rows_only, cv=episodes).fit(X[:80], y[:80])
    names = list(search.cv_results_["strategy"])
    assert names[1].endswith("LDA of unit length")
    knn = next(i for i, name in enumerate(names) if name.endswith("kNN"))
    assert "n_neighbors=2" in str(search.cv_results_["params"][knn])


def test_no_folds_are_an_error_that_names_cv(make, digits):
    with pytest.raises(ValueError, match=r"cv=\[\] has no folds"):
        TransferSearchCV(make(), cv=[]).fit(*digits)


def test_it_has_no_transform_whatever_model_is_the_best(make, digits):
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
    search = TransferSearchCV(make(), heads={"LDA": lda}, recipes=(), pixels=False, cv=2)
    search.fit(*digits)
    assert hasattr(search.best_estimator_, "transform")  # which raises NotImplementedError
    assert not hasattr(search, "transform")


def test_heads_of_the_user_are_tried_in_place_of_the_default_ones(make, digits):
    heads = {"one": KNeighborsClassifier(1), "linear": LogisticRegression()}
    parameters = {**FEW, "heads": heads, "recipes": (), "depths": (-1,)}
    search = TransferSearchCV(make(), **parameters).fit(*digits)
    assert search.cv_results_["strategy"].tolist() == [
        "pixels, one",
        "rows of mini, depth -1, one",
        "rows of mini, depth -1, linear",
    ]


def test_numbers_are_searched_with_several_metrics_and_the_one_of_refit_compares(make, digits):
    X, y = digits
    scoring = {"r2": "r2", "error": "neg_mean_absolute_error"}
    parameters = {**FEW, "recipes": (), "depths": (-1,), "scoring": scoring, "refit": "error"}
    search = TransferSearchCV(make(FineTunedRegressor), **parameters).fit(X, y.astype(float))
    assert search.strategies_[0].score == search.cv_results_["mean_test_error"].max()
    assert search.strategies_.metric == "error"
    assert search.predict(X).dtype == np.float64


def test_labels_of_several_classes_an_image_are_searched(make, digits):
    X, y = digits
    parameters = {**FEW, "recipes": (), "depths": (-1,)}
    search = TransferSearchCV(make(), **parameters).fit(X, np.stack([y == 0, y > 1], 1).astype(int))
    assert search.predict(X).shape == (N, 2)
    assert search.best_score_ > 0.8


def test_groups_never_cross_folds_and_weights_leave_out_heads_without_them(make, digits):
    X, y = digits
    groups, seen = np.arange(N) // 3, []

    def scoring(estimator, X, y, sample_weight=None):
        seen.append({groups[np.flatnonzero((digits[0] == row).all(1))[0]] for row in X})
        return estimator.score(X, y)

    parameters = {**FEW, "recipes": (), "depths": (-1,), "scoring": scoring}
    weights = np.where(y == 2, 0.0, 1.0)
    search = TransferSearchCV(make(), **parameters)
    search.fit(X, y, groups=groups, sample_weight=weights)
    assert sum(map(len, seen[:3])) == len(set(groups))
    assert not any("kNN" in name for name in search.cv_results_["strategy"])
    assert 2 not in search.predict(X)


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.7"),
    reason="no search of scikit-learn 1.6 routes weights to the score of a pipeline",
)
def test_weights_are_routed_to_the_fits_of_all_strategies(make, digits):
    X, y = digits
    weights = np.where(y == 2, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        template = make().set_fit_request(sample_weight=True)
        template.set_score_request(sample_weight=True)
        search = TransferSearchCV(template, **{**FEW, "depths": (-1,)})
        search.fit(X, y, sample_weight=weights)
    assert 2 not in search.predict(X)
    assert search.cv_results_["strategy"][-1].startswith("fine-tuned")


def test_folds_of_the_user_are_used_as_they_are(make, digits):
    X, y = digits
    folds = [(np.arange(30), np.arange(30, N))]
    parameters = {**FEW, "recipes": (), "depths": (-1,), "cv": folds}
    search = TransferSearchCV(make(), **parameters).fit(X, y)
    assert search.n_splits_ == 1
    best = search.best_estimator_
    by_hand = clone(best).fit(X[:30], y[:30]).score(X[30:], y[30:])
    assert search.best_score_ == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"estimator": LogisticRegression()}, "must be a FineTunedClassifier or a FineTuned"),
        ({"recipes": ("quick",)}, "'fast', 'default', 'thorough', got 'quick'"),
        ({"heads": {}}, "heads must not be empty"),
        ({"backbones": []}, "backbones must not be empty"),
        ({"max_fits": 2}, "less than the 3 folds"),
        ({"pixels": False, "depths": (), "recipes": ()}, "nothing is left to try"),
    ],
)
def test_what_can_not_be_searched_is_refused(make, digits, parameters, message):
    search = TransferSearchCV(**{"estimator": make(), **FEW, **parameters})
    with pytest.raises((TypeError, ValueError), match=message):
        search.fit(*digits)


def test_parameters_of_fit_that_need_routing_say_so(make, digits):
    with pytest.raises(TypeError, match=r"got 'X_val'.*enable_metadata_routing=True"):
        TransferSearchCV(make(), **FEW).fit(*digits, X_val=digits[0])


@pytest.mark.parametrize("kind", ["paths", "list of paths", "4-D array", "PIL images", "table"])
def test_images_of_any_kind_are_searched(shapes, cache, kind):
    X, y = shapes
    if kind == "list of paths":
        X = X.tolist()
    elif kind == "table":
        X = pytest.importorskip("pandas").DataFrame({"photo": X})
    elif kind != "paths":
        X = [Image.open(path).convert("RGB") for path in X]
        X = np.stack([np.asarray(image) for image in X]) if kind == "4-D array" else X
    template = FineTunedClassifier("mini", image_size=32, feature_cache=str(cache))
    search = TransferSearchCV(template, **{**FEW, "recipes": (), "depths": (None,), "cv": 2})
    assert search.fit(X, y).best_score_ > 0.9
    assert search.predict(X[:3]).shape == (3,)
    if kind == "table":
        assert search.feature_names_in_.tolist() == ["photo"]


def test_several_backbones_are_named_and_tried_without_a_store_too(make, digits, mini_file):
    parameters = {**FEW, "recipes": (), "depths": (None,), "pixels": False, "cv": 2}
    template = make().set_params(feature_cache=None)
    search = TransferSearchCV(template, backbones=["mini", mini_file], **parameters)
    search.fit(digits[0][:30], digits[1][:30])
    networks = {}
    for name, score in zip(
        search.cv_results_["strategy"], search.cv_results_["mean_test_score"], strict=True
    ):
        network, _, head = name.split(", ")[0], *name.split(", ")[1:]
        networks.setdefault(network, {})[head] = score
    # both are the same network
    assert list(networks) == ["rows of mini", f"rows of {mini_file}"]
    assert networks["rows of mini"] == networks[f"rows of {mini_file}"]


def test_files_are_named_without_folder_where_that_tells_them_apart():
    assert short_names(["/a/x.safetensors", "/a/y.safetensors"]) == ["x", "y"]
    assert short_names(["/a/x.safetensors", "/b/x.safetensors", "resnet18"]) == [
        "/a/x.safetensors",
        "/b/x.safetensors",
        "resnet18",
    ]
